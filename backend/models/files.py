"""Files in OpenAI's shapes."""

from typing import Literal

from pydantic import BaseModel

from backend.core.storage.files import FilePage, StoredFile

Purpose = Literal[
    "assistants", "assistants_output", "batch", "batch_output", "evals", "fine-tune", "user_data", "vision"
]


class FileObject(BaseModel):
    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"
    status_details: None = None

    @classmethod
    def of(cls, file: StoredFile) -> "FileObject":
        return cls(
            id=file.id,
            bytes=file.size,
            created_at=int(file.created_at),
            expires_at=None if file.expires_at is None else int(file.expires_at),
            filename=file.filename,
            purpose=file.purpose,
        )


class FileObjects(BaseModel):
    object: Literal["list"] = "list"
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool

    @classmethod
    def of(cls, page: FilePage) -> "FileObjects":
        data = [FileObject.of(file) for file in page.files]
        first_id, last_id = (data[0].id, data[-1].id) if data else (None, None)
        return cls(data=data, first_id=first_id, last_id=last_id, has_more=page.has_more)


class DeletedFile(BaseModel):
    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True
