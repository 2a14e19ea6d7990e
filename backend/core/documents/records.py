"""The values that go in and out of collections."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

AttributeValue = str | float | bool
Attributes = Mapping[str, AttributeValue]
Stage = Literal["reading", "embedding", "storing", "done"]


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection, as somebody who may read it sees it."""

    id: str  # opaque: vs_ and 24 hex digits
    name: str
    owner: str
    created_at: float  # all times: Unix seconds
    shared_with: tuple[str, ...] = ()  # users who may read it
    shared_with_all: bool = False

    def readable_by(self, username: str) -> bool:
        return username == self.owner or self.shared_with_all or username in self.shared_with


def shown_model(name: str) -> str:
    """The name of an embedding model for users: one that is a folder of this machine loses the folders above it."""
    return name.rstrip("/").rpartition("/")[2] if name.startswith(("/", ".", "~")) else name


@dataclass(frozen=True, slots=True)
class Stats:
    """What a collection holds."""

    documents: int
    chunks: int
    bytes: int  # of the original files
    model: str  # what its vectors were made with; empty while there are none
    stale_documents: int  # made with another model than today's: `reindex` is needed before the collection answers
    changed_at: float
    database_bytes: int = 0
    cache_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Document:
    id: str  # opaque: doc_ and 24 hex digits
    name: str
    title: str
    size: int  # bytes of the original
    sha256: str
    pages: int | None
    chunks: int
    created_at: float
    model: str
    attributes: Attributes = field(default_factory=dict)
    problems: tuple[str, ...] = ()  # what of it could not be read, a sentence each


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a document is."""

    name: str
    stage: Stage
    page: int = 0
    pages: int | None = None
    chunks: int = 0  # found so far
    embedded: int = 0  # of them
    percent: float = 0.0  # of this document; a guess until its pages are counted, and never falling


@dataclass(frozen=True, slots=True)
class Added:
    """What became of a document that was handed in."""

    document: Document
    outcome: Literal["added", "replaced", "unchanged"]
    embedded: int  # chunks that the model had to read; the others were known


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document that answers a query: one chunk, or several that follow each other."""

    collection_id: str
    document_id: str
    document: str  # its name
    title: str
    page: int | None
    last_page: int | None
    section: str  # headings from the outermost to the innermost, joined by " > "; empty: none
    text: str
    context: str  # the text with the chunks around it; the text itself where none were asked for
    score: float  # 0 to 1, what passages are ordered by: 1 is the first in every ranking
    similarity: float  # cosine of query and passage: what tells how close the closest is
    attributes: Attributes = field(default_factory=dict)
    also_in: tuple[str, ...] = ()  # names of documents that hold nearly the same passage


@dataclass(frozen=True, slots=True)
class Verification:
    """What a look at a collection found; the caches have been made anew."""

    documents: int
    chunks: int
    problems: tuple[str, ...]  # empty: all is well
