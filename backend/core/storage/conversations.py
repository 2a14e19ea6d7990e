"""A conversation on the disk: reading it, and appending to it at a cost that does not grow with it.

Appending writes the new messages and new closing brackets over the old brackets, in one write, after a look at the last
line alone. Reading the newest messages reads blocks from the end. Both hold for any length.

- Writers of several threads and processes take turns by a lock on the file; readers take none. What a reader finds in
  the middle of a write looks torn, and is looked at again under the lock.
- A file that a killed process, a full disk or a hand left torn is mended where it is found, by reader or writer: every
  whole message stays. If more than its end is wrong, the original is kept beside it as `.damaged`.
- A file is never made anew by appending: a deleted conversation stays deleted.

Everything here blocks and is called in threads. A `durable` append relies on the file system to keep a new file's name
together with its data, as ext4, XFS and btrfs do.
"""

import fcntl
import itertools
import logging
import os
import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import orjson

from backend.core.errors import StorageFailed, Unavailable
from backend.core.storage.conversation_format import (
    BETWEEN,
    CLOSING,
    SEQ,
    StoredMessage,
    dump,
    lay_out,
    make_header,
    renumber,
    salvage,
)
from backend.utils.atomic_files import write_atomically

__all__ = ["Conversation", "StoredMessage"]

P = ParamSpec("P")
T = TypeVar("T")

LOCK_WAIT_S = 2.0
LOCK_POLL_S = 0.0005
TAIL_BYTES = 4096
WINDOW_BYTES = 16384
MAX_MENDS = 3  # after that, the disk does not keep what is written to it

logger = logging.getLogger(__name__)


class _Torn(Exception):
    """The file is not laid out as it should be."""


def _raises_storage_failed(function: Callable[P, T]) -> Callable[P, T]:
    @wraps(function)
    def translated(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except (FileNotFoundError, FileExistsError):
            raise
        except OSError as error:
            logger.error("A conversation's file cannot be used: %s", error)
            raise StorageFailed("The server's disk is full or broken. Tell whoever runs it.") from error

    return translated


class Conversation:
    """The file of one conversation.

    Raises (everything):
        FileNotFoundError: there is no such file (any more).
        StorageFailed: the disk is full or broken; what was there before still is.
        Unavailable: another process holds the file for too long.
    """

    def __init__(self, folder: Path, session_id: str) -> None:
        self._session_id = session_id
        self._path = f"{folder}/{session_id}.json"  # a Path would cost as much as the system calls on it

    @_raises_storage_failed
    def create(
        self, username: str, messages: Sequence[StoredMessage], *, created_at: float, durable: bool = False
    ) -> None:
        """
        Args:
            durable: as for `append`.

        Raises:
            FileExistsError
        """
        lines = [message.to_json(seq) for seq, message in enumerate(messages, 1)]
        data = lay_out(make_header(self._session_id, username, created_at), lines)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        try:
            fd = os.open(self._path, flags, 0o600)
        except FileNotFoundError:
            Path(self._path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(self._path, flags, 0o600)
        try:
            # Who looks through all the files at this moment is not to take this one for torn.
            fcntl.flock(fd, fcntl.LOCK_EX)
            _write(fd, data, 0)
            if durable:
                os.fdatasync(fd)
        except BaseException:
            Path(self._path).unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)

    @_raises_storage_failed
    def append(self, messages: Sequence[StoredMessage], *, durable: bool = False) -> int:
        """Add messages, and return how many there are now.

        Args:
            durable: return when they outlive a power failure.
        """
        for _ in range(MAX_MENDS):
            fd, size = self._open_locked()
            try:
                return _append(fd, size, messages, durable=durable)
            except _Torn:
                self._mend(fd)
            finally:
                os.close(fd)
        raise StorageFailed("The conversation's file cannot be repaired. Tell whoever runs the server.")

    @_raises_storage_failed
    def read(self, last: int | None = None, *, before: int | None = None) -> list[StoredMessage]:
        """The newest `last` messages or all, of those whose number is below `before` or of all."""
        fd = os.open(self._path, os.O_RDONLY)
        try:
            return _read(fd, last, before)
        except _Torn:
            pass  # perhaps only because somebody is writing: once more under the lock
        finally:
            os.close(fd)
        fd, _ = self._open_locked()
        try:
            return _read(fd, last, before)
        except _Torn:
            messages = [message for message in self._mend(fd) if before is None or message.seq < before]
            return messages if last is None else messages[max(0, len(messages) - last) :]
        finally:
            os.close(fd)

    @_raises_storage_failed
    def read_header(self) -> Mapping[str, Any]:
        """What the first line says; nothing if it is damaged."""
        with Path(self._path).open("rb") as file:
            return salvage(file.readline(TAIL_BYTES)).header

    @_raises_storage_failed
    def delete(self) -> None:
        """Remove the file and what was set aside of it; fine if there is nothing."""
        Path(self._path).unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            for path in self._asides():
                path.unlink()

    def _open_locked(self) -> tuple[int, int]:
        """The file, open and locked, and its size."""
        deadline = time.monotonic() + LOCK_WAIT_S
        while True:
            fd = os.open(self._path, os.O_RDWR)
            try:
                _lock(fd, deadline)
                state = os.fstat(fd)
            except BaseException:
                os.close(fd)
                raise
            if state.st_nlink:
                return fd, state.st_size
            os.close(fd)  # while this waited, the file was deleted, or replaced by a mended one

    def _mend(self, fd: int) -> list[StoredMessage]:
        """Bring the locked file into order. Returns its messages also when the disk does not take the repair."""
        data = os.pread(fd, os.fstat(fd).st_size, 0)
        found = salvage(data)
        entries = found.messages if found.torn_at is not None else renumber(found.messages)
        logger.warning("The file of %s was damaged: %d whole messages are kept.", self._session_id, len(entries))
        header = {**make_header(self._session_id, "", time.time()), **found.header}
        try:
            if found.torn_at is not None:
                _write(fd, CLOSING, found.torn_at)
                os.ftruncate(fd, found.torn_at + len(CLOSING))
            elif not data:  # in place: its maker may be about to write it
                _write(fd, lay_out(header, ()), 0)
            else:
                if not found.lossless:
                    aside = next(path for path in self._asides() if not path.exists())
                    write_atomically(aside, data)
                    logger.warning("What there was is kept as %s.", aside.name)
                write_atomically(Path(self._path), lay_out(header, [dump(entry) for entry in entries]))
        except OSError as error:
            logger.warning("The file of %s cannot be repaired: %s", self._session_id, error)
        return [StoredMessage.from_json(entry) for entry in entries]

    def _asides(self) -> Iterator[Path]:
        yield Path(self._path).with_suffix(".damaged")
        for count in itertools.count(2):
            yield Path(self._path).with_suffix(f".damaged-{count}")


def _lock(fd: int, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise Unavailable("The conversation is being written to. Try again.", retry_after_s=1) from None
            time.sleep(LOCK_POLL_S)


def _append(fd: int, size: int, messages: Sequence[StoredMessage], *, durable: bool) -> int:
    count = _last_seq(fd, size)
    end = size - len(CLOSING)
    lines = [message.to_json(seq) for seq, message in enumerate(messages, count + 1)]
    if lines:
        try:
            _write(fd, (BETWEEN if count else b"\n") + BETWEEN.join(lines) + CLOSING, end)
            if durable:
                os.fdatasync(fd)
        except OSError:
            with suppress(OSError):  # if even this fails, the next one who comes mends it
                _write(fd, CLOSING, end)
                os.ftruncate(fd, size)
            raise
    return count + len(lines)


def _last_seq(fd: int, size: int) -> int:
    """The number of messages, from the last line."""
    block = TAIL_BYTES
    while True:
        start = max(0, size - block)
        tail = _pread(fd, start, size - start)
        if not tail.endswith(CLOSING):
            raise _Torn
        begin = tail.rfind(b"\n", 0, -len(CLOSING)) + 1
        if begin or not start:
            break
        block *= 4  # a long message
    if start + begin == 0 and tail.endswith(b"[" + CLOSING):
        return 0
    if (seq := SEQ.match(tail, begin)) and tail.endswith(b"}" + CLOSING):
        return int(seq[1])
    raise _Torn


def _read(fd: int, last: int | None, before: int | None) -> list[StoredMessage]:
    end = os.fstat(fd).st_size - len(CLOSING)
    if end < 0 or _pread(fd, end, len(CLOSING)) != CLOSING:
        raise _Torn
    if before is not None:
        end = _find_line(fd, end, before) - len(BETWEEN)
    block = end if last is None else WINDOW_BYTES
    while True:
        start = max(0, end - block)
        lines = _pread(fd, start, end - start).split(BETWEEN)
        if start == 0:
            lines[0] = lines[0].partition(b"\n")[2]  # without the header
            break
        if last is not None and len(lines) > last:
            del lines[0]  # perhaps only a part of one
            break
        block *= 4
    if last is not None:
        del lines[: -last or None]
    try:
        return [StoredMessage.from_json(orjson.loads(line)) for line in lines if line]
    except ValueError as error:
        raise _Torn from error


def _find_line(fd: int, end: int, seq: int) -> int:
    """Where the first message with at least this number begins, by bisection over the bytes."""
    position = bisect_left(range(end), seq, key=lambda offset: _next_line(fd, offset, end)[1])
    return _next_line(fd, position, end)[0]


def _next_line(fd: int, offset: int, end: int) -> tuple[int, int]:
    """The first line that begins after `offset`: where, and the number of its message."""
    block = TAIL_BYTES
    while offset < end:
        data = _pread(fd, offset, min(block, end - offset))
        at = data.find(b"\n")
        if at >= 0:
            found = SEQ.match(os.pread(fd, 32, offset + at + 1))
            if not found:
                raise _Torn
            return offset + at + 1, int(found[1])
        offset += len(data)
        block *= 4
    return end + len(BETWEEN), sys.maxsize


def _pread(fd: int, offset: int, count: int) -> bytes:
    data = os.pread(fd, count, offset)
    if len(data) < count:  # cut short meanwhile
        raise _Torn
    return data


def _write(fd: int, data: bytes, offset: int) -> None:
    written = os.pwrite(fd, data, offset)
    while written < len(data):  # a disk that is almost full takes a part, and then says so
        written += os.pwrite(fd, data[written:], offset + written)
