"""The session's folder, from the server's side: whose it is, what is in it, what a call changed, how much it may hold.

User code owns what is in the folder and may change it under our feet, so nothing here follows a link: every step down
is an `open` relative to the folder above that refuses one. All functions block; they run in threads.
"""

import contextlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

MAX_ENTRIES = 10_000
MAX_DEPTH = 32
TRIM_ROUNDS = 100
HIDDEN = {"__pycache__"}
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Stamp:
    """What tells one state of a file from another. The change time cannot be set by its owner."""

    size: int
    inode: int
    changed_ns: int


@dataclass(slots=True)
class Listing:
    files: dict[str, Stamp] = field(default_factory=dict)  # regular files by their path in the folder
    others: set[str] = field(default_factory=set)  # folders, links and whatever else
    bytes_used: int = 0
    too_deep: bool = False
    cut: bool = False  # there is more than MAX_ENTRIES

    def shown(self) -> dict[str, Stamp]:
        """The files that a person would count as theirs."""
        return {name: stamp for name, stamp in self.files.items() if not _is_hidden(name)}


def prepare(folder: Path, uid: int) -> tuple[int, int]:
    """Make the folder, and give it to `uid` alone. Returns what identifies it: its device and inode."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _opened(folder) as fd:
        if os.geteuid() == 0:
            os.fchown(fd, uid, uid)
        os.fchmod(fd, 0o700)
        status = os.fstat(fd)
    return status.st_dev, status.st_ino


def list_files(folder: Path, uid: int) -> Listing:
    """Everything in the folder. What others put there (uploads) is given to `uid` on the way."""
    listing = Listing()
    own = os.geteuid() == 0
    with _opened(folder) as root:
        waiting = [""]
        while waiting:
            where = waiting.pop()
            with contextlib.suppress(FileNotFoundError, NotADirectoryError), _below(root, where) as fd:
                for entry in os.scandir(fd):
                    if len(listing.files) + len(listing.others) >= MAX_ENTRIES:
                        listing.cut = True
                        return listing
                    with contextlib.suppress(FileNotFoundError):
                        status = entry.stat(follow_symlinks=False)
                        if own and status.st_uid != uid:
                            os.chown(entry.name, uid, uid, dir_fd=fd, follow_symlinks=False)
                        _add(listing, f"{where}{entry.name}", status, waiting)
    return listing


def _add(listing: Listing, name: str, status: os.stat_result, waiting: list[str]) -> None:
    listing.bytes_used += status.st_blocks * 512
    if stat.S_ISREG(status.st_mode):
        listing.files[name] = Stamp(status.st_size, status.st_ino, status.st_ctime_ns)
        return
    listing.others.add(name)
    if stat.S_ISDIR(status.st_mode):
        if name.count("/") + 1 < MAX_DEPTH:
            waiting.append(name + "/")
        else:
            listing.too_deep = True


def find_excess(listing: Listing, limit_bytes: int) -> str:
    """Which bound the folder breaks, in words; empty when it keeps them all."""
    if listing.bytes_used > limit_bytes:
        return f"the session's files take more than {limit_bytes >> 20} MiB"
    if listing.cut:
        return f"the session has more than {MAX_ENTRIES} files"
    return f"folders are nested deeper than {MAX_DEPTH}" if listing.too_deep else ""


def changed_files(before: Listing, after: Listing) -> list[str]:
    old = before.files
    return sorted(name for name, stamp in after.shown().items() if old.get(name) != stamp)


def trim(folder: Path, uid: int, before: Listing, limit_bytes: int) -> Listing:
    """Bring the folder back within its bounds: what the call made goes first, then what it changed."""
    after = list_files(folder, uid)
    for _ in range(TRIM_ROUNDS):
        if not find_excess(after, limit_bytes):
            break
        new = (after.files.keys() - before.files.keys()) | (after.others - before.others)
        targets = new or {name for name, stamp in after.files.items() if before.files.get(name) != stamp}
        if not targets:
            break
        with _opened(folder) as root:
            for name in sorted(targets):
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    parent, _, last = name.rpartition("/")
                    with _below(root, parent) as fd:
                        _remove(fd, last)
        after = list_files(folder, uid)
    return after


def save_text(folder: Path, uid: int, stem: str, data: bytes) -> str:
    """Keep text in a new file of the folder. Returns its name."""
    with _opened(folder) as root:
        for number in range(1, MAX_ENTRIES):
            name = f"{stem}-{number}.txt"
            with contextlib.suppress(FileExistsError):
                fd = os.open(name, _NEW_FILE, 0o600, dir_fd=root)
                with os.fdopen(fd, "wb") as file:
                    if os.geteuid() == 0:
                        os.fchown(fd, uid, uid)
                    file.write(data)
                return name
    return ""


def _is_hidden(name: str) -> bool:
    return any(part in HIDDEN or part.startswith(".") for part in name.split("/"))


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    fd = os.open(folder, _FOLDER)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _below(root: int, path: str) -> Iterator[int]:
    """The folder at a path below `root`, reached without following a link."""
    fd = os.dup(root)
    try:
        for part in filter(None, path.split("/")):
            below = _open_folder(fd, part)
            os.close(fd)
            fd = below
        yield fd
    finally:
        os.close(fd)


def _open_folder(parent: int, name: str) -> int:
    try:
        return os.open(name, _FOLDER, dir_fd=parent)
    except PermissionError:  # its owner, who may be us, has shut it
        handle = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            Path(f"/proc/self/fd/{handle}").chmod(0o700)
        finally:
            os.close(handle)
        return os.open(name, _FOLDER, dir_fd=parent)


def _remove(parent: int, name: str) -> None:
    """Remove a file, or a folder with all below it, however deep: what lies in it is moved up and removed in turn."""
    waiting = [name]
    moved = 0
    while waiting:
        target = waiting[-1]
        try:
            os.unlink(target, dir_fd=parent)
            waiting.pop()
            continue
        except IsADirectoryError:
            fd = _open_folder(parent, target)
        except FileNotFoundError:
            waiting.pop()
            continue
        try:
            for entry in os.scandir(fd):
                if entry.is_dir(follow_symlinks=False):
                    moved += 1
                    os.rename(entry.name, aside := f".removed-{moved}-{os.getpid()}", src_dir_fd=fd, dst_dir_fd=parent)
                    waiting.insert(0, aside)
                else:
                    os.unlink(entry.name, dir_fd=fd)
        finally:
            os.close(fd)
        os.rmdir(target, dir_fd=parent)
        waiting.remove(target)
