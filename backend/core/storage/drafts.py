"""Files on their way in or out, in a folder that belongs to one process and is swept when that is gone.

    DATA_DIR/uploads/drafts/<process>/<name>

A process holds a lock on its folder as long as it lives, so whoever finds a folder without one knows that its process
was killed, and what that was about to do can be finished or undone.
"""

import asyncio
import fcntl
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from backend.core.errors import StorageFailed
from backend.utils.paths import remove_tree
from backend.utils.unique_ids import unique_hex

BLOCK_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Draft:
    path: Path
    size: int  # bytes


class Drafts:
    """The drafts of this process. Its folder is made when it is first needed."""

    def __init__(self, data_dir: Path) -> None:
        self._root = data_dir / "uploads" / "drafts"
        self._own: tuple[Path, int] | None = None  # the folder, and the descriptor that holds its lock
        self._making = asyncio.Lock()

    async def close(self) -> None:
        if self._own:
            folder, lock = self._own
            await asyncio.to_thread(remove_tree, folder)
            os.close(lock)
            self._own = None

    @asynccontextmanager
    async def take(self, file: BinaryIO, name: str, *, durable: bool = False) -> AsyncIterator[Draft]:
        """A copy of the file. It is gone afterwards, unless it was moved away.

        Args:
            durable: it outlives a power failure.

        Raises:
            StorageFailed
        """
        path = await self.place(name)
        try:
            try:
                size = await asyncio.to_thread(_copy, file, path, durable)
            except OSError:
                raise StorageFailed("A file could not be kept: the disk is full or broken.") from None
            yield Draft(path, size)
        finally:
            await asyncio.to_thread(path.unlink, missing_ok=True)

    async def place(self, name: str) -> Path:
        """Where a draft of that name would be."""
        async with self._making:
            if self._own is None:
                self._own = await asyncio.to_thread(self._make_folder)
        return self._own[0] / name

    async def sweep(self, settle: Callable[[Path], Awaitable[None]]) -> None:
        """Hand the drafts of processes that are gone to `settle`, then remove them."""
        for folder in await asyncio.to_thread(_list, self._root):
            lock = await asyncio.to_thread(_lock, folder)  # one's own is locked as well
            if lock is None:
                continue
            try:
                for path in await asyncio.to_thread(_list, folder):
                    await settle(path)
                await asyncio.to_thread(remove_tree, folder)
            finally:
                os.close(lock)

    def _make_folder(self) -> tuple[Path, int]:
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        while True:
            folder = self._root / unique_hex(8)
            folder.mkdir(mode=0o700)
            lock = _lock(folder)
            if lock is not None and folder.exists():  # a sweeper may have come between
                return folder, lock


def _list(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _lock(folder: Path) -> int | None:
    """A file descriptor that holds the lock; None where another process does."""
    with suppress(OSError):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
        else:
            return fd
    return None


def _copy(file: BinaryIO, path: Path, durable: bool) -> int:
    file.seek(0)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as copy:
        shutil.copyfileobj(file, copy, BLOCK_BYTES)
        if durable:
            copy.flush()
            os.fsync(copy.fileno())
        return copy.tell()
