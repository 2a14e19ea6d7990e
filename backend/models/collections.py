"""Collections of documents on the wire. Times are ISO 8601 in UTC."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from backend.core.documents.records import Added, Collection, Document, Passage, Stats, shown_model

MAX_QUERY = 100_000
MAX_RESULTS = 50


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewCollection(_Request):
    name: str = Field(examples=["manuals"])


class CollectionChange(_Request):
    """What is left out stays as it is."""

    name: str | None = None
    share_with: Annotated[list[str], Field(max_length=1000, description="users who may read it")] | None = None
    share_with_all: Annotated[bool, Field(description="every user may read it")] | None = None


class DocumentChange(_Request):
    attributes: dict[str, str | float | bool]


class SearchRequest(_Request):
    query: Annotated[str, Field(min_length=1, max_length=MAX_QUERY)]
    max_results: Annotated[int, Field(ge=1, le=MAX_RESULTS)] = 10
    filters: (
        Annotated[dict[str, Any], Field(description="over the attributes, as in OpenAI's vector stores")] | None
    ) = None


class CollectionInfo(BaseModel):
    id: str
    name: str
    owner: str
    created_at: datetime
    shared_with: list[str]
    shared_with_all: bool

    @classmethod
    def of(cls, collection: Collection) -> Self:
        return cls(
            id=collection.id,
            name=collection.name,
            owner=collection.owner,
            created_at=_moment(collection.created_at),
            shared_with=list(collection.shared_with),
            shared_with_all=collection.shared_with_all,
        )


class CollectionDetails(CollectionInfo):
    documents: int
    chunks: int
    bytes: int = Field(description="of the original files")
    embedding_model: str
    stale_documents: int = Field(description="made with another embedding model: re-index before you search")
    changed_at: datetime

    @classmethod
    def with_stats(cls, collection: Collection, stats: Stats) -> Self:
        return cls(
            **CollectionInfo.of(collection).model_dump(),
            documents=stats.documents,
            chunks=stats.chunks,
            bytes=stats.bytes,
            embedding_model=shown_model(stats.model),
            stale_documents=stats.stale_documents,
            changed_at=_moment(stats.changed_at),
        )


class CollectionList(BaseModel):
    collections: list[CollectionInfo]


class DocumentInfo(BaseModel):
    id: str
    name: str
    title: str
    bytes: int
    pages: int | None
    chunks: int
    created_at: datetime
    attributes: dict[str, Any]
    problems: list[str] = Field(description="what of it could not be read")

    @classmethod
    def of(cls, document: Document) -> Self:
        return cls(
            id=document.id,
            name=document.name,
            title=document.title,
            bytes=document.size,
            pages=document.pages,
            chunks=document.chunks,
            created_at=_moment(document.created_at),
            attributes=dict(document.attributes),
            problems=list(document.problems),
        )


class DocumentList(BaseModel):
    documents: list[DocumentInfo]
    has_more: bool


class DocumentText(BaseModel):
    document: DocumentInfo
    text: list[str] = Field(description="what was read of it, piece by piece")


class UploadedFile(BaseModel):
    """What became of one file."""

    name: str
    outcome: Literal["added", "replaced", "unchanged", "failed"]
    document: DocumentInfo | None = None
    embedded: int = Field(0, description="pieces that were new to the collection")
    error: str | None = None

    @classmethod
    def of(cls, added: Added) -> Self:
        document = DocumentInfo.of(added.document)
        return cls(name=document.name, outcome=added.outcome, document=document, embedded=added.embedded)


class UploadResult(BaseModel):
    collection: CollectionInfo
    files: list[UploadedFile]
    failed: int


class FoundPassage(BaseModel):
    document_id: str
    document: str
    page: int | None
    last_page: int | None
    section: str
    score: float
    similarity: float
    text: str
    attributes: dict[str, Any]

    @classmethod
    def of(cls, passage: Passage) -> Self:
        return cls(**{name: getattr(passage, name) for name in cls.model_fields})


class SearchResult(BaseModel):
    passages: list[FoundPassage]


class Deleted(BaseModel):
    id: str
    deleted: bool = True


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
