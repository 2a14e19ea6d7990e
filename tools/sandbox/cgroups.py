"""Control groups, where this process may make some: a hard bound on the memory and the processes of a session together.

Version 1 (a tree for each controller) and version 2 (one tree) are both understood. Groups are made below our own, so
that what bounds the server bounds its sessions too. All functions block; they run in threads.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PREFIX = "python-coder"
_REMOVE_TRIES = 100
_CONTROLLERS = ("memory", "pids")


@dataclass(frozen=True, slots=True)
class Bounds:
    memory: int  # bytes
    processes: int


class ControlGroup:
    """The group of one session: one folder in version 2, one for each controller in version 1."""

    def __init__(self, folders: list[Path]) -> None:
        self._folders = folders

    def make(self, bounds: Bounds, pid: int) -> None:
        """Make the group with a session's first process in it. What goes wrong half-way is for `remove`.

        Raises:
            OSError: the kernel refused.
        """
        values = {
            "memory.limit_in_bytes": bounds.memory,
            "memory.max": bounds.memory,
            "memory.swap.max": 0,
            "pids.max": bounds.processes,
        }
        for folder in self._folders:
            folder.mkdir()
            for name, value in values.items():
                if (folder / name).exists():
                    (folder / name).write_text(str(value))
            (folder / "cgroup.procs").write_text(str(pid))

    def ran_out_of_memory(self) -> bool:
        for folder in self._folders:
            for name in ("memory.events", "memory.oom_control"):
                with contextlib.suppress(OSError):
                    words = (folder / name).read_text().split()
                    return int(words[words.index("oom_kill") + 1]) > 0
        return False

    def remove(self) -> None:
        """Take the group away; what was in it has ended, though the kernel may need a moment to notice."""
        for folder in self._folders:
            for _ in range(_REMOVE_TRIES):
                with contextlib.suppress(FileNotFoundError):
                    try:
                        folder.rmdir()
                    except OSError:
                        time.sleep(0.02)
                        continue
                break


class ControlGroups:
    """The places where groups can be made; none where this process may not."""

    def __init__(self, parents: list[Path]) -> None:
        self._parents = parents

    @classmethod
    def find(cls) -> "ControlGroups":
        """Find out by making one."""
        parents = [path for path in _own_groups() if path.is_dir() and os.access(path, os.W_OK)]
        usable: list[Path] = []
        for parent in parents:
            trial = parent / f"{_PREFIX}-trial-{os.getpid()}"
            with contextlib.suppress(OSError):
                trial.mkdir()
                if any((trial / name).exists() for name in ("memory.limit_in_bytes", "memory.max", "pids.max")):
                    usable.append(parent)
            with contextlib.suppress(OSError):
                trial.rmdir()
        return cls(usable)

    def __bool__(self) -> bool:
        return bool(self._parents)

    def plan(self, number: int) -> ControlGroup:
        """The group of one session, not made yet."""
        return ControlGroup([parent / f"{_PREFIX}-{os.getpid()}-{number}" for parent in self._parents])

    def remove_stale(self) -> None:
        """Take away what a server that was killed has left: empty groups whose maker is gone."""
        for parent in self._parents:
            for folder in parent.glob(f"{_PREFIX}-*-*"):
                maker = folder.name.removeprefix(_PREFIX).split("-")[1]
                if maker.isdigit() and not Path("/proc", maker).exists():
                    with contextlib.suppress(OSError):  # not empty after all
                        folder.rmdir()


def _own_groups() -> Iterator[Path]:
    root = Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                yield root / path.lstrip("/")
            elif controllers in _CONTROLLERS:
                yield root / controllers / path.lstrip("/")
