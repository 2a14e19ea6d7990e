"""Vector stores, in OpenAI's shapes. What a collection cannot do (to expire, to be cut in another way) is refused."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field

from backend.models.collections import MAX_QUERY, MAX_RESULTS, CollectionDetails, DocumentInfo, FoundPassage

MAX_FILES = 100  # that one request may add
MAX_QUERIES = 8

Attributes = dict[str, str | float | bool]
StoreMetadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
]
FileId = Annotated[str, Field(min_length=1, max_length=48)]


class NewVectorStore(BaseModel):
    name: str | None = None
    file_ids: Annotated[list[FileId], Field(max_length=MAX_FILES)] = []
    metadata: StoreMetadata | None = None
    expires_after: dict[str, Any] | None = None


class VectorStoreChange(BaseModel):
    """What is left out stays as it is."""

    name: str | None = None
    metadata: StoreMetadata | None = None
    expires_after: dict[str, Any] | None = None


class NewStoreFile(BaseModel):
    file_id: FileId
    attributes: Attributes | None = None


class NewFileBatch(BaseModel):
    file_ids: Annotated[list[FileId], Field(max_length=MAX_FILES)] = []
    files: Annotated[list[NewStoreFile], Field(max_length=MAX_FILES)] = []
    attributes: Attributes | None = None

    def wanted(self) -> list[NewStoreFile]:
        return self.files or [NewStoreFile(file_id=one, attributes=self.attributes) for one in self.file_ids]


class StoreFileChange(BaseModel):
    attributes: Attributes | None


class RankingOptions(BaseModel):
    score_threshold: float = 0.0


class StoreSearch(BaseModel):
    query: (
        Annotated[str, Field(min_length=1, max_length=MAX_QUERY)]
        | Annotated[
            list[Annotated[str, Field(min_length=1, max_length=MAX_QUERY)]],
            Field(min_length=1, max_length=MAX_QUERIES),
        ]
    )
    max_num_results: Annotated[int, Field(ge=1, le=MAX_RESULTS)] = 10
    filters: dict[str, Any] | None = None
    ranking_options: RankingOptions = RankingOptions()

    @property
    def queries(self) -> list[str]:
        return [self.query] if isinstance(self.query, str) else self.query


class FileCounts(BaseModel):
    in_progress: int = 0
    completed: int
    failed: int = 0
    cancelled: int = 0
    total: int

    @classmethod
    def of(cls, completed: int, failed: int = 0) -> Self:
        return cls(completed=completed, failed=failed, total=completed + failed)


class VectorStoreObject(BaseModel):
    id: str
    object: Literal["vector_store"] = "vector_store"
    created_at: int
    name: str
    usage_bytes: int
    file_counts: FileCounts
    status: Literal["completed"] = "completed"
    expires_after: None = None
    expires_at: None = None
    last_active_at: int
    metadata: dict[str, str]

    @classmethod
    def of(cls, collection: CollectionDetails, metadata: dict[str, str], *, failed: int = 0) -> Self:
        return cls(
            id=collection.id,
            created_at=int(collection.created_at.timestamp()),
            name=collection.name,
            usage_bytes=collection.bytes,
            file_counts=FileCounts.of(collection.documents, failed),
            last_active_at=int(collection.changed_at.timestamp()),
            metadata=metadata,
        )


class StoreFileObject(BaseModel):
    id: str
    object: Literal["vector_store.file"] = "vector_store.file"
    created_at: int
    vector_store_id: str
    usage_bytes: int
    status: Literal["completed"] = "completed"
    last_error: None = None
    attributes: Attributes
    chunking_strategy: dict[str, str] = {"type": "other"}

    @classmethod
    def of(cls, store_id: str, document: DocumentInfo, file_id: str | None) -> Self:
        return cls(
            id=file_id or document.id,
            created_at=int(document.created_at.timestamp()),
            vector_store_id=store_id,
            usage_bytes=document.bytes,
            attributes=document.attributes,
        )


class FileBatchObject(BaseModel):
    id: str
    object: Literal["vector_store.files_batch"] = "vector_store.files_batch"
    created_at: int
    vector_store_id: str
    status: Literal["completed"] = "completed"
    file_counts: FileCounts


class _Page(BaseModel):
    object: Literal["list"] = "list"
    first_id: str | None
    last_id: str | None
    has_more: bool


class VectorStorePage(_Page):
    data: list[VectorStoreObject]

    @classmethod
    def of(cls, data: list[VectorStoreObject], *, has_more: bool) -> Self:
        first, last = (data[0].id, data[-1].id) if data else (None, None)
        return cls(data=data, first_id=first, last_id=last, has_more=has_more)


class StoreFilePage(_Page):
    data: list[StoreFileObject]

    @classmethod
    def of(cls, data: list[StoreFileObject], *, has_more: bool) -> Self:
        first, last = (data[0].id, data[-1].id) if data else (None, None)
        return cls(data=data, first_id=first, last_id=last, has_more=has_more)


class TextPart(BaseModel):
    type: Literal["text"] = "text"
    text: str


class FoundContent(BaseModel):
    file_id: str
    filename: str
    score: float
    attributes: Attributes
    content: list[TextPart]

    @classmethod
    def of(cls, passage: FoundPassage, file_id: str | None) -> Self:
        """`page` and `section` tell where in the file, unless the file has attributes of its own of these names."""
        place = {"page": passage.page, "section": passage.section}
        known = {name: value for name, value in place.items() if value}
        return cls(
            file_id=file_id or passage.document_id,
            filename=passage.document,
            score=passage.score,
            attributes=known | passage.attributes,
            content=[TextPart(text=passage.text)],
        )


class SearchPage(BaseModel):
    object: Literal["vector_store.search_results.page"] = "vector_store.search_results.page"
    search_query: list[str]
    data: list[FoundContent]
    has_more: Literal[False] = False
    next_page: None = None


class ContentPage(BaseModel):
    object: Literal["vector_store.file_content.page"] = "vector_store.file_content.page"
    data: list[TextPart]
    has_more: Literal[False] = False
    next_page: None = None


class DeletedStore(BaseModel):
    id: str
    object: Literal["vector_store.deleted"] = "vector_store.deleted"
    deleted: Literal[True] = True


class DeletedStoreFile(BaseModel):
    id: str
    object: Literal["vector_store.file.deleted"] = "vector_store.file.deleted"
    deleted: Literal[True] = True
