"""One SQLite file that several processes share, and whose folder may be deleted at any time. Blocks.

Connections are kept for the file that they were made for: when another one has its name, or none, they are let go.
"""

import queue
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from backend.core.errors import ApiError, NotFound, StorageFailed, Unavailable

LOCK_WAIT_S = 10.0
IDLE_CONNECTIONS = 4
MAX_VARIABLES = 500


class DatabaseFile:
    """
    Raises (from everything):
        NotFound: the file is gone.
        StorageFailed: the disk is full or broken. Nothing has changed.
        Unavailable: another process writes for longer than `LOCK_WAIT_S`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._idle: queue.LifoQueue[tuple[tuple[int, int], sqlite3.Connection]] = queue.LifoQueue(IDLE_CONNECTIONS)

    def create(self, schema: str) -> None:
        """Make the tables that are missing."""
        with translated(), closing(_connect(self.path, "rwc")) as connection:
            connection.executescript(schema)

    def close(self) -> None:
        while True:
            try:
                self._idle.get_nowait()[1].close()
            except queue.Empty:
                return

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        with translated():
            connection, place = self._take()
            try:
                yield connection
            except BaseException:
                connection.close()
                raise
            self._give_back(connection, place)

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        with self.reading() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def empty_log(self) -> bool:
        """Take out of the write-ahead log what the database holds by now. Not while somebody reads: False."""
        log = self.path.with_name(f"{self.path.name}-wal")
        if not log.exists() or not log.stat().st_size:
            return True
        with self.reading() as connection:
            connection.execute("PRAGMA busy_timeout = 0")
            try:
                return not connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            finally:
                connection.execute(f"PRAGMA busy_timeout = {int(1000 * LOCK_WAIT_S)}")

    def _take(self) -> tuple[sqlite3.Connection, tuple[int, int]]:
        try:
            status = self.path.stat()
        except FileNotFoundError:
            raise _gone() from None
        place = (status.st_dev, status.st_ino)
        while True:
            try:
                made_for, connection = self._idle.get_nowait()
            except queue.Empty:
                return _connect(self.path, "rw"), place
            if made_for == place:
                return connection, place
            connection.close()

    def _give_back(self, connection: sqlite3.Connection, place: tuple[int, int]) -> None:
        try:
            self._idle.put_nowait((place, connection))
        except queue.Full:
            connection.close()


def select_in(connection: sqlite3.Connection, query: str, values: Sequence[Any], *before: Any) -> list[Any]:
    rows: list[Any] = []
    for start in range(0, len(values), MAX_VARIABLES):
        some = values[start : start + MAX_VARIABLES]
        rows += connection.execute(f"{query} ({','.join('?' * len(some))})", (*before, *some)).fetchall()
    return rows


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"file:{quote(str(path.absolute()))}?mode={mode}",
        uri=True,
        timeout=LOCK_WAIT_S,
        isolation_level=None,
        check_same_thread=False,
    )
    connection.row_factory = sqlite3.Row
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def _gone() -> NotFound:
    return NotFound("There is no such collection.")


@contextmanager
def translated() -> Iterator[None]:
    """SQLite's errors as ours."""
    try:
        yield
    except sqlite3.Error as error:
        raise as_ours(error) from error


def as_ours(error: sqlite3.Error) -> ApiError:
    text = str(error).lower()
    if "locked" in text or "busy" in text:
        return Unavailable("The collection is busy. Try again shortly.", retry_after_s=1)
    if "unable to open" in text:
        return _gone()
    if "malformed" in text or "not a database" in text:
        return StorageFailed("The collection's database is damaged. Tell whoever runs the server.")
    if "full" in text or "disk i/o" in text or "readonly" in text:
        return StorageFailed("The server's disk is full or cannot be written. Tell whoever runs it.")
    return ApiError("The collection's database failed. Tell whoever runs the server to read its log.")
