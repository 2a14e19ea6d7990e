"""The truth of one collection: its documents, chunks and vectors, in one SQLite file.

A document comes and goes in one transaction, with everything that belongs to it. Each change of chunks makes a new
`generation`; chunk ids only ever grow, and `removals` tells which of them went, so that an index that knows where it
stands is brought up to date by what is new (`changes_since`). Vectors have half precision: the same top ten as with
single precision, at half the size. Blocks.
"""

import hashlib
import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backend.core.documents.records import Attributes, Document
from backend.core.errors import StorageFailed

from .chunking import Chunk
from .database_file import DatabaseFile, select_in

MAX_REMOVALS = 10_000  # that are remembered; an index that is older is made anew

SCHEMA = """
CREATE TABLE IF NOT EXISTS state (
    one INTEGER PRIMARY KEY CHECK (one = 1), generation INTEGER NOT NULL, oldest INTEGER NOT NULL,
    changed_at REAL NOT NULL
);
INSERT OR IGNORE INTO state VALUES (1, 0, 0, 0);
CREATE TABLE IF NOT EXISTS documents (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, name TEXT NOT NULL UNIQUE,
    title TEXT NOT NULL, size INTEGER NOT NULL, sha256 TEXT NOT NULL, pages INTEGER, chunks INTEGER NOT NULL,
    created_at REAL NOT NULL, model TEXT NOT NULL, fingerprint TEXT NOT NULL,
    attributes TEXT NOT NULL, problems TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS chunks (
    id INTEGER PRIMARY KEY AUTOINCREMENT, document INTEGER NOT NULL REFERENCES documents (number),
    position INTEGER NOT NULL, page INTEGER, last_page INTEGER, section TEXT NOT NULL, text TEXT NOT NULL,
    overlap INTEGER NOT NULL, digest BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS chunks_by_document ON chunks (document, position);
CREATE INDEX IF NOT EXISTS chunks_by_digest ON chunks (digest);
CREATE TABLE IF NOT EXISTS vectors (chunk INTEGER PRIMARY KEY REFERENCES chunks (id), vector BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS removals (generation INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL);
"""

Vectors = NDArray[np.float16]
Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class StoredChunk:
    id: int
    document: int  # its number
    position: int
    page: int | None
    last_page: int | None
    section: str
    text: str
    overlap: int


@dataclass(frozen=True, slots=True)
class Mark:
    """How far an index has followed the changes."""

    generation: int = 0
    last_chunk: int = 0


@dataclass(frozen=True, slots=True)
class Changes:
    mark: Mark  # where an index is that has followed them
    added_behind: int  # chunks with ids above this one, up to the mark's
    removed: list[tuple[int, int]]  # ranges of ids, both ends included
    from_scratch: bool  # the index is too old to be brought up to date


@dataclass(frozen=True, slots=True)
class Totals:
    documents: int
    chunks: int
    size: int
    stale: int
    model: str
    changed_at: float


def digest_of(text: str) -> bytes:
    """By what the same text for the model is known again."""
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).digest()


class Store:
    """Opened again and again: whoever deletes the folder while we run has deleted the collection.

    Raises (from everything):
        NotFound: the file is gone.
        StorageFailed: the disk is full or broken. Nothing has changed.
        Unavailable: another process writes for longer than `LOCK_WAIT_S`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = DatabaseFile(path)

    def create(self) -> None:
        """Make the tables that are missing."""
        self._file.create(SCHEMA)

    def close(self) -> None:
        self._file.close()

    # --- Reading --------------------------------------------------------------------------------------------------

    def generation(self) -> int:
        with self._file.reading() as connection:
            return int(connection.execute("SELECT generation FROM state").fetchone()[0])

    def totals(self, fingerprint: str) -> Totals:
        query = """SELECT count(*), coalesce(sum(chunks), 0), coalesce(sum(size), 0),
            coalesce(sum(fingerprint != ?), 0), coalesce(max(model), ''),
            (SELECT changed_at FROM state) FROM documents"""
        with self._file.reading() as connection:
            return Totals(*connection.execute(query, (fingerprint,)).fetchone())

    def stale_documents(self, fingerprint: str) -> list[Document]:
        with self._file.reading() as connection:
            rows = connection.execute("SELECT * FROM documents WHERE fingerprint != ? ORDER BY name", (fingerprint,))
            return [_document(row) for row in rows]

    def documents(self, limit: int, after: str | None) -> list[Document]:
        query = """SELECT * FROM documents
            WHERE name > coalesce((SELECT name FROM documents WHERE id = ?), '') ORDER BY name LIMIT ?"""
        with self._file.reading() as connection:
            rows = connection.execute(query, (after, limit))
            return [_document(row) for row in rows]

    def find_document(self, ref: str) -> Document | None:
        """A document by id or name."""
        with self._file.reading() as connection:
            row = connection.execute("SELECT * FROM documents WHERE id = ? OR name = ? LIMIT 1", (ref, ref)).fetchone()
            return None if row is None else _document(row)

    def select_documents(self, matches: Callable[[Document], bool]) -> set[int]:
        """The numbers of the documents that match."""
        with self._file.reading() as connection:
            return {row["number"] for row in connection.execute("SELECT * FROM documents") if matches(_document(row))}

    def documents_by_number(self, numbers: Iterable[int]) -> dict[int, Document]:
        with self._file.reading() as connection:
            rows = select_in(connection, "SELECT * FROM documents WHERE number IN", list(numbers))
            return {row["number"]: _document(row) for row in rows}

    def chunk_ids(self, documents: Iterable[int]) -> Ids:
        with self._file.reading() as connection:
            rows = select_in(connection, "SELECT id FROM chunks WHERE document IN", list(documents))
            return np.fromiter((row[0] for row in rows), np.int64)

    def chunks(self, ids: Sequence[int]) -> dict[int, StoredChunk]:
        with self._file.reading() as connection:
            return {row["id"]: _chunk(row) for row in select_in(connection, "SELECT * FROM chunks WHERE id IN", ids)}

    def chunks_around(self, document: int, first: int, last: int) -> list[StoredChunk]:
        """A document's chunks by position, both ends included."""
        query = "SELECT * FROM chunks WHERE document = ? AND position BETWEEN ? AND ? ORDER BY position"
        with self._file.reading() as connection:
            return [_chunk(row) for row in connection.execute(query, (document, first, last))]

    def chunks_of(self, document_id: str) -> list[StoredChunk]:
        query = (
            """SELECT * FROM chunks WHERE document = (SELECT number FROM documents WHERE id = ?) ORDER BY position"""
        )
        with self._file.reading() as connection:
            return [_chunk(row) for row in connection.execute(query, (document_id,))]

    def vectors_of(self, chunks: Sequence[int]) -> dict[int, NDArray[np.float32]]:
        with self._file.reading() as connection:
            rows = select_in(connection, "SELECT chunk, vector FROM vectors WHERE chunk IN", chunks)
            return {row[0]: np.frombuffer(row[1], np.float16).astype(np.float32) for row in rows}

    def known_vectors(self, digests: Sequence[bytes], fingerprint: str) -> dict[bytes, bytes]:
        """The vectors of texts that this model has read before."""
        query = """SELECT digest, vector FROM chunks JOIN vectors ON chunk = chunks.id
            JOIN documents ON document = number AND fingerprint = ? WHERE digest IN"""
        with self._file.reading() as connection:
            return {row[0]: row[1] for row in select_in(connection, query, digests, fingerprint)}

    def changes_since(self, mark: Mark) -> Changes:
        with self._file.reading() as connection:
            generation, oldest, newest = connection.execute(
                "SELECT generation, oldest, (SELECT coalesce(max(id), 0) FROM chunks) FROM state"
            ).fetchone()
            removed = connection.execute(
                "SELECT first, last FROM removals WHERE generation > ?", (mark.generation,)
            ).fetchall()
        from_scratch = mark.generation < oldest or mark.generation > generation
        now = Mark(generation, max(newest, 0 if from_scratch else mark.last_chunk))
        return Changes(now, 0 if from_scratch else mark.last_chunk, [tuple(row) for row in removed], from_scratch)

    def vectors(self, changes: Changes, dimension: int) -> tuple[Ids, Vectors]:
        query = "SELECT chunk, vector FROM vectors WHERE chunk > ? AND chunk <= ? ORDER BY chunk"
        with self._file.reading() as connection:
            rows = connection.execute(query, (changes.added_behind, changes.mark.last_chunk)).fetchall()
        ids, vectors = zip(*rows, strict=True) if rows else ((), ())
        data = b"".join(vectors)
        if len(data) != 2 * dimension * len(ids):
            raise StorageFailed("The collection's vectors are damaged. Re-index it.")
        return np.array(ids, np.int64), np.frombuffer(data, np.float16).reshape(-1, dimension)

    def texts(self, changes: Changes) -> Iterator[tuple[int, int, str, str, str]]:
        """Of each new chunk: its id, its document's number and title, its section, and its text."""
        query = """SELECT chunks.id, document, title || ' ' || name, section, text FROM chunks
            JOIN documents ON document = number WHERE chunks.id > ? AND chunks.id <= ? ORDER BY chunks.id"""
        with self._file.reading() as connection:
            for row in connection.execute(query, (changes.added_behind, changes.mark.last_chunk)):
                yield tuple(row)

    def check(self) -> list[str]:
        """What is wrong with the file, or with what belongs together in it."""
        checks = {
            "chunks without a vector": "chunks LEFT JOIN vectors ON chunk = id WHERE chunk IS NULL",
            "vectors without a chunk": "vectors LEFT JOIN chunks ON chunk = id WHERE id IS NULL",
            "chunks without a document": "chunks LEFT JOIN documents ON document = number WHERE number IS NULL",
            "documents that miss chunks": (
                "documents WHERE chunks != (SELECT count(*) FROM chunks WHERE document = number)"
            ),
        }
        with self._file.reading() as connection:
            found = [row[0] for row in connection.execute("PRAGMA quick_check(5)") if row[0] != "ok"]
            counts = [
                (connection.execute(f"SELECT count(*) FROM {query}").fetchone()[0], what)  # noqa: S608
                for what, query in checks.items()
            ]
        return [f"The database is damaged: {line}" for line in found] + [f"{n} {what}" for n, what in counts if n]

    def document_ids(self) -> set[str]:
        with self._file.reading() as connection:
            return {row[0] for row in connection.execute("SELECT id FROM documents")}

    # --- Changing -------------------------------------------------------------------------------------------------

    def put(
        self, document: Document, fingerprint: str, chunks: Sequence[Chunk], vectors: Sequence[bytes]
    ) -> Document | None:
        """Add a document with its chunks, in place of the one that has its name, which is returned."""
        values = (
            *(document.id, document.name, document.title, document.size, document.sha256, document.pages),
            *(len(chunks), document.created_at, document.model, fingerprint),
            *(json.dumps(dict(document.attributes)), json.dumps(document.problems)),
        )
        with self._file.writing() as connection:
            row = connection.execute("SELECT * FROM documents WHERE name = ?", (document.name,)).fetchone()
            if row is not None:
                _remove(connection, row["number"])
            number = connection.execute(
                f"INSERT INTO documents VALUES (NULL{', ?' * len(values)})",  # noqa: S608
                values,
            ).lastrowid
            first = (
                1
                + connection.execute(
                    "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'chunks'), 0)"
                ).fetchone()[0]
            )
            connection.executemany(
                "INSERT INTO chunks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    (first + n, number, n, c.page, c.last_page, c.section, c.text, c.overlap, digest_of(c.embedded))
                    for n, c in enumerate(chunks)
                ),
            )
            connection.executemany("INSERT INTO vectors VALUES (?, ?)", enumerate(vectors, first))
            _count_up(connection)
        return None if row is None else _document(row)

    def set_attributes(self, document_id: str, attributes: Attributes) -> None:
        with self._file.writing() as connection:
            connection.execute(
                "UPDATE documents SET attributes = ? WHERE id = ?", (json.dumps(dict(attributes)), document_id)
            )

    def delete(self, document_id: str) -> bool:
        with self._file.writing() as connection:
            row = connection.execute("SELECT number FROM documents WHERE id = ?", (document_id,)).fetchone()
            if row is None:
                return False
            _remove(connection, row[0])
            _count_up(connection)
        return True

    def empty_log(self) -> bool:
        """Have what was deleted leave SQLite's log, too; False while somebody reads."""
        return self._file.empty_log()


def _remove(connection: sqlite3.Connection, number: int) -> None:
    first, last = connection.execute("SELECT min(id), max(id) FROM chunks WHERE document = ?", (number,)).fetchone()
    if first is not None:
        connection.execute("DELETE FROM vectors WHERE chunk BETWEEN ? AND ?", (first, last))
        connection.execute("DELETE FROM chunks WHERE document = ?", (number,))
        connection.execute("INSERT INTO removals SELECT generation + 1, ?, ? FROM state", (first, last))
    connection.execute("DELETE FROM documents WHERE number = ?", (number,))
    forgotten = connection.execute(
        "SELECT generation FROM removals ORDER BY generation DESC LIMIT 1 OFFSET ?", (MAX_REMOVALS,)
    ).fetchone()
    if forgotten:
        connection.execute("DELETE FROM removals WHERE generation <= ?", forgotten)
        connection.execute("UPDATE state SET oldest = ?", forgotten)


def _count_up(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE state SET generation = generation + 1, changed_at = ?", (time.time(),))


def _document(row: sqlite3.Row) -> Document:
    kept = {
        name: row[name] for name in ("id", "name", "title", "size", "sha256", "pages", "chunks", "created_at", "model")
    }
    return Document(**kept, attributes=json.loads(row["attributes"]), problems=tuple(json.loads(row["problems"])))


def _chunk(row: sqlite3.Row) -> StoredChunk:
    return StoredChunk(**{name: row[name] for name in StoredChunk.__slots__})
