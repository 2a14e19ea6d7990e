"""Collections of documents as routes see them: what the rag tool of this process has, without knowing the tool.

Every call names the user who makes it. A collection is named by its id or its name (`ref`), and one that the user may
not read does not exist. `tools/rag/collections.py` tells the rest.

Raises (from everything here): NotFound, Forbidden, Unprocessable, Conflict, Unavailable, StorageFailed.
"""

from collections.abc import Awaitable, Callable, Sequence
from collections.abc import Collection as SomeOf
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from backend.core.documents.filters import Filter
from backend.core.documents.records import Added, Attributes, Collection, Document, Passage, Progress, Stats

DEFAULT = "default"

ProgressListener = Callable[[Progress], Awaitable[None]]


class DocumentCollections(Protocol):
    async def create(self, username: str, name: str) -> Collection: ...

    async def list_all(self, username: str) -> list[Collection]: ...

    async def get(self, username: str, ref: str = ...) -> Collection: ...

    async def stats(self, username: str, ref: str = ...) -> Stats: ...

    async def rename(self, username: str, ref: str, name: str) -> Collection: ...

    async def share(self, username: str, ref: str, users: Sequence[str] = ..., *, everyone: bool = ...) -> Collection:
        """Let these users, or everyone, read it, and nobody else."""
        ...

    async def delete(self, username: str, ref: str) -> Collection: ...

    async def add(
        self,
        username: str,
        ref: str,
        path: Path,
        name: str,
        *,
        attributes: Attributes | None = ...,
        progress: ProgressListener = ...,
    ) -> Added:
        """All or nothing, also when it is cancelled. The file at `path` stays the caller's."""
        ...

    async def list_documents(
        self, username: str, ref: str = ..., *, limit: int = ..., after: str | None = ...
    ) -> list[Document]:
        """Documents by name, those behind the id `after`."""
        ...

    async def document(self, username: str, ref: str, document: str) -> Document: ...

    async def original(self, username: str, ref: str, document: str) -> tuple[Document, Path]: ...

    async def text(self, username: str, ref: str, document: str) -> list[str]: ...

    async def set_attributes(self, username: str, ref: str, document: str, attributes: Attributes) -> Document: ...

    async def delete_document(self, username: str, ref: str, document: str) -> Document: ...

    async def reindex(self, username: str, ref: str, *, progress: ProgressListener = ...) -> list[Added]: ...

    async def search(
        self,
        username: str,
        refs: Sequence[str],
        query: str,
        *,
        limit: int = ...,
        documents: SomeOf[str] | None = ...,
        where: Filter | None = ...,
        around: int = ...,
    ) -> list[Passage]: ...


class Bytes(Protocol):
    """Numbers that can be written out: 32-bit floats, a row for each text."""

    def tobytes(self) -> bytes: ...


class EmbeddedTexts(Protocol):
    @property
    def vectors(self) -> Bytes: ...

    @property
    def tokens(self) -> Sequence[int]: ...

    @property
    def cut(self) -> Sequence[bool]:
        """Which texts are longer than what the model reads."""
        ...


class EmbeddingModel(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def dimension(self) -> int: ...


class TextEmbedding(Protocol):
    @property
    def info(self) -> EmbeddingModel: ...

    async def embed(self, texts: Sequence[str], *, lane: Literal["query", "bulk"] = ...) -> EmbeddedTexts: ...


@runtime_checkable
class DocumentsTool(Protocol):
    """A tool that keeps documents."""

    @property
    def collections(self) -> DocumentCollections: ...

    @property
    def embedder(self) -> TextEmbedding: ...
