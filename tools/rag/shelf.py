"""Collections that are open: their indexes in memory, kept in step with the store, the least used ones put away.

Blocks: all of it is for threads.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from backend.core.documents.records import Document
from backend.core.errors import ApiError, Conflict, StorageFailed, Unavailable

from .dense import EXACT_BELOW, DenseIndex, IndexType, Scored, load_index
from .embedder import ModelInfo, Vectors
from .lexical import LexicalIndex
from .originals import remove_leftovers
from .store import Ids, Store

MAX_OPEN = 64
MAX_INDEX_BYTES = 2**29  # of all indexes in memory together; the one that is asked is never put away
LOCK_WAIT_S = 30.0

Matches = Callable[[Document], bool]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Candidates:
    """What the two indexes of a collection say to a query, best first."""

    dense: list[Scored]
    lexical: list[Scored]


class OpenCollection:
    """The store of a collection, and its two indexes.

    Raises (from `search` and `synchronize`):
        Conflict: documents were made with another model.
        Unavailable: somebody else works on the indexes for too long.
    """

    def __init__(self, folder: Path, kind: IndexType, model: ModelInfo) -> None:
        self.folder = folder
        self.store = Store(folder / "collection.db")
        self._kept_index = folder / "dense.index"
        self._lexical_folder = folder / "words"
        self._kind = kind
        self.model = model
        self._dense = DenseIndex(model.dimension)
        self._lexical: LexicalIndex | None = None
        self._in_step = -1  # the generation that both indexes have
        self.wants_cleaning = True  # what was removed may be in files still, as after a kill
        self._changing = threading.Lock()  # held by who brings the indexes up to date
        self._using = threading.Lock()  # held while the dense index is searched or changed

    @property
    def bytes(self) -> int:
        return self._dense.bytes

    @property
    def wants_better_index(self) -> bool:
        """Whether an approximate index is to be made, which takes long."""
        if self._kind == "Flat" or len(self._dense) < EXACT_BELOW:
            return False
        return self._dense.kind != self._kind or self._dense.worn_out

    def search(self, query: str, vector: Vectors, limit: int, matches: Matches | None) -> Candidates:
        self.follow_others()
        documents: list[int] | None = None
        allowed: Ids | None = None
        if matches is not None:
            documents = sorted(self.store.select_documents(matches))
            allowed = self.store.chunk_ids(documents)
            if not len(allowed):
                return Candidates([], [])
        with _held(self._using):
            dense = self._dense.search(vector, limit, allowed)
        return Candidates(dense, self._search_words(query, limit, documents))

    def is_stale(self) -> bool:
        """Whether documents were made with another model."""
        return self.store.totals(self.model.fingerprint).stale > 0

    def similarity(self, chunks: Sequence[int], vector: Vectors) -> dict[int, float]:
        """How close chunks are to a query that the vector index has not named."""
        return {number: float(own @ vector) for number, own in self.store.vectors_of(chunks).items()}

    def follow_others(self) -> None:
        """Bring the indexes up to date, unless somebody is doing it: then what they hold now has to do."""
        if self.store.generation() != self._in_step:
            if self._in_step >= 0 and self._changing.locked():
                return
            self.synchronize()

    def synchronize(self) -> None:
        """Bring the indexes up to date with the store."""
        with _held(self._changing):
            if self.is_stale():
                raise Conflict(
                    f"Documents of this collection were made with another embedding model than {self.model.name}. "
                    "Re-index the collection, then ask again.",
                    code="reindex_needed",
                )
            if self._in_step < 0 and self._kind != "Flat" and not len(self._dense):
                kept = load_index(self._kept_index, self._kind, self.model.dimension, self.model.fingerprint)
                self._dense = kept or self._dense
            generation = self._follow_vectors()
            try:
                self._in_step = min(generation, self._follow_words())
            except StorageFailed as error:  # vectors alone do until there is room again
                log.warning("rag: a word index cannot be written: %s", error)

    def improve(self) -> None:
        """Make the approximate index from the store, and put it in place of the one in use."""
        size = len(self._dense)
        better = DenseIndex(self.model.dimension, self._kind, size)
        changes = self.store.changes_since(better.mark)
        better.follow(changes, *self.store.vectors(changes, self.model.dimension))
        with _held(self._changing):
            with _held(self._using):
                self._dense = better
            self._follow_vectors()
            try:
                better.save(self._kept_index, self.model.fingerprint)
                if self.store.changes_since(better.mark).removed:  # another process has removed meanwhile
                    self._kept_index.unlink(missing_ok=True)
            except OSError as error:  # it works, and is made again after the next start
                log.warning("rag: an index cannot be kept: %s", error.strerror)

    def clean(self) -> None:
        """Take what was removed out of every file. One that a kill cuts off is made good by the next.

        Raises:
            NotFound: the collection was deleted.
            Unavailable: somebody reads or writes; to be called again.
        """
        with _held(self._changing):  # never between the two indexes' following a removal
            self.wants_cleaning = False
        try:
            self.store.generation()
            remove_leftovers(self.store)
            for draft in self.folder.glob(f"{self._kept_index.name}.*.tmp"):  # of one that died, or has old vectors
                draft.unlink(missing_ok=True)
            words = self._lexical
            if words and not words.is_clean():
                words.renew(self.store)
                with _held(self._changing):
                    words.follow(self.store)
            if not self.store.empty_log():
                raise Unavailable("The collection is being read.")
        except ApiError:
            self.wants_cleaning = True
            raise

    def forget(self) -> None:
        """Remove the caches: those of another model's vectors cannot follow a removal."""
        with _held(self._changing):
            self._forget()
        self.wants_cleaning = True  # the database's log

    def rebuild(self) -> list[str]:
        """Make the caches anew; returns in what they differ from the store then."""
        with _held(self._changing):
            self._forget()
        self.synchronize()
        assert self._lexical
        chunks = self.store.totals(self.model.fingerprint).chunks
        counts = {"vector index": len(self._dense), "word index": len(self._lexical)}
        return [f"The {name} holds {count} chunks of {chunks}." for name, count in counts.items() if count != chunks]

    def close(self) -> None:
        self.store.close()

    def _forget(self) -> None:
        self._kept_index.unlink(missing_ok=True)
        LexicalIndex.remove(self._lexical_folder)
        self._lexical = None
        with _held(self._using):
            self._dense = DenseIndex(self.model.dimension)
        self._in_step = -1

    def _follow_vectors(self) -> int:
        changes = self.store.changes_since(self._dense.mark)
        if changes.mark.generation != self._dense.mark.generation:
            ids, vectors = self.store.vectors(changes, self.model.dimension)
            with _held(self._using):
                if changes.from_scratch:
                    self._dense = DenseIndex(self.model.dimension)
                self._dense.follow(changes, ids, vectors)
            if changes.removed:
                self._kept_index.unlink(missing_ok=True)  # no vector of what was removed stays on the disk
                self.wants_cleaning = True
        return self._dense.mark.generation

    def _follow_words(self) -> int:
        self._lexical = self._lexical or LexicalIndex(self._lexical_folder)
        return self._lexical.follow(self.store).generation

    def _search_words(self, query: str, limit: int, documents: Sequence[int] | None) -> list[Scored]:
        """What the word index finds; a broken one is made anew, once."""
        if self._lexical is None:
            return []
        try:
            return self._lexical.search(query, limit, documents)
        except ApiError:
            log.exception("rag: a word index is broken: it is made anew")
        with _held(self._changing):
            LexicalIndex.remove(self._lexical_folder)
            self._lexical = None
            self._follow_words()
            assert self._lexical
            return self._lexical.search(query, limit, documents)


class Shelf:
    """The collections that are open, by their folders."""

    def __init__(self, kind: IndexType) -> None:
        self._kind = kind
        self._open: OrderedDict[Path, OpenCollection] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, folder: Path, model: ModelInfo) -> OpenCollection:
        with self._lock:
            if folder not in self._open:
                self._open[folder] = OpenCollection(folder, self._kind, model)
            self._open.move_to_end(folder)
            taken = self._open[folder]
            total = sum(collection.bytes for collection in self._open.values())
            while len(self._open) > 1 and (len(self._open) > MAX_OPEN or total > MAX_INDEX_BYTES):
                _, least_used = self._open.popitem(last=False)
                total -= least_used.bytes
                least_used.close()
            return taken

    def put_away(self, folder: Path) -> None:
        with self._lock:
            if collection := self._open.pop(folder, None):
                collection.close()

    def close(self) -> None:
        with self._lock:
            while self._open:
                self._open.popitem()[1].close()


@contextmanager
def _held(lock: threading.Lock) -> Iterator[None]:
    if not lock.acquire(timeout=LOCK_WAIT_S):
        raise Unavailable("The collection is busy. Try again shortly.", retry_after_s=5)
    try:
        yield
    finally:
        lock.release()
