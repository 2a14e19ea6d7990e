"""Replaces a document and is killed on the way: `python -m tests.tools.rag.uploading DATA MODEL OLD NEW N`.

N: at which of the things that it asks of the system (opens, locks, removals, connections) it kills itself with SIGKILL,
counted from the beginning of the replacing; 0: never, and it says how many there were.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

from tests.tools.rag.conftest import opened_collections


async def main(data_dir: Path, model: Path, old: Path, new: Path, kill_at: int) -> None:
    events = 0

    def count(event: str, args: tuple[object, ...]) -> None:
        nonlocal events
        if events and event.startswith(("open", "os.", "fcntl", "sqlite3", "shutil")):
            events += 1
            if events - 1 == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    async with opened_collections(data_dir, model) as collections:
        await collections.add("alice", "default", old, "note.txt")
        events = 1
        await collections.add("alice", "default", new, "note.txt")
    print(events)


if __name__ == "__main__":
    asyncio.run(main(*(Path(argument) for argument in sys.argv[1:5]), int(sys.argv[5])))  # type: ignore[call-arg]
