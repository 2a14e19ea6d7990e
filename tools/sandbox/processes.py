"""What the sessions' processes are and use, read from `/proc` as the prepared parent sees it."""

import contextlib
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
_DEAD = "ZX"


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    parent: int
    threads: int


@dataclass(frozen=True, slots=True)
class Usage:
    threads: int = 0
    memory: int = 0  # bytes of private memory
    unlinked: int = 0  # bytes of files that are deleted and still open


def scan() -> list[Process]:
    """Every living process in sight."""
    found: list[Process] = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):  # it ended while we looked
                fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
                if fields[0] not in _DEAD:
                    found.append(Process(int(folder.name), int(fields[1]), int(fields[17])))
    return found


def find_family(pid: int, processes: Iterable[Process]) -> list[Process]:
    """A process and all that descend from it."""
    children: dict[int, list[Process]] = {}
    family: list[Process] = []
    for process in processes:
        children.setdefault(process.parent, []).append(process)
        if process.pid == pid:
            family.append(process)
    for process in family:  # grows while it is read
        family += children.get(process.pid, ())
    return family


def measure(family: Iterable[Process]) -> Usage:
    threads = memory = 0
    unlinked: dict[tuple[int, int], int] = {}
    for process in family:
        threads += process.threads
        with contextlib.suppress(OSError):
            memory += private_memory(process.pid)
            unlinked |= _unlinked_files(process.pid)
    return Usage(threads, memory, sum(unlinked.values()))


def private_memory(pid: int) -> int:
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return (int(fields[1]) - int(fields[2])) * _PAGE


def mapped_memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * _PAGE


def count_own_threads() -> int:
    """How many threads this user runs, on the whole machine."""
    uid, count = os.geteuid(), 0
    for process in scan():
        with contextlib.suppress(OSError):
            count += process.threads if Path(f"/proc/{process.pid}").stat().st_uid == uid else 0
    return count


def _unlinked_files(pid: int) -> dict[tuple[int, int], int]:
    found: dict[tuple[int, int], int] = {}
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            status = link.stat()
            if stat.S_ISREG(status.st_mode) and status.st_nlink == 0:
                found[status.st_dev, status.st_ino] = status.st_blocks * 512
    return found
