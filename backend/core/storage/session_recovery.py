"""After a crash: finds the conversations that the database does not know, or knows too little of.

A file is written just before its row, so a process that is killed in between leaves a file alone; and a power failure
may take the newest rows. One pass over the names and times of all files finds both. Runs once, beside everything else.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sqlalchemy import Connection, select

from backend.core.errors import ApiError
from backend.core.storage.conversation_format import from_iso
from backend.core.storage.conversations import Conversation
from backend.core.storage.database import Database
from backend.core.storage.session_index import SESSION_ID, SessionRecord, append_row, insert_row
from backend.core.storage.tables import sessions, users
from backend.core.storage.titles import make_title

SLACK_S = 1.0  # how much a file may be newer than its row
DRAFT_AGE_S = 3600.0
BATCH = 100
FIRST_MESSAGES = 20  # among which the title is looked for

logger = logging.getLogger(__name__)


async def recover_index(database: Database, folder: Path) -> None:
    """Bring the rows up to the files. Does not raise: what cannot be read now is left for the next start."""
    try:
        known = await database.read(_read_update_times)
        behind = await asyncio.to_thread(_find_behind, folder, known)
        found = 0
        for start in range(0, len(behind), BATCH):
            records = await asyncio.to_thread(_read_records, behind[start : start + BATCH])
            found += await database.write(_update(records, folder))
        if found:
            logger.warning("%d sessions were brought up to their files after a crash.", found)
    except (ApiError, OSError) as error:
        logger.warning("The look for lost sessions failed: %s", error)


def _read_update_times(connection: Connection) -> dict[str, float]:
    return {row.id: row.updated_at for row in connection.execute(select(sessions.c.id, sessions.c.updated_at))}


def _find_behind(folder: Path, known: Mapping[str, float]) -> list[Path]:
    behind: list[Path] = []
    if not folder.is_dir():
        return behind
    now = time.time()
    with os.scandir(folder) as entries:
        for entry in entries:
            name, _, suffix = entry.name.partition(".")
            if not SESSION_ID.fullmatch(name):
                continue
            changed_at = entry.stat(follow_symlinks=False).st_mtime
            if suffix == "json" and changed_at > known.get(name, 0.0) + SLACK_S:
                behind.append(Path(entry.path))
            elif suffix.endswith("tmp") and changed_at < now - DRAFT_AGE_S:
                Path(entry.path).unlink(missing_ok=True)  # a repair that was cut off; the file itself is whole
    return behind


def _read_records(paths: Sequence[Path]) -> list[SessionRecord]:
    records = []
    for path in paths:
        conversation = Conversation(path.parent, path.stem)
        try:
            newest = conversation.read(1)
            header = conversation.read_header()
            records.append(
                SessionRecord(
                    session_id=path.stem,
                    username=str(header.get("username")),
                    title=make_title(conversation.read(before=FIRST_MESSAGES + 1)),
                    created_at=from_iso(header.get("created_at")),
                    updated_at=path.stat().st_mtime,
                    message_count=newest[-1].seq if newest else 0,
                )
            )
        except (ApiError, FileNotFoundError) as error:
            logger.warning("%s cannot be indexed: %s", path.name, error)
    return records


def _update(records: Sequence[SessionRecord], folder: Path) -> Callable[[Connection], int]:
    def change(connection: Connection) -> int:
        updated = 0
        for record in records:
            if not (folder / f"{record.session_id}.json").exists():
                continue  # deleted meanwhile
            owner = select(users.c.created_at).where(users.c.username == record.username)
            owner_since = connection.execute(owner).scalar()
            # An account that was deleted does not pass its conversations on to a later one of the same name.
            if owner_since is not None and owner_since <= record.created_at:
                connection.execute(*insert_row(record))
            row = append_row(record.session_id, count=record.message_count, at=record.updated_at)
            updated += connection.execute(*row).rowcount
        return updated

    return change
