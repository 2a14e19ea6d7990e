"""API keys: `sk-` and 48 characters of which 288 bits are random. Only their SHA-256 is stored.

A plain hash is enough here: nobody can guess such a key, so there is nothing for a slow hash to slow down. A key works
as long as it exists and its user is enabled.
"""

import hashlib
import re
import secrets
import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from backend.core.errors import Conflict, NotFound
from backend.core.storage.allowances import PLAIN_KEY, KeyOptions, find_key_options, insert_key_options
from backend.core.storage.database import Database
from backend.core.storage.tables import api_keys, users
from backend.core.storage.users import Role
from backend.utils.shared_stamp import SharedStamp

PREFIX = "sk-"
MAX_KEYS_PER_USER = 100

_SHAPE = re.compile(r"sk-[A-Za-z0-9_-]{48}")
_TOUCH = update(api_keys).where(api_keys.c.id == bindparam("key_id")).values(last_used_at=bindparam("used_at"))
_FIND = (
    select(api_keys.c.id, api_keys.c.last_used_at, users.c.username, users.c.role, users.c.disabled)
    .join(users, users.c.username == api_keys.c.username)
    .where(api_keys.c.key_hash == bindparam("key_hash"))
)


@dataclass(frozen=True, slots=True)
class ApiKey:
    id: str
    name: str
    hint: str
    created_at: float
    last_used_at: float | None
    options: KeyOptions


@dataclass(frozen=True, slots=True)
class KeyOwner:
    """Whom a key stands for."""

    key_id: str
    username: str
    role: Role
    disabled: bool
    last_used_at: float | None
    options: KeyOptions = PLAIN_KEY


class ApiKeys:
    """The keys of all users."""

    def __init__(self, database: Database, stamp: SharedStamp) -> None:
        self._database = database
        self._stamp = stamp

    async def create(self, username: str, name: str, options: KeyOptions = PLAIN_KEY) -> tuple[ApiKey, str]:
        """Make a key; the second part is the key itself, which cannot be had again.

        Raises:
            Conflict: the user has `MAX_KEYS_PER_USER`.
        """
        secret = PREFIX + secrets.token_urlsafe(36)
        key = ApiKey("key_" + secrets.token_hex(8), name, secret[-4:], time.time(), None, options)
        row = {
            "id": key.id,
            "username": username,
            "name": name,
            "key_hash": hash_key(secret),
            "hint": key.hint,
            "created_at": key.created_at,
        }

        def change(connection: Connection) -> None:
            count = select(func.count()).select_from(api_keys).where(api_keys.c.username == username)
            if connection.execute(count).scalar_one() >= MAX_KEYS_PER_USER:
                raise Conflict(f"You have {MAX_KEYS_PER_USER} API keys. Delete one that is not used any more.")
            connection.execute(insert(api_keys), row)
            insert_key_options(connection, key.id, options)

        await self._database.write(change)
        return key, secret

    async def list(self, username: str) -> list[ApiKey]:
        """A user's keys, newest first."""
        query = select(api_keys).where(api_keys.c.username == username).order_by(api_keys.c.created_at.desc())
        return await self._database.read(
            lambda connection: [_api_key(connection, row) for row in connection.execute(query).all()]
        )

    async def delete(self, username: str, key_id: str) -> None:
        """End a key of this user.

        Raises:
            NotFound: there is none such, or it is somebody else's.
        """
        where = (api_keys.c.id == key_id) & (api_keys.c.username == username)
        write = self._database.write(lambda connection: connection.execute(delete(api_keys).where(where)).rowcount)
        if not await self._stamp.renew_after(write):
            raise NotFound("You have no API key of that id. GET /api/auth/keys lists yours.")

    async def touch(self, key_id: str, used_at: float) -> None:
        """Note when a key was used."""
        await self._database.write_rows([(_TOUCH, {"key_id": key_id, "used_at": used_at})])


def looks_like_a_key(credential: str) -> bool:
    return _SHAPE.fullmatch(credential) is not None


def hash_key(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def find_owner(connection: Connection, key: str) -> KeyOwner | None:
    row = connection.execute(_FIND, {"key_hash": hash_key(key)}).first()
    if row is None:
        return None
    options = find_key_options(connection, row.id)
    return KeyOwner(row.id, row.username, row.role, row.disabled, row.last_used_at, options)


def _api_key(connection: Connection, row: Any) -> ApiKey:
    options = find_key_options(connection, row.id)
    return ApiKey(row.id, row.name, row.hint, row.created_at, row.last_used_at, options)
