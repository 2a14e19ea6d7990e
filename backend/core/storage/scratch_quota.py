"""How much the scratch folders of one user may hold together.

The disk is looked at, since anything may have written there: at most once in `LOOK_S` for each user, and never on the
event loop. What is written between two looks is not seen, so the bound is one on where a next call begins, not on
where a running one ends; tools have bounds of their own for that.
"""

import asyncio
import os
import time
from pathlib import Path

from sqlalchemy import select

from backend.core.errors import PayloadTooLarge
from backend.core.storage.database import Database
from backend.core.storage.tables import sessions

LOOK_S = 10.0
MAX_KNOWN = 10_000  # users
MAX_ENTRIES = 200_000  # of a user's folders: whoever has more than that has too much


class ScratchQuota:
    def __init__(self, database: Database, data_dir: Path, *, quota_bytes: int) -> None:
        self._database = database
        self._scratch = data_dir / "scratch"
        self._quota_bytes = quota_bytes
        self._known: dict[str, tuple[float, int]] = {}  # user -> when to look again (monotonic seconds), bytes

    async def check(self, username: str) -> None:
        """
        Raises:
            PayloadTooLarge: there is no room for more.
        """
        used = await self._used(username)
        if used > self._quota_bytes:
            most = self._quota_bytes / 2**20
            raise PayloadTooLarge(
                f"The files of your sessions have {used / 2**20:,.0f} MiB, and {most:,.0f} MiB are the most. Delete "
                "sessions that you no longer need: DELETE /api/chat/sessions/{id}.",
                code="storage_quota_exceeded",
            )

    async def _used(self, username: str) -> int:
        now = time.monotonic()
        look_at, used = self._known.get(username, (0.0, 0))
        if now < look_at:
            return used
        query = select(sessions.c.id).where(sessions.c.username == username)
        ids = await self._database.read(lambda connection: connection.execute(query).scalars().all())
        used = await asyncio.to_thread(lambda: _size([self._scratch / session_id for session_id in ids]))
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        # Whoever has too much is looked at anew each time: they are about to delete something.
        self._known[username] = (now + LOOK_S if used <= self._quota_bytes else 0.0, used)
        return used


def _size(folders: list[Path]) -> int:
    """Bytes of all files below. Follows no link. Blocks."""
    waiting = [os.fspath(folder) for folder in folders]
    total, entries_left = 0, MAX_ENTRIES
    while waiting and entries_left > 0:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    entries_left -= 1
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_size
        except OSError:  # there is none, or it vanished
            continue
    return total
