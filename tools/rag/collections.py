"""Collections of documents: what the rag tool, the routes and the command line call.

Every call names the user who makes it. A collection is named by its id or its name (`ref`); another user's shared one
by its id, by `owner/name`, or by its name alone where the user has none of that name. A collection that the user may
not read does not exist for them. Only its owner changes it. `default` is made when it is first asked for.

Raises (from everything here):
    NotFound: there is no such collection or document for this user.
    Forbidden: it is shared with this user, and only its owner may change it.
    Unprocessable: a name, a filter or a document that cannot be; the message says why.
    Conflict: the name is taken, or (code `reindex_needed`) the vectors are another model's.
    Unavailable: the embedding model is not ready, too much waits, or the database is locked.
    StorageFailed: the disk is full or broken.
"""

from collections.abc import Awaitable, Callable, Sequence
from collections.abc import Collection as SomeOf
from pathlib import Path

from backend.core.documents.reading import DocumentReaders
from config import Settings

from .embedder import Embedder
from .filters import Filter
from .records import Added, Attributes, Collection, Document, Passage, Progress, Stats, Verification

DEFAULT = "default"

ProgressListener = Callable[[Progress], Awaitable[None]]


async def no_progress(progress: Progress) -> None:
    """For those who do not listen."""


class Collections:
    """All collections of one data folder. `start` before, `close` after; a closed one refuses calls.

    The embedder and the readers are the caller's: they are started and closed apart.
    """

    def __init__(self, settings: Settings, embedder: Embedder, readers: DocumentReaders) -> None: ...

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    # --- Collections ----------------------------------------------------------------------------------------------

    async def create(self, username: str, name: str) -> Collection: ...

    async def list_all(self, username: str) -> list[Collection]:
        """The user's own by name, then those that are shared with the user."""

    async def get(self, username: str, ref: str = DEFAULT) -> Collection: ...

    async def stats(self, username: str, ref: str = DEFAULT) -> Stats: ...

    async def rename(self, username: str, ref: str, name: str) -> Collection: ...

    async def share(self, username: str, ref: str, users: Sequence[str] = (), *, everyone: bool = False) -> Collection:
        """Let these users, or everyone, read it, and nobody else. Nobody at all ends the sharing."""

    async def delete(self, username: str, ref: str) -> Collection: ...

    # --- Documents ------------------------------------------------------------------------------------------------

    async def add(
        self,
        username: str,
        ref: str,
        path: Path,
        name: str,
        *,
        attributes: Attributes | None = None,
        progress: ProgressListener = no_progress,
    ) -> Added:
        """Read a file into the collection under a name, in place of the document that has that name.

        All or nothing: when this is cancelled, fails or is killed, the collection is as it was. The file at `path` is
        copied, and stays the caller's. A document of which nothing could be read is an `Unprocessable`; one of which
        some pages could not is added, and its `problems` say which.
        """

    async def list_documents(
        self, username: str, ref: str = DEFAULT, *, limit: int = 100, after: str | None = None
    ) -> list[Document]:
        """Documents by name, those behind the id `after`."""

    async def document(self, username: str, ref: str, document: str) -> Document:
        """A document by id or name."""

    async def original(self, username: str, ref: str, document: str) -> tuple[Document, Path]:
        """The file that was handed in, for reading alone."""

    async def text(self, username: str, ref: str, document: str) -> list[str]:
        """What was read of a document, chunk by chunk, without what they share."""

    async def set_attributes(self, username: str, ref: str, document: str, attributes: Attributes) -> Document: ...

    async def delete_document(self, username: str, ref: str, document: str) -> Document:
        """Remove its text, vectors, index entries and file."""

    async def reindex(self, username: str, ref: str, *, progress: ProgressListener = no_progress) -> list[Added]:
        """Read every document again that was made with another model or other settings, one by one."""

    # --- Search ---------------------------------------------------------------------------------------------------

    async def search(
        self,
        username: str,
        refs: Sequence[str],
        query: str,
        *,
        limit: int = 5,
        documents: SomeOf[str] | None = None,
        where: Filter | None = None,
        around: int = 0,
    ) -> list[Passage]:
        """The best passages of one or several collections, best first; an empty list where there is nothing.

        Args:
            documents: ids or names; only these are searched.
            where: only documents whose attributes match (`filters.parse_filter`).
            around: how many chunks before and behind a passage go into its `context`.
        """

    async def verify(self, username: str, ref: str = DEFAULT) -> Verification:
        """Make the caches anew, and compare them and the files with the database."""
