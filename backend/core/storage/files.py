"""The files that users keep here to name them in requests: rows in the database, bytes in `DATA_DIR/uploads/files`.

There is never a row without its file. While a file comes or goes, a draft of its id tells of it: after a crash the next
start finds the draft, and lets the row decide. With a row the file stays, without one it goes.
"""

import asyncio
import contextlib
import errno
import logging
import os
import shutil
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from sqlalchemy import Connection, Row, delete, exc, func, insert, or_, select, tuple_

from backend.core.errors import BadRequest, NotFound, PayloadTooLarge, StorageFailed
from backend.core.storage.database import Database
from backend.core.storage.drafts import Drafts
from backend.core.storage.tables import files
from backend.utils.unique_ids import unique_hex

MAX_FILES_PER_USER = 10_000
SWEEP_INTERVAL_S = 600.0
SWEPT_AT_ONCE = 500
NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoredFile:
    id: str
    username: str
    filename: str  # what its owner calls it; never a part of a path here
    purpose: str
    size: int  # bytes
    created_at: float
    expires_at: float | None


@dataclass(frozen=True, slots=True)
class FilePage:
    files: Sequence[StoredFile]
    has_more: bool


class Files:
    """The files of all users. What is somebody else's, or has expired, does not exist.

    Args:
        quota_bytes: of the files of one user.
    """

    def __init__(self, database: Database, drafts: Drafts, data_dir: Path, *, quota_bytes: int) -> None:
        self._database = database
        self._drafts = drafts
        self._folder = data_dir / "uploads" / "files"
        self._quota_bytes = quota_bytes
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to clear up behind crashes, and behind files that expire; returns at once."""
        self._sweeper = asyncio.create_task(self._sweep_forever())

    async def close(self) -> None:
        if self._sweeper:
            self._sweeper.cancel()
            await asyncio.wait([self._sweeper])

    async def create(
        self, username: str, file: BinaryIO, *, filename: str, purpose: str, lifetime_s: int | None = None
    ) -> StoredFile:
        """Keep a file, for good or for so many seconds.

        Raises:
            PayloadTooLarge: it would be more than the user may keep.
            NotFound: the user has been deleted meanwhile.
            StorageFailed
        """
        file_id = f"file-{unique_hex(16)}"
        async with self._drafts.take(file, file_id, durable=True) as draft:
            now = time.time()
            expires_at = None if lifetime_s is None else now + lifetime_s
            stored = StoredFile(file_id, username, filename, purpose, draft.size, now, expires_at)
            await _to_the_end(self._keep(stored, draft.path))
        return stored

    async def list(
        self,
        username: str,
        *,
        limit: int,
        order: Literal["asc", "desc"] = "desc",
        after: str | None = None,
        purpose: str | None = None,
    ) -> FilePage:
        """A user's files by the time they came.

        Raises:
            BadRequest: `after` is no file of the user's.
        """
        place = tuple_(files.c.created_at, files.c.id)
        query = select(files).where(files.c.username == username, _is_alive())
        if purpose is not None:
            query = query.where(files.c.purpose == purpose)
        if after is not None:
            try:
                last = await self.get(username, after)
            except NotFound:
                raise BadRequest("after names no file of yours.", param="after") from None
            here = tuple_(last.created_at, last.id)
            query = query.where(place > here if order == "asc" else place < here)
        columns = (files.c.created_at, files.c.id)
        query = query.order_by(*(column.asc() if order == "asc" else column.desc() for column in columns))
        found = await self._database.read(
            lambda connection: [_stored_file(row) for row in connection.execute(query.limit(limit + 1))]
        )
        return FilePage(found[:limit], len(found) > limit)

    async def get(self, username: str, file_id: str) -> StoredFile:
        """Raises: NotFound"""
        query = select(files).where(files.c.id == file_id, files.c.username == username, _is_alive())
        row = await self._database.read(lambda connection: connection.execute(query).first())
        if row is None:
            raise NotFound("You have no file of that id. GET /v1/files lists yours.", param="file_id")
        return _stored_file(row)

    async def open(self, username: str, file_id: str) -> tuple[StoredFile, BinaryIO]:
        """The file, open for reading. The caller closes it.

        Raises:
            NotFound
        """
        stored = await self.get(username, file_id)
        try:
            return stored, await asyncio.to_thread(self._path(stored.id).open, "rb", 0)
        except FileNotFoundError:  # deleted in this moment
            raise NotFound("You have no file of that id. GET /v1/files lists yours.", param="file_id") from None

    async def delete(self, username: str, file_id: str) -> None:
        """Raises: NotFound"""
        stored = await self.get(username, file_id)
        await _to_the_end(self._remove([stored.id]))

    async def delete_all(self, username: str) -> None:
        query = select(files.c.id).where(files.c.username == username).limit(SWEPT_AT_ONCE)
        while ids := await self._database.read(lambda connection: connection.execute(query).scalars().all()):
            await _to_the_end(self._remove(ids))

    async def _keep(self, stored: StoredFile, draft: Path) -> None:
        try:
            await asyncio.to_thread(self._publish, draft)
        except OSError:
            raise StorageFailed("The file could not be kept: the disk is full or broken.") from None
        try:
            await self._database.write(lambda connection: self._insert(connection, stored))
        except Exception as error:  # whatever it was: there is no row, and a file without one is nobody's
            await asyncio.to_thread(self._path(stored.id).unlink, missing_ok=True)
            if isinstance(error, exc.IntegrityError):
                raise NotFound("This account has been deleted.") from None
            raise

    def _path(self, file_id: str) -> Path:
        return self._folder / file_id

    def _publish(self, draft: Path) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _put(draft, self._path(draft.name))

    def _insert(self, connection: Connection, stored: StoredFile) -> None:
        kept = select(func.count(), func.coalesce(func.sum(files.c.size), 0)).where(
            files.c.username == stored.username, _is_alive()
        )
        count, size = connection.execute(kept).one()
        if count >= MAX_FILES_PER_USER or size + stored.size > self._quota_bytes:
            raise PayloadTooLarge(
                f"Your files would have {(size + stored.size) / 2**20:,.1f} MiB; {self._quota_bytes / 2**20:,.0f} MiB "
                f"and {MAX_FILES_PER_USER:,} files are the most. Delete some with DELETE /v1/files/{{id}}.",
                param="file",
                code="storage_quota_exceeded",
            )
        connection.execute(insert(files), {name: getattr(stored, name) for name in StoredFile.__slots__})

    async def _remove(self, ids: Sequence[str]) -> None:
        drafts = [await self._drafts.place(file_id) for file_id in ids]

        def set_aside() -> None:
            for draft in drafts:
                with contextlib.suppress(FileNotFoundError):
                    self._path(draft.name).rename(draft)

        def bring_back() -> None:
            for draft in drafts:
                self._bring_back(draft)

        def discard() -> None:
            for draft in drafts:
                draft.unlink(missing_ok=True)

        await asyncio.to_thread(set_aside)
        remove = delete(files).where(files.c.id.in_(ids))
        try:
            await self._database.write(lambda connection: connection.execute(remove))
        except Exception:  # the rows are still there, whatever it was: so the files have to be
            await asyncio.to_thread(bring_back)
            raise
        await asyncio.to_thread(discard)

    def _bring_back(self, draft: Path) -> None:
        with contextlib.suppress(FileExistsError, FileNotFoundError):
            _put(draft, self._path(draft.name))
        draft.unlink(missing_ok=True)

    async def _sweep_forever(self) -> None:
        while True:
            try:
                await self._sweep()
            except Exception:  # a full disk or a locked database, for now: the next round may do better
                logger.warning("What crashes and expired files have left could not be cleared up.", exc_info=True)
            await asyncio.sleep(SWEEP_INTERVAL_S)

    async def _sweep(self) -> None:
        await self._drafts.sweep(self._settle)
        expired = select(files.c.id).where(files.c.expires_at <= time.time()).limit(SWEPT_AT_ONCE)
        while ids := await self._database.read(lambda connection: connection.execute(expired).scalars().all()):
            await self._remove(ids)

    async def _settle(self, draft: Path) -> None:
        """Finish or undo what a process that is gone was doing with a file."""
        query = select(files.c.id).where(files.c.id == draft.name)
        row = await self._database.read(lambda connection: connection.execute(query).first())
        if row is None:
            await asyncio.to_thread(self._path(draft.name).unlink, missing_ok=True)
        else:
            await asyncio.to_thread(self._bring_back, draft)


def _put(draft: Path, path: Path) -> None:
    """The same file in a second place; a copy, where the file system has no links."""
    try:
        os.link(draft, path)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        shutil.copyfile(draft, path)


async def _to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Do it all, also when the caller goes away in the middle."""
    task = asyncio.create_task(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def _is_alive() -> Any:
    return or_(files.c.expires_at.is_(None), files.c.expires_at > time.time())


def _stored_file(row: Row[Any]) -> StoredFile:
    return StoredFile(**{name: getattr(row, name) for name in StoredFile.__slots__})
