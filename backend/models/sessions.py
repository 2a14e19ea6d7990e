"""What the session routes take and give. Times are ISO 8601 in UTC."""

from datetime import UTC, datetime
from typing import Annotated, Any, Self
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from backend.core.storage.sessions import ScratchFile, SessionRecord

Title = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]


class SessionInfo(BaseModel):
    session_id: str
    title: str
    created_at: datetime
    updated_at: datetime
    message_count: int

    @classmethod
    def of(cls, record: SessionRecord) -> Self:
        return cls(
            session_id=record.session_id,
            title=record.title,
            created_at=_moment(record.created_at),
            updated_at=_moment(record.updated_at),
            message_count=record.message_count,
        )


class SessionList(BaseModel):
    sessions: list[SessionInfo]
    next_cursor: str | None = Field(description="give it as `cursor` for the next, older page; null: this is the last")


class SessionChange(BaseModel):
    model_config = ConfigDict(extra="forbid")

    title: Title


class DeletedSession(BaseModel):
    session_id: str
    deleted: bool = True


class History(BaseModel):
    session_id: str
    messages: list[dict[str, Any]] = Field(description="oldest first; `seq` counts from 1, content as OpenAI has it")


class FileInfo(BaseModel):
    name: str = Field(examples=["charts/sales.png"])
    size: int = Field(description="in bytes")
    created_at: datetime
    url: str

    @classmethod
    def of(cls, file: ScratchFile, session_id: str) -> Self:
        url = f"/api/chat/sessions/{session_id}/files/{quote(file.name)}"
        return cls(name=file.name, size=file.size, created_at=_moment(file.created_at), url=url)


class FileList(BaseModel):
    files: list[FileInfo]


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
