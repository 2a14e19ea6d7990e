"""The database, and how one reaches it from the event loop. Its tables are in `tables.py`.

Reads run in a small pool of threads. Writes go through one thread that commits everything waiting in one transaction
(group commit): under load the price of a commit is shared by all the requests that wait for it, and alone a write costs
one hop to a thread. Files that belong to a batch are written side by side. Nothing here blocks the event loop.

Several processes may share one SQLite file: it is in WAL mode, and a writer takes the write lock when it begins. They
may also share a PostgreSQL server; a connection that it has lost is made anew by the next request.
"""

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Executable, create_engine, event, exc, make_url

from backend.core.errors import ApiError, StorageFailed, Unavailable
from backend.core.storage.tables import metadata

T = TypeVar("T")

MAX_WAITING_WRITES = 4096
MAX_BATCH = 128
LOCK_WAIT_S = 10
FILE_WRITERS = 8
# For libpq: a server that is gone, or a neighbour that holds a row, ends the wait with an error.
POSTGRESQL = {
    "connect_timeout": 5,  # seconds
    "tcp_user_timeout": 1000 * LOCK_WAIT_S,  # ms
    "options": f"-c lock_timeout={LOCK_WAIT_S}s -c statement_timeout={3 * LOCK_WAIT_S}s",
}

Row = tuple[Executable, dict[str, Any]]  # a statement with bind parameters, and their values


@dataclass(slots=True)
class _Write:
    change: Callable[[Connection], Any] | None
    rows: Sequence[Row]
    prepare: Callable[[], None] | None
    done: asyncio.Future[Any]
    outcome: Any = None
    error: BaseException | None = None


class Database:
    """One database, for the life of a process.

    Raises (from `read` and `write`):
        StorageFailed: the disk is full or broken.
        Unavailable: the database is locked for longer than `LOCK_WAIT_S`, unreachable, or too many writes wait.
    """

    def __init__(self, url: str, *, readers: int = 4) -> None:
        self._url = make_url(url)
        self._is_sqlite = self._url.get_backend_name() == "sqlite"
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix="db-read")
        self._file_writers = ThreadPoolExecutor(FILE_WRITERS, thread_name_prefix="file-write")
        self._writes: queue.Queue[_Write | None] = queue.Queue(MAX_WAITING_WRITES)
        self._writer = threading.Thread(target=self._write_forever, name="db-write", daemon=True)
        self._read_engine = self._make_engine(readers, for_writing=False)
        self._write_engine = self._make_engine(1, for_writing=True)

    async def open(self) -> None:
        """Make the tables that are missing, and start to take writes."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._readers, self._create_tables)
        self._writer.start()

    async def close(self) -> None:
        """Finish the writes that were accepted, then let go of the database."""
        loop = asyncio.get_running_loop()
        if self._writer.is_alive():
            await loop.run_in_executor(self._readers, self._writes.put, None)
            await loop.run_in_executor(self._readers, self._writer.join)
        await loop.run_in_executor(self._readers, self._dispose)
        self._file_writers.shutdown(wait=False)
        self._readers.shutdown(wait=False)

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Run a query that changes nothing, in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, query)

    async def write(self, change: Callable[[Connection], T]) -> T:
        """Run a change in a transaction and return its result when it is committed.

        Args:
            change: may be run again when a neighbour in the same transaction fails: it only talks to the database.
        """
        result: T = await self._submit(change, (), None)
        return result

    async def write_rows(self, rows: Sequence[Row], *, prepare: Callable[[], None] | None = None) -> None:
        """Execute statements in a transaction and return when it is committed: the way for what every request does.

        Rows of the same statement object are executed together, over all the requests that wait (a tenth of the price),
        so the order between different statements of one batch is that of their first appearance.

        Args:
            rows: module-level statements with their parameters.
            prepare: runs exactly once, before the transaction, on the same thread: writes to files go here, so that
                one hop serves both. When it raises, the rows are not written.
        """
        await self._submit(None, rows, prepare)

    async def _submit(
        self, change: Callable[[Connection], Any] | None, rows: Sequence[Row], prepare: Callable[[], None] | None
    ) -> Any:
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        try:
            self._writes.put_nowait(_Write(change, rows, prepare, done))
        except queue.Full:
            raise Unavailable("Too many writes are waiting for the disk. Try again shortly.", retry_after_s=1) from None
        # Shielded: a caller that goes away does not undo what the writer is about to commit.
        return await asyncio.shield(done)

    def _make_engine(self, threads: int, *, for_writing: bool) -> Engine:
        if not self._is_sqlite:
            arguments = POSTGRESQL if self._url.get_backend_name() == "postgresql" else {}
            return create_engine(
                self._url, connect_args=arguments, pool_pre_ping=True, pool_size=threads, max_overflow=0
            )
        engine = create_engine(
            self._url, connect_args={"timeout": LOCK_WAIT_S, "check_same_thread": False, "isolation_level": None}
        )
        begin = "BEGIN IMMEDIATE" if for_writing else "BEGIN"
        event.listen(engine, "connect", _set_pragmas)
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
        return engine

    def _create_tables(self) -> None:
        if self._is_sqlite and self._url.database:
            Path(self._url.database).parent.mkdir(parents=True, exist_ok=True)
        try:
            metadata.create_all(self._write_engine)
        except exc.DatabaseError:  # another process made them in the same moment
            metadata.create_all(self._write_engine)

    def _dispose(self) -> None:
        self._read_engine.dispose()
        self._write_engine.dispose()

    def _read(self, query: Callable[[Connection], T]) -> T:
        try:
            with self._read_engine.begin() as connection:
                return query(connection)
        except exc.DBAPIError as error:
            raise _as_ours(error) from error

    def _write_forever(self) -> None:
        open_for_more = True
        while open_for_more:
            batch = [self._writes.get()]
            while len(batch) < MAX_BATCH and not self._writes.empty():
                batch.append(self._writes.get())
            open_for_more = batch[-1] is not None
            self._write_batch([job for job in batch if job is not None])

    def _write_batch(self, batch: list[_Write]) -> None:
        self._prepare(batch)
        ready = [job for job in batch if job.error is None]
        try:
            self._commit(ready)
        except Exception:  # one of them is at fault: each on its own, so that only that one fails
            for job in ready:
                try:
                    self._commit([job])
                except Exception as error:
                    job.error = _as_ours(error) if isinstance(error, exc.DBAPIError) else error
        loops: dict[asyncio.AbstractEventLoop, list[_Write]] = {}
        for job in batch:
            loops.setdefault(job.done.get_loop(), []).append(job)
        for loop, jobs in loops.items():
            if not loop.is_closed():
                loop.call_soon_threadsafe(_settle, jobs)

    def _prepare(self, batch: list[_Write]) -> None:
        """Write the files of a batch. Each mostly waits for the disk, and a disk serves several at the price of one."""
        jobs = [job for job in batch if job.prepare]
        for _ in self._file_writers.map(_prepare, jobs) if len(jobs) > 1 else map(_prepare, jobs):
            pass

    def _commit(self, jobs: list[_Write]) -> None:
        if not jobs:
            return
        with self._write_engine.begin() as connection:
            rows: dict[Executable, list[dict[str, Any]]] = {}
            for job in jobs:
                if job.change:
                    job.outcome = job.change(connection)
                for statement, parameters in job.rows:
                    rows.setdefault(statement, []).append(parameters)
            for statement, parameter_sets in rows.items():
                connection.execute(statement, parameter_sets)


def _prepare(job: _Write) -> None:
    assert job.prepare
    try:
        job.prepare()
    except BaseException as error:
        job.error = error


def _settle(jobs: list[_Write]) -> None:
    for job in jobs:
        if job.done.done():
            continue
        if job.error is None:
            job.done.set_result(job.outcome)
        else:
            job.done.set_exception(job.error)


def _set_pragmas(connection: Any, _record: object) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _as_ours(error: exc.DBAPIError) -> Exception:
    """A database's own error as one of ours; an integrity error stays what it is, for callers who expect it."""
    if isinstance(error, exc.IntegrityError):
        return error
    text = str(error.orig).lower()
    if "full" in text or "disk i/o" in text or "readonly" in text or "read-only" in text:
        return StorageFailed("The server's disk is full or cannot be written. Tell whoever runs it.")
    if "locked" in text or "busy" in text or "timeout" in text:
        return Unavailable("The database is busy. Try again shortly.", retry_after_s=1)
    if error.connection_invalidated or "connection" in text:
        return Unavailable("The database cannot be reached. Try again shortly.", retry_after_s=5)
    return ApiError("The database failed. Tell whoever runs the server to read its log.")
