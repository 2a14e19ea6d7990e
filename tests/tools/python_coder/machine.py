"""What a tool leaves on the machine: processes below us, open files, control groups.

Other tests in the same process may keep servers running: what was there before a test (`note_elders`) is not its own.
"""

import asyncio
import contextlib
import os
import time
from pathlib import Path

from tests.support.eventually import eventually
from tools.sandbox.cgroups import ControlGroups

_elders: set[int] = set()


def note_elders() -> None:
    _elders.clear()
    _elders.update(descendants())


def descendants(pid: int = 0) -> set[int]:
    """Every living process below `pid`, by default below us."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
                if fields[0] not in "ZX":
                    parents[int(folder.name)] = int(fields[1])
    found: set[int] = set()
    queue = [pid or os.getpid()]
    while queue:
        queue_head = queue.pop()
        below = {child for child, parent in parents.items() if parent == queue_head}
        found |= below
        queue += below
    return found if pid else found - _elders


def is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


async def are_gone(pids: set[int], within_s: float = 10) -> bool:
    return await eventually(lambda: not any(map(is_alive, pids)), within_s)


def open_files() -> list[str]:
    links = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            links.append(str(link.readlink()).split(":")[0])
    return sorted(link for link in links if not link.startswith("/usr/share/fonts/"))  # closed when they are collected


async def settled_files(for_s: float = 0.3) -> int:
    """How many files are open once that has not changed for a while: a thread may hold one for a moment."""
    last, since = len(open_files()), time.monotonic()
    while time.monotonic() - since < for_s:
        await asyncio.sleep(0.02)
        if (now := len(open_files())) != last:
            last, since = now, time.monotonic()
    return last


def own_groups() -> list[Path]:
    return [group for parent in ControlGroups.find()._parents for group in parent.glob(f"*-{os.getpid()}-*")]
