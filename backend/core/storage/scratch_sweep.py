"""Removes the scratch folders that nobody can reach: of conversations that were not kept, or broke off too early.

A folder goes when it has not changed for `AGE_S` and the database knows no session of its name. A folder of a session
that is being made is much younger.
"""

import asyncio
import logging
import os
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from sqlalchemy import Connection, select

from backend.core.errors import ApiError
from backend.core.storage.database import Database
from backend.core.storage.session_index import SESSION_ID
from backend.core.storage.tables import sessions
from backend.utils.paths import remove_tree

AGE_S = 86_400.0
INTERVAL_S = 3_600.0
BATCH = 500

logger = logging.getLogger(__name__)


async def sweep_forever(database: Database, folder: Path) -> None:
    while True:
        try:
            await sweep(database, folder)
        except (ApiError, OSError) as error:
            logger.warning("Old scratch folders could not be removed: %s", error)
        await asyncio.sleep(INTERVAL_S)


async def sweep(database: Database, folder: Path) -> None:
    old = await asyncio.to_thread(_find_old, folder)
    for start in range(0, len(old), BATCH):
        names = set(old[start : start + BATCH])
        for name in names - await database.read(partial(_find_known, names)):
            await asyncio.to_thread(remove_tree, folder / name)


def _find_known(names: set[str], connection: Connection) -> set[str]:
    return set(connection.execute(select(sessions.c.id).where(sessions.c.id.in_(names))).scalars())


def _find_old(folder: Path) -> Sequence[str]:
    if not folder.is_dir():
        return []
    before = time.time() - AGE_S
    with os.scandir(folder) as entries:
        return [
            entry.name
            for entry in entries
            if SESSION_ID.fullmatch(entry.name) and entry.stat(follow_symlinks=False).st_mtime < before
        ]
