"""A file of lines that several processes append to, rotated by size: name -> name.1 -> ... -> name.KEEP.

Whole lines are written in one write, under a lock on the file. The lock is held to rotate as well; a process that then
finds itself with a file of another name opens the current one. What a killed process or a full disk left of a line is
cut off before the next write, so that every line is whole, but for the last one of a process that was just killed.

Blocks: call it from a thread. Needs a local file system, where `flock` and appending work.
"""

import errno
import fcntl
import os
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

BLOCK_BYTES = 64 * 1024


class LogFile:
    """One process's access to the file. Not to be shared by threads.

    Args:
        max_bytes: the size that a file does not outgrow, unless a single write is longer.
        keep: rotated files that are kept.
    """

    def __init__(self, path: Path, *, max_bytes: int, keep: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._keep = keep
        self._fd: int | None = None

    def append(self, lines: bytes) -> None:
        """Write one or more lines, each of which ends with a line feed.

        Raises:
            OSError: nothing was written.
        """
        try:
            fd = self._lock()
            size = _cut_torn_line(fd)
            while size and size + len(lines) > self._max_bytes:
                self._rotate()
                fd = self._lock()
                size = _cut_torn_line(fd)
            _write_whole(fd, lines, size)
        finally:
            if self._fd is not None:
                fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _lock(self) -> int:
        """Open the current file and take its lock."""
        while True:
            if self._fd is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
                os.fchmod(self._fd, 0o600)  # the file may be older than this rule
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(self._fd), self._path.stat()):
                    return self._fd
            self.close()  # rotated or removed by somebody else

    def _rotate(self) -> None:
        names = [self._path, *(self._path.with_name(f"{self._path.name}.{n}") for n in range(1, self._keep + 1))]
        for source, target in reversed(list(pairwise(names))):
            with suppress(FileNotFoundError):
                source.replace(target)
        self.close()


def _cut_torn_line(fd: int) -> int:
    """Cut off what follows the last line feed, and return the size that is left."""
    size = os.fstat(fd).st_size
    if not size or os.pread(fd, 1, size - 1) == b"\n":
        return size
    whole = size
    while whole:
        start = max(0, whole - BLOCK_BYTES)
        found = os.pread(fd, whole - start, start).rfind(b"\n")
        if found >= 0:
            whole = start + found + 1
            break
        whole = start
    os.ftruncate(fd, whole)
    return whole


def _write_whole(fd: int, lines: bytes, size: int) -> None:
    try:
        if os.write(fd, lines) == len(lines):
            return
    except OSError:
        os.ftruncate(fd, size)
        raise
    os.ftruncate(fd, size)
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
