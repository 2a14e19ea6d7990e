"""Collections of documents: what the rag tool, the routes and the command line call.

Every call names the user who makes it. A collection is named by its id or its name (`ref`); another user's shared one
by its id, by `owner/name`, or by its name alone where the user has none of that name. A collection that the user may
not read does not exist for them. Only its owner changes it. `default` is the user's own, and made when it is first
asked for, other than by a search.

Raises (from everything here):
    NotFound: there is no such collection or document for this user.
    Forbidden: it is shared with this user, and only its owner may change it.
    Unprocessable: a name, a filter or a document that cannot be; the message says why.
    Conflict: the name is taken, or (code `reindex_needed`) the vectors are another model's.
    Unavailable: the embedding model is not ready, too much waits, or the database is locked.
    StorageFailed: the disk is full or broken.
"""

import asyncio
import logging
from collections.abc import Collection as SomeOf
from collections.abc import Sequence
from pathlib import Path

from backend.core.documents.filters import Filter
from backend.core.documents.reading import DocumentReaders
from backend.core.documents.records import (
    Added,
    Attributes,
    Collection,
    Document,
    Passage,
    Progress,
    Stats,
    Verification,
)
from backend.core.errors import ApiError, NotFound, Unprocessable
from backend.utils.clean_text import clean_text
from config import Settings

from .catalog import DEFAULT as DEFAULT
from .catalog import Catalog
from .embedder import Embedder
from .fused import join_chunks
from .ingest import Ingest, ProgressListener
from .inspection import measure, verify
from .originals import FILES, delete_document, remove_leftovers
from .reranker import Reranker
from .retrieval import MAX_QUERY, RERANKED, Candidates, Query, find, present
from .shelf import Matches, OpenCollection, Shelf
from .store import Store
from .threads import Threads
from .tokens import TokenCounter
from .upkeep import Upkeep
from .upload_queue import UploadQueue

SEARCH_THREADS = 8
BULK_THREADS = 4
MAX_RESULTS = 100
MAX_COLLECTIONS_A_SEARCH = 32
MAX_NAME_BYTES = 255  # of a document
MAX_ATTRIBUTES = 16
MAX_ATTRIBUTE = 512  # characters

log = logging.getLogger(__name__)


async def no_progress(progress: Progress) -> None:
    """For those who do not listen."""


class Collections:
    """All collections of one data folder. `start` before, `close` after; a closed one refuses calls.

    The models and the readers are the caller's: they are started before and closed behind this.
    """

    def __init__(
        self, settings: Settings, embedder: Embedder, readers: DocumentReaders, reranker: Reranker | None = None
    ) -> None:
        self._data_dir = settings.DATA_DIR
        self._catalog = Catalog(settings.DATA_DIR)
        self._shelf = Shelf(settings.RAG_INDEX_TYPE)
        self._chunk_size = settings.RAG_CHUNK_SIZE
        self._embedder = embedder
        self._reranker = reranker
        self._readers = readers
        self._threads = Threads(SEARCH_THREADS, "rag")
        self._bulk = Threads(BULK_THREADS, "rag-bulk")
        self._uploads = UploadQueue()
        self._upkeep = Upkeep()
        self._counter: TokenCounter | None = None

    async def start(self) -> None:
        await self._threads.run((self._data_dir / "rag").mkdir, parents=True, exist_ok=True)

    async def close(self) -> None:
        await self._upkeep.close()
        for threads in (self._bulk, self._threads):
            await threads.close()
        await asyncio.to_thread(self._shelf.close)

    # --- Collections ----------------------------------------------------------------------------------------------

    async def create(self, username: str, name: str) -> Collection:
        await self._threads.run(self._catalog.remove_leftovers, username)
        return await self._threads.finish(self._catalog.create, username, clean_text(name))

    async def list_all(self, username: str) -> list[Collection]:
        """The user's own by name, then those that are shared with the user."""
        return await self._threads.run(lambda: self._catalog.own(username) + self._catalog.shared(username))

    async def get(self, username: str, ref: str = DEFAULT) -> Collection:
        return await self._threads.finish(self._catalog.find_or_make, username, clean_text(ref))

    async def stats(self, username: str, ref: str = DEFAULT) -> Stats:
        collection = await self.get(username, ref)
        return await self._threads.run(measure, collection, self._open(collection))

    async def rename(self, username: str, ref: str, name: str) -> Collection:
        collection = await self._own(username, ref)
        await self._threads.run(self._catalog.rename, collection, clean_text(name))
        return await self.get(username, collection.id)

    async def share(self, username: str, ref: str, users: Sequence[str] = (), *, everyone: bool = False) -> Collection:
        """Let these users, or everyone, read it, and nobody else. Nobody at all ends the sharing."""
        collection = await self._own(username, ref)
        await self._threads.run(self._catalog.share, collection, users, everyone=everyone)
        return await self.get(username, collection.id)

    async def delete(self, username: str, ref: str) -> Collection:
        collection = await self._own(username, ref)
        await self._threads.run(self._shelf.put_away, self._catalog.folder(collection))
        await self._threads.finish(self._catalog.delete, collection)
        return collection

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
        collection = await self._own(username, ref)
        _check_document_name(name)
        if attributes is not None:
            _check_attributes(attributes)
        async with self._uploads.turn():
            opened = self._open(collection)
            await self._bulk.run(remove_leftovers, opened.store)
            added = await (await self._ingest(opened.store)).read(path, name, attributes, progress)
            await self._settle(opened)
            return added

    async def list_documents(
        self, username: str, ref: str = DEFAULT, *, limit: int = 100, after: str | None = None
    ) -> list[Document]:
        """Documents by name, those behind the id `after`."""
        collection = await self.get(username, ref)
        return await self._threads.run(self._open(collection).store.documents, limit, after)

    async def document(self, username: str, ref: str, document: str) -> Document:
        """A document by id or name."""
        return await self._find(await self.get(username, ref), document)

    async def original(self, username: str, ref: str, document: str) -> tuple[Document, Path]:
        """The file that was handed in, for reading alone."""
        collection = await self.get(username, ref)
        found = await self._find(collection, document)
        return found, self._catalog.folder(collection) / FILES / found.id

    async def text(self, username: str, ref: str, document: str) -> list[str]:
        """What was read of a document, chunk by chunk, without what they share."""
        collection = await self.get(username, ref)
        found = await self._find(collection, document)
        chunks = await self._threads.run(self._open(collection).store.chunks_of, found.id)
        return [
            join_chunks([chunk]) if number == 0 else chunk.text[chunk.overlap :] for number, chunk in enumerate(chunks)
        ]

    async def set_attributes(self, username: str, ref: str, document: str, attributes: Attributes) -> Document:
        collection = await self._own(username, ref)
        _check_attributes(attributes)
        found = await self._find(collection, document)
        await self._threads.finish(self._open(collection).store.set_attributes, found.id, attributes)
        return await self._find(collection, found.id)

    async def delete_document(self, username: str, ref: str, document: str) -> Document:
        """Remove its text, vectors, index entries and file.

        No search finds it from then on; words in index files and what SQLite's log holds go in the background.
        """
        collection = await self._own(username, ref)
        found = await self._find(collection, document)
        opened = self._open(collection)
        if not await self._threads.finish(delete_document, opened.store, found.id):
            raise _no_such_document()
        await self._settle(opened)
        return found

    async def reindex(self, username: str, ref: str, *, progress: ProgressListener = no_progress) -> list[Added]:
        """Read every document again that was made with another model, one by one."""
        collection = await self._own(username, ref)
        added: list[Added] = []
        async with self._uploads.turn():
            opened = self._open(collection)
            ingest = await self._ingest(opened.store)
            stale = await self._bulk.run(opened.store.stale_documents, self._embedder.info.fingerprint)
            for document in stale:
                path = self._catalog.folder(collection) / FILES / document.id
                added.append(await ingest.read(path, document.name, None, progress))
            await self._settle(opened)
        return added

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
            limit: how many, `MAX_RESULTS` at most.
            documents: ids or names; only these are searched.
            where: only documents whose attributes match (`filters.parse_filter`).
            around: how many chunks before and behind a passage go into its `context`.
        """
        if len(refs) > MAX_COLLECTIONS_A_SEARCH:
            raise Unprocessable(f"Search at most {MAX_COLLECTIONS_A_SEARCH} collections at once.", param="collection")
        found = await self._threads.run(self._readable, username, refs or (DEFAULT,))
        text = clean_text(query[:MAX_QUERY]).strip()
        if not text:
            return []
        embedded = await self._embedder.embed([text], prompt="query")
        limit = max(1, min(limit, MAX_RESULTS))
        at_least = RERANKED if self._reranker else 0
        wanted = Query(text, embedded.vectors[0], limit, _matches(documents, where), around, at_least)
        opened = [(one, self._open(one)) for one in found]
        candidates = await self._threads.run(find, opened, wanted)
        if self._reranker and candidates.hits:
            candidates = await self._rerank(self._reranker, text, candidates)
        passages = await self._threads.run(present, opened, wanted, candidates)
        for one in opened:
            self._upkeep.begin(one[1])
        return passages

    async def verify(self, username: str, ref: str = DEFAULT) -> Verification:
        """Make the caches anew, and compare them and the files with the database."""
        collection = await self._own(username, ref)
        return await self._bulk.run(verify, self._open(collection))

    # --- What they share ------------------------------------------------------------------------------------------

    def _readable(self, username: str, refs: Sequence[str]) -> list[Collection]:
        """Each once. A search makes nothing: a `default` that is not there yet has nothing to find. Blocks."""
        found: dict[str, Collection] = {}
        for ref in map(clean_text, refs):
            try:
                one = self._catalog.find(username, ref)
            except NotFound:
                if ref.strip() != DEFAULT:
                    raise
            else:
                found[one.id] = one
        return list(found.values())

    async def _own(self, username: str, ref: str) -> Collection:
        return await self._threads.finish(self._catalog.find_own, username, clean_text(ref))

    async def _rerank(self, reranker: Reranker, query: str, candidates: Candidates) -> Candidates:
        try:
            return candidates.ordered_by(await reranker.score(query, candidates.best_texts()))
        except ApiError as error:
            log.warning("rag: found passages keep their order: %s", error)
            return candidates

    def _open(self, collection: Collection) -> OpenCollection:
        return self._shelf.take(self._catalog.folder(collection), self._embedder.info)

    async def _find(self, collection: Collection, document: str) -> Document:
        found = await self._threads.run(self._open(collection).store.find_document, clean_text(document))
        if found is None:
            raise _no_such_document()
        return found

    async def _ingest(self, store: Store) -> Ingest:
        if self._counter is None:
            self._counter = await self._bulk.run(TokenCounter, self._embedder.info.tokenizer)
        return Ingest(store, self._embedder, self._readers, self._bulk, self._counter, self._chunk_size)

    async def _settle(self, opened: OpenCollection) -> None:
        """Have the indexes follow a change, so that no search has to. The change itself is made whatever comes here."""
        try:
            stale = await self._bulk.run(opened.is_stale)
            await self._bulk.run(opened.forget if stale else opened.synchronize)
            self._upkeep.begin(opened)
        except ApiError as error:
            log.warning("rag: the indexes will follow later: %s", error)


def _matches(documents: SomeOf[str] | None, where: Filter | None) -> Matches | None:
    if documents is None and where is None:
        return None
    names = None if documents is None else frozenset(documents)

    def matches(document: Document) -> bool:
        named = names is None or document.id in names or document.name in names
        return named and (where is None or where(document.attributes))

    return matches


def _check_document_name(name: str) -> None:
    if not name.strip() or len(name.encode("utf-8", "replace")) > MAX_NAME_BYTES or not name.isprintable():
        raise Unprocessable(f"A document's name has 1 to {MAX_NAME_BYTES} bytes, all of them printable.", param="file")


def _check_attributes(attributes: Attributes) -> None:
    texts = [*attributes, *(value for value in attributes.values() if isinstance(value, str))]
    if len(attributes) > MAX_ATTRIBUTES or any(len(text) > MAX_ATTRIBUTE for text in texts):
        raise Unprocessable(
            f"A document has at most {MAX_ATTRIBUTES} attributes of at most {MAX_ATTRIBUTE} characters.",
            param="attributes",
        )


def _no_such_document() -> NotFound:
    return NotFound("There is no such document in this collection.")
