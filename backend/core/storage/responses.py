"""Responses as clients may ask for them again, and where each stands in its conversation.

What was said is in the session; here is the object that the client got, the input that it was made from, and the way
through the session that leads to it (`spans`), on which a later response goes on. A response goes with its session and
with its user. Of each user the newest `MAX_RESPONSES` are kept; of a long input, its newest items.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Connection, bindparam, delete, exc, insert, select

from backend.core.errors import NotFound
from backend.core.storage.conversation_format import dump
from backend.core.storage.database import Database
from backend.core.storage.spans import Spans
from backend.core.storage.tables import responses

MAX_RESPONSES = 1_000
MAX_INPUT_BYTES = 2**20
RESPONSE_ID = re.compile(r"resp_[0-9a-f]{32}")

_INSERT = insert(responses)
_OLDEST_KEPT = (
    select(responses.c.created_at)
    .where(responses.c.username == bindparam("user"))
    .order_by(responses.c.created_at.desc())
    .offset(bindparam("others"))
    .limit(1)
)
_PRUNE = delete(responses).where(
    responses.c.username == bindparam("user"), responses.c.created_at < _OLDEST_KEPT.scalar_subquery()
)


@dataclass(frozen=True, slots=True)
class StoredResponse:
    id: str
    username: str
    session_id: str
    created_at: float  # Unix seconds
    spans: Spans
    body: dict[str, Any]  # the object as the client got it
    input_items: Sequence[dict[str, Any]]


class Responses:
    def __init__(self, database: Database, *, max_per_user: int = MAX_RESPONSES) -> None:
        self._database = database
        self._max_per_user = max_per_user

    async def keep(self, response: StoredResponse) -> None:
        """
        Raises:
            StorageFailed, Unavailable: it could not be kept.
        """
        row = {
            "id": response.id,
            "username": response.username,
            "session_id": response.session_id,
            "created_at": response.created_at,
            "spans": dump(response.spans).decode(),
            "body": dump(response.body).decode(),
            "input_items": dump(_newest(response.input_items)).decode(),
        }

        def change(connection: Connection) -> None:
            connection.execute(_INSERT, row)
            connection.execute(_PRUNE, {"user": response.username, "others": self._max_per_user - 1})

        try:
            await self._database.write(change)
        except exc.IntegrityError:
            return  # the session was deleted while it was answered

    async def find(self, username: str, response_id: str) -> StoredResponse:
        """
        Raises:
            NotFound: alike for a response of somebody else, one that never was, and what is no response id at all.
        """
        row = None
        if RESPONSE_ID.fullmatch(response_id):
            query = select(responses).where(responses.c.id == response_id, responses.c.username == username)
            row = await self._database.read(lambda connection: connection.execute(query).one_or_none())
        if row is None:
            raise _no_such_response()
        spans = tuple((first, last) for first, last in orjson.loads(row.spans))
        body, items = orjson.loads(row.body), orjson.loads(row.input_items)
        return StoredResponse(row.id, row.username, row.session_id, row.created_at, spans, body, items)

    async def delete(self, username: str, response_id: str) -> None:
        """Remove a response. What was said stays in its session.

        Raises:
            NotFound: as above.
        """
        change = delete(responses).where(responses.c.id == response_id, responses.c.username == username)
        if not await self._database.write(lambda connection: connection.execute(change).rowcount):
            raise _no_such_response()


def _newest(items: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    size = 0
    for at in range(len(items) - 1, -1, -1):
        size += len(dump(items[at]))
        if size > MAX_INPUT_BYTES:
            return items[at + 1 :]
    return items


def _no_such_response() -> NotFound:
    return NotFound("There is no such response. Responses with `store: false`, and deleted ones, are not kept.")
