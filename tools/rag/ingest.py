"""From a file to a document of a collection: read, cut, embed, and put in its place in one transaction.

    reader (a process) -> blocks -> Chunker (a thread) -> chunks -> Embedder (a process) -> vectors -> Store

While a group of chunks is embedded, the next one is read and cut. Until the transaction at the end nothing of a
document is to be seen. Its copy of the file is named by the document's id, and one that no document names is a leftover
of an upload that was killed: the next upload into the collection removes it (`originals.py`).
"""

import asyncio
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from backend.core.documents.document import Block, DocumentInfo, PageRead, Problem
from backend.core.documents.reading import DocumentReaders
from backend.core.documents.records import Added, Attributes, Document, Progress, Stage
from backend.core.errors import ApiError, NotFound, StorageFailed, Unprocessable

from .chunking import Chunk, Chunker
from .embedder import Embedder
from .originals import FILES, uploading
from .store import Store, digest_of
from .threads import Threads
from .tokens import TokenCounter

GROUP_CHUNKS = 64
GROUP_CHARACTERS = 2**17  # of blocks that go to a thread together
MAX_CHUNKS = 100_000  # of one document
MAX_PROBLEMS = 100
EMBEDDED_SHARE = 0.95  # of a document that has only to be stored

ProgressListener = Callable[[Progress], Awaitable[None]]


@dataclass(slots=True)
class _Draft:
    """A document that is being read."""

    name: str
    title: str
    pages: int | None = None
    page: int = 0
    chunks: list[Chunk] = field(default_factory=list)
    vectors: list[bytes] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    asked: int = 0  # chunks that the model had to read
    percent: float = 0.0

    def progress(self, stage: Stage, read: float) -> Progress:
        done = len(self.vectors) / len(self.chunks) if self.chunks else 1.0
        share = {"storing": EMBEDDED_SHARE, "done": 1.0}.get(stage, EMBEDDED_SHARE * read * (0.1 + 0.9 * done))
        self.percent = max(self.percent, round(100 * share, 1))
        return Progress(self.name, stage, self.page, self.pages, len(self.chunks), len(self.vectors), self.percent)


class Ingest:
    """Reads one document into one store.

    Args:
        size: tokens of a chunk, as it is set; the model's window bounds it.
    """

    def __init__(
        self,
        store: Store,
        embedder: Embedder,
        readers: DocumentReaders,
        threads: Threads,
        counter: TokenCounter,
        size: int,
    ) -> None:
        self._store = store
        self._embedder = embedder
        self._readers = readers
        self._threads = threads
        self._model = embedder.info
        self._counter = counter
        self._size = min(size, self._model.window - counter.marks)

    async def read(self, path: Path, name: str, attributes: Attributes | None, progress: ProgressListener) -> Added:
        """
        Raises:
            Unprocessable: nothing of it can be read.
            StorageFailed, Unavailable, NotFound: see `Collections`.
        """
        sha256, size = await self._threads.run(_hash, path)
        before = await self._threads.run(self._store.find_document, name)
        if before and before.name == name and before.sha256 == sha256 and before.model == self._model.name:
            stale = await self._threads.run(self._store.stale_documents, self._model.fingerprint)
            if before.id not in {document.id for document in stale}:
                return await self._keep(before, attributes, progress)
        draft = _Draft(name, name)
        await self._read_all(path, draft, progress)
        if not draft.chunks:
            reason = f" {draft.problems[0]}" if draft.problems else " There is no text in it."
            raise Unprocessable(f"Nothing of {name} can be read.{reason}", param="file", code="unreadable_document")
        kept = attributes if attributes is not None else before.attributes if before else {}
        document = Document(
            id=f"doc_{secrets.token_hex(12)}",
            name=name,
            title=draft.title,
            size=size,
            sha256=sha256,
            pages=draft.pages,
            chunks=len(draft.chunks),
            created_at=time.time(),
            model=self._model.name,
            attributes=kept,
            problems=tuple(draft.problems),
        )
        await progress(draft.progress("storing", 1.0))
        replaced = await self._threads.finish(self._put, path, document, draft)
        await progress(draft.progress("done", 1.0))
        return Added(document, "replaced" if replaced else "added", draft.asked)

    async def _keep(self, document: Document, attributes: Attributes | None, progress: ProgressListener) -> Added:
        """What is there already, but for its attributes."""
        if attributes is not None and attributes != document.attributes:
            await self._threads.run(self._store.set_attributes, document.id, attributes)
            document = replace(document, attributes=attributes)
        chunks = document.chunks
        await progress(Progress(document.name, "done", document.pages or 0, document.pages, chunks, chunks, 100.0))
        return Added(document, "unchanged", 0)

    async def _read_all(self, path: Path, draft: _Draft, progress: ProgressListener) -> None:
        chunker = Chunker(self._counter, self._size)
        blocks: list[Block] = []
        waiting = 0  # characters in blocks
        embedding: asyncio.Task[None] | None = None
        try:
            async with aclosing(self._readers.read(path, draft.name)) as parts:
                async for part in parts:
                    match part:
                        case DocumentInfo():
                            draft.title, draft.pages = part.title or draft.name, part.pages
                        case Problem():
                            where = f"Page {part.page}: " if part.page else ""
                            if len(draft.problems) < MAX_PROBLEMS:
                                draft.problems.append(where + part.text)
                        case PageRead():
                            draft.page, draft.pages = part.page, part.pages or draft.pages
                            await progress(draft.progress("reading", _share(draft)))
                        case Block():
                            blocks.append(part)
                            waiting += len(part.text)
                    if waiting > GROUP_CHARACTERS:
                        draft.chunks += await self._threads.run(_feed, chunker, blocks)
                        blocks, waiting = [], 0
                        embedding = await self._embed_ripe(draft, embedding, progress)
            draft.chunks += await self._threads.run(_feed, chunker, blocks, last=True)
            _check_size(draft)
            if embedding:
                await embedding
            await self._embed(draft, len(draft.chunks), progress, read=1.0)
        finally:
            if embedding and not embedding.done():
                embedding.cancel()
                await asyncio.gather(embedding, return_exceptions=True)

    async def _embed_ripe(
        self, draft: _Draft, embedding: asyncio.Task[None] | None, progress: ProgressListener
    ) -> asyncio.Task[None] | None:
        """Have what was cut embedded while the reading goes on, when what went before is done."""
        _check_size(draft)
        if embedding:
            await embedding
        return asyncio.create_task(self._embed(draft, len(draft.chunks), progress, read=_share(draft)))

    async def _embed(self, draft: _Draft, until: int, progress: ProgressListener, *, read: float) -> None:
        while (start := len(draft.vectors)) < until:
            group = draft.chunks[start : min(until, start + GROUP_CHUNKS)]
            draft.vectors += await self._vectors(group, draft)
            await progress(draft.progress("embedding", read))

    async def _vectors(self, group: Sequence[Chunk], draft: _Draft) -> list[bytes]:
        """The vectors of chunks; the model reads only what the collection does not know."""
        digests = [digest_of(chunk.embedded) for chunk in group]
        known = await self._threads.run(self._store.known_vectors, digests, self._model.fingerprint)
        new = {digest: chunk.embedded for digest, chunk in zip(digests, group, strict=True) if digest not in known}
        if new:
            embedded = await self._embedder.embed(list(new.values()), lane="bulk", prompt="document")
            rows = embedded.vectors.astype(np.float16)
            known |= {digest: row.tobytes() for digest, row in zip(new, rows, strict=True)}
            draft.asked += len(new)
        return [known[digest] for digest in digests]

    def _put(self, path: Path, document: Document, draft: _Draft) -> bool:
        """The file first, then the transaction: a document always has its file. Blocks."""
        folder = self._store.path.parent / FILES
        target = folder / document.id
        try:
            with uploading(folder):
                try:
                    _copy(path, target)
                    replaced = self._store.put(document, self._model.fingerprint, draft.chunks, draft.vectors)
                except BaseException:
                    target.unlink(missing_ok=True)
                    raise
                if replaced:
                    (folder / replaced.id).unlink(missing_ok=True)
        except OSError as error:
            raise as_storage_error(error) from error
        return replaced is not None


def as_storage_error(error: OSError) -> ApiError:
    if isinstance(error, FileNotFoundError):
        return NotFound("The collection or the file was deleted meanwhile.")
    return StorageFailed("The server's disk is full or cannot be written. Tell whoever runs it.")


def _share(draft: _Draft) -> float:
    return min(1.0, draft.page / draft.pages) if draft.pages else 0.0


def _check_size(draft: _Draft) -> None:
    if len(draft.chunks) > MAX_CHUNKS:
        raise Unprocessable(
            f"{draft.name} has more than {MAX_CHUNKS} chunks. Split it into several files.", param="file"
        )


def _feed(chunker: Chunker, blocks: list[Block], *, last: bool = False) -> list[Chunk]:
    return [*chunker.feed(blocks), *(chunker.finish() if last else ())]


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as original, target.open("xb") as copy:
        shutil.copyfileobj(original, copy, 2**20)
        copy.flush()
        os.fsync(copy.fileno())


def _hash(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size
