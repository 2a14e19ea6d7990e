"""How much a user or a key may use: what is stored of it. What it means is in `backend.core.limits`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select

from backend.core.storage.database import Database
from backend.core.storage.tables import key_options, user_limits
from backend.core.storage.users import get_user
from backend.utils.shared_stamp import SharedStamp

_OF_USER = select(user_limits).where(user_limits.c.username == bindparam("of_user"))
_OF_KEY = select(key_options).where(key_options.c.key_id == bindparam("of_key"))


@dataclass(frozen=True, slots=True)
class Allowance:
    """0: no limit. None: not set here; what is more general holds."""

    requests_per_minute: int | None = None
    tokens_per_day: int | None = None
    concurrent_requests: int | None = None

    @property
    def is_bounded(self) -> bool:
        return bool(self.requests_per_minute or self.tokens_per_day or self.concurrent_requests)


UNSET = Allowance()


@dataclass(frozen=True, slots=True)
class KeyOptions:
    """What is special about a key."""

    allowance: Allowance = UNSET
    forwards_users: bool = False  # its program signs people in itself, and is believed who they are


PLAIN_KEY = KeyOptions()


class UserAllowances:
    """What admins allow single users, in place of what the settings allow everybody."""

    def __init__(self, database: Database, stamp: SharedStamp) -> None:
        self._database = database
        self._stamp = stamp

    async def get(self, username: str) -> Allowance:
        """
        Raises:
            NotFound
        """

        def query(connection: Connection) -> Allowance:
            return find_user_allowance(connection, get_user(connection, username).username)

        return await self._database.read(query)

    async def set(self, username: str, allowance: Allowance) -> None:
        """Replace what was set before. It holds from the user's next request on.

        Raises:
            NotFound
        """

        def change(connection: Connection) -> None:
            name = get_user(connection, username).username
            connection.execute(delete(user_limits).where(user_limits.c.username == name))
            connection.execute(insert(user_limits), {"username": name, **allowance_values(allowance)})

        await self._stamp.renew_after(self._database.write(change))


def find_user_allowance(connection: Connection, username: str) -> Allowance:
    row = connection.execute(_OF_USER, {"of_user": username}).mappings().first()
    return UNSET if row is None else _allowance(row)


def find_key_options(connection: Connection, key_id: str) -> KeyOptions:
    row = connection.execute(_OF_KEY, {"of_key": key_id}).mappings().first()
    return PLAIN_KEY if row is None else KeyOptions(_allowance(row), row["forwards_users"])


def insert_key_options(connection: Connection, key_id: str, options: KeyOptions) -> None:
    if options != PLAIN_KEY:
        row = {"key_id": key_id, "forwards_users": options.forwards_users, **allowance_values(options.allowance)}
        connection.execute(insert(key_options), row)


def allowance_values(allowance: Allowance) -> dict[str, int | None]:
    return {name: getattr(allowance, name) for name in Allowance.__slots__}


def _allowance(row: Mapping[Any, Any]) -> Allowance:
    return Allowance(**{name: row[name] for name in Allowance.__slots__})
