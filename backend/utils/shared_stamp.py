"""A stamp that several processes share: it tells each of them at once that something has changed.

The stamp is a file of eight random bytes. Whoever changes what others keep a copy of renews it; whoever uses a copy
compares the stamp with the one that it read before it made the copy. Another stamp: the copy is void. A fresh random
value needs no lock and no read before the write, and a file that was emptied, cut or made anew just reads as another
stamp.

It is read with `pread` from the page cache and not through `mmap`: a mapped file that somebody truncates, as `cp` from
a backup does, ends the process with SIGBUS. What was read holds for `REREAD_S`, less than anybody can notice, since
each read lets another thread take the interpreter. The process that renews the stamp knows it at once.

Limits: a file that was unlinked and made anew is noticed by `reopen_if_replaced`, which users of copies call now and
then. Processes on different machines do not share a stamp.
"""

import asyncio
import logging
import os
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

STAMP_BYTES = 8
REREAD_S = 0.02

log = logging.getLogger(__name__)


class SharedStamp:
    """The stamp at a path. The file is made when missing: construct it before the event loop runs, or in a thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = self._open()
        self._stamp = b""
        self._reread_at = 0.0  # time.monotonic() seconds
        self._under_way: set[asyncio.Task[Any]] = set()

    def read(self) -> bytes:
        """The stamp now. Does not block: the bytes are in memory, since every request reads them."""
        now = time.monotonic()
        if now >= self._reread_at:
            self._reread_at = now + REREAD_S  # before it is read: a renewal in between then wins
            self._stamp = os.pread(self._fd, STAMP_BYTES, 0)
        return self._stamp

    def renew(self) -> None:
        """Make every copy void, in all processes. Blocks for as long as opening a file does."""
        self.reopen_if_replaced()
        os.pwrite(self._fd, os.urandom(STAMP_BYTES), 0)
        self._reread_at = 0.0

    async def renew_after(self, change: Coroutine[Any, Any, T]) -> T:
        """Carry a change out and then renew, to the end also when the caller goes away in between."""
        task = asyncio.create_task(self._carry_out(change))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await asyncio.shield(task)

    def reopen_if_replaced(self) -> None:
        """Follow the path to the file that is there now. Blocks for as long as opening a file does."""
        try:
            if os.path.samestat(self._path.stat(), os.fstat(self._fd)):
                return
        except FileNotFoundError:
            pass
        fd = self._open()
        # The number stays the same, so that a reader in another thread never holds a closed one.
        os.dup2(fd, self._fd, inheritable=False)
        os.close(fd)
        self._reread_at = 0.0

    async def close(self) -> None:
        """Wait for the changes under way, then let go of the file."""
        if self._under_way:
            await asyncio.wait(self._under_way)
        os.close(self._fd)

    async def _carry_out(self, change: Coroutine[Any, Any, T]) -> T:
        try:
            return await change
        finally:
            await asyncio.to_thread(self._renew_or_warn)

    def _renew_or_warn(self) -> None:
        try:
            self.renew()
        except OSError as error:  # the change itself is done; copies are also checked for their age
            log.warning("Cannot renew %s (%s): others notice the change later.", self._path.name, error.strerror)

    def _open(self) -> int:
        return os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
