"""The sessions' rows in the database: who owns a session, what it is called, and when something was last said in it.

Also where clients left off that send their whole history each time (`prefixes`): a digest of it leads to the session.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row as ResultRow
from sqlalchemy import bindparam, delete, literal, select, text, tuple_, update

from backend.core.errors import BadRequest, NotFound
from backend.core.storage.database import Database, Row
from backend.core.storage.tables import session_prefixes, sessions

SESSION_ID = re.compile(r"sess_[0-9a-f]{32}")
KEPT_PREFIXES = 400  # how many messages back from the newest a client may go on from
PRUNE_EVERY = 64

# Statements are made once: rows of the same statement object share one trip to the database.
_INSERT = text(
    "INSERT INTO sessions (id, username, created_at, updated_at, title, message_count)"
    " VALUES (:session_id, :username, :created_at, :updated_at, :title, :message_count) ON CONFLICT (id) DO NOTHING"
)
# Of two processes that append to one session, the later one may commit first: its count stays.
_APPEND = text(
    "UPDATE sessions SET"
    " message_count = CASE WHEN updated_at > :at AND message_count > :count THEN message_count ELSE :count END,"
    " updated_at = CASE WHEN updated_at > :at THEN updated_at ELSE :at END WHERE id = :id"
)
_REMEMBER_PREFIX = text(
    "INSERT INTO session_prefixes (username, digest, session_id, seq)"
    " SELECT username, :digest, id, :seq FROM sessions WHERE id = :id"
    " ON CONFLICT (username, digest) DO UPDATE SET session_id = excluded.session_id, seq = excluded.seq"
)
_PRUNE_PREFIXES = delete(session_prefixes).where(
    session_prefixes.c.session_id == bindparam("id"), session_prefixes.c.seq <= bindparam("oldest")
)
_DELETE = delete(sessions).where(sessions.c.id == bindparam("session"))
_RENAME = update(sessions).where(sessions.c.id == bindparam("session")).values(title=bindparam("new_title"))


@dataclass(frozen=True, slots=True)
class SessionRecord:
    session_id: str
    username: str
    title: str
    created_at: float  # Unix seconds
    updated_at: float
    message_count: int


@dataclass(frozen=True, slots=True)
class SessionPage:
    sessions: Sequence[SessionRecord]
    next_cursor: str | None  # of the next, older page


class SessionIndex:
    """The rows of all sessions. Writing is left to the caller, who does it together with the file: see `*_row`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, session_id: str) -> SessionRecord | None:
        if not SESSION_ID.fullmatch(session_id):
            return None
        query = select(sessions).where(sessions.c.id == session_id)
        row = await self._database.read(lambda connection: connection.execute(query).one_or_none())
        return None if row is None else _record(row)

    async def find_by_prefix(self, username: str, digest: str) -> str | None:
        query = select(session_prefixes.c.session_id).where(
            session_prefixes.c.username == username, session_prefixes.c.digest == digest
        )
        found: str | None = await self._database.read(lambda connection: connection.execute(query).scalar())
        return found

    async def ids_of(self, username: str, *, limit: int) -> Sequence[str]:
        query = select(sessions.c.id).where(sessions.c.username == username).limit(limit)
        return await self._database.read(lambda connection: connection.execute(query).scalars().all())

    async def list(self, username: str, *, limit: int, cursor: str | None) -> SessionPage:
        """
        Raises:
            BadRequest: the cursor is none of ours.
        """
        query = select(sessions).where(sessions.c.username == username).limit(limit + 1)
        query = query.order_by(sessions.c.updated_at.desc(), sessions.c.id.desc())
        if cursor is not None:
            updated_at, session_id = _read_cursor(cursor)
            place = tuple_(sessions.c.updated_at, sessions.c.id)
            query = query.where(place < tuple_(literal(updated_at), literal(session_id)))
        found = await self._database.read(lambda connection: [_record(row) for row in connection.execute(query)])
        page = found[:limit]
        more = len(found) > limit
        return SessionPage(page, f"{page[-1].updated_at!r}_{page[-1].session_id}" if more else None)


def insert_row(record: SessionRecord) -> Row:
    """A new session; nothing happens if it is there already."""
    return _INSERT, {name: getattr(record, name) for name in SessionRecord.__slots__}


def append_row(session_id: str, *, count: int, at: float) -> Row:
    return _APPEND, {"id": session_id, "count": count, "at": at}


def prefix_rows(session_id: str, digest: str, *, seq: int) -> list[Row]:
    """Where the client left off with the message `seq`; now and then, the oldest of such places are dropped."""
    remember = (_REMEMBER_PREFIX, {"id": session_id, "digest": digest, "seq": seq})
    if seq % PRUNE_EVERY > 1:  # most turns are two messages
        return [remember]
    return [remember, (_PRUNE_PREFIXES, {"id": session_id, "oldest": seq - KEPT_PREFIXES})]


def rename_row(session_id: str, title: str) -> Row:
    return _RENAME, {"session": session_id, "new_title": title}


def delete_row(session_id: str) -> Row:
    return _DELETE, {"session": session_id}


def no_such_session() -> NotFound:
    return NotFound("There is no such session. GET /api/chat/sessions lists yours.", param="session_id")


def _read_cursor(cursor: str) -> tuple[float, str]:
    moment, _, rest = cursor.partition("_")
    try:
        updated_at = float(moment)
    except ValueError:
        updated_at = math.nan
    if not math.isfinite(updated_at) or not SESSION_ID.fullmatch(rest):
        raise BadRequest("The cursor is not one that this server gave. Leave it out to begin anew.", param="cursor")
    return updated_at, rest


def _record(row: ResultRow[Any]) -> SessionRecord:
    return SessionRecord(row.id, row.username, row.title, row.created_at, row.updated_at, row.message_count)
