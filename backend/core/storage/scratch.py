"""A session's scratch folder: the files that its tools made.

Code that a model wrote may have filled it, so what is in it is not trusted: no link is followed, and a look at it ends
after a bounded number of entries. Hidden files are the tools' own (caches, settings) and are not listed.
"""

import os
from dataclasses import dataclass
from pathlib import Path

MAX_FILES = 1000
MAX_ENTRIES = 20_000


@dataclass(frozen=True, slots=True)
class ScratchFile:
    name: str  # with its folders, as in `charts/sales.png`
    size: int  # bytes
    created_at: float  # when it was last written, Unix seconds


def list_files(folder: Path) -> list[ScratchFile]:
    """The newest files, newest first. Blocks."""
    found: list[ScratchFile] = []
    waiting = [("", os.fspath(folder))]
    entries_left = MAX_ENTRIES
    while waiting and entries_left > 0:
        prefix, place = waiting.pop()
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    entries_left -= 1
                    if entries_left <= 0:
                        break
                    if entry.name.startswith(".") or not _is_text(entry.name):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append((f"{prefix}{entry.name}/", entry.path))
                    elif entry.is_file(follow_symlinks=False):
                        state = entry.stat(follow_symlinks=False)
                        found.append(ScratchFile(prefix + entry.name, state.st_size, state.st_mtime))
        except OSError:  # it vanished, or its maker closed it
            continue
    found.sort(key=lambda file: (-file.created_at, file.name))
    return found[:MAX_FILES]


def _is_text(name: str) -> bool:
    """Whether a name can be written in JSON and in an address: the kernel takes any bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return name.isprintable()
