"""Accounts: names, roles, password hashes, and what ends somebody's tokens.

A name is 1 to 64 characters and unique whatever its case: `Alice` signs in as `alice`. Its token version starts at
random, so that a token of a deleted account does not fit a later one of the same name, and goes up with every new
password and whenever the account is disabled. Every change renews the shared stamp, which voids what the
`Authenticator` of each process remembers.
"""

import re
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, delete, exc, func, insert, select, update

from backend.core.errors import Conflict, NotFound, Unavailable, Unprocessable
from backend.core.storage.database import Database
from backend.core.storage.tables import files, sessions, users
from backend.utils.passwords import Passwords
from backend.utils.shared_stamp import SharedStamp

Role = Literal["user", "admin"]

DELETE_TRIES = 10

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


@dataclass(frozen=True, slots=True)
class User:
    username: str
    role: Role
    created_at: float
    disabled: bool
    token_version: int
    password_hash: str


class Users:
    """The accounts of one database."""

    def __init__(self, database: Database, passwords: Passwords, stamp: SharedStamp) -> None:
        self._database = database
        self._passwords = passwords
        self._stamp = stamp

    async def create(self, username: str, password: str, role: Role) -> User:
        """Make an account.

        Raises:
            Unprocessable: the name or the password breaks the rules.
            Conflict: somebody has that name.
        """
        check_username(username)
        user = User(
            username=username,
            role=role,
            created_at=time.time(),
            disabled=False,
            token_version=secrets.randbelow(2**30),
            password_hash=await self._passwords.hash(password),
        )
        row = {name: getattr(user, name) for name in User.__slots__}
        try:
            await self._database.write_rows([(insert(users), row)])
        except exc.IntegrityError:
            raise Conflict(f"The name {username} is taken. Choose another one.", param="username") from None
        return user

    async def find(self, username: str) -> User | None:
        return await self._database.read(lambda connection: find_user(connection, username))

    async def get(self, username: str) -> User:
        """
        Raises:
            NotFound
        """
        user = await self.find(username)
        if user is None:
            raise _no_such_user(username)
        return user

    async def list(self, *, limit: int, offset: int = 0) -> list[User]:
        """Accounts by name."""
        query = select(users).order_by(func.lower(users.c.username)).limit(limit).offset(offset)
        return await self._database.read(lambda connection: [_user(row) for row in connection.execute(query)])

    async def update(
        self,
        username: str,
        *,
        role: Role | None = None,
        password: str | None = None,
        disabled: bool | None = None,
        keep_an_admin: bool = True,
    ) -> User:
        """Change what is given. A new password and disabling end the user's tokens.

        Raises:
            NotFound, Unprocessable
            Conflict: nobody could administer the server any more, and `keep_an_admin` is set.
        """
        values: dict[str, Any] = {}
        if role is not None:
            values["role"] = role
        if disabled is not None:
            values["disabled"] = disabled
        if password is not None:
            values["password_hash"] = await self._passwords.hash(password)
        if password is not None or disabled:
            values["token_version"] = users.c.token_version + 1

        def change(connection: Connection) -> User:
            user = get_user(connection, username)
            if keep_an_admin and (disabled or role == "user"):
                _check_another_admin(connection, user)
            if values:
                connection.execute(update(users).where(users.c.username == user.username).values(values))
            return get_user(connection, user.username)

        return await self._stamp.renew_after(self._database.write(change))

    async def replace_hash(self, user: User, password: str) -> None:
        """Store the same password hashed at today's cost, unless it was changed meanwhile. Ends no token."""
        where = (users.c.username == user.username) & (users.c.password_hash == user.password_hash)
        change = update(users).where(where).values(password_hash=await self._passwords.hash(password))
        await self._database.write_rows([(change, {})])

    async def delete(
        self, username: str, *, delete_data: Callable[[str], Awaitable[object]], keep_an_admin: bool = True
    ) -> User:
        """Remove an account with its keys and everything that it owns.

        It is disabled first, so that nothing new is begun. Requests that run already may still leave something: a row
        that has files keeps the account until both are gone, and the folders of an account without a row are looked
        for once more. If something fails on the way, the account stays disabled and can be deleted again.

        Args:
            delete_data: removes what the account owns outside this table, given its name. Called more than once.

        Raises:
            NotFound
            Conflict: see `update`.
            Unavailable: its requests make new data all the time.
        """
        user = await self.update(username, disabled=True, keep_an_admin=keep_an_admin)
        for _ in range(DELETE_TRIES):
            await delete_data(user.username)
            if await self._stamp.renew_after(self._database.write(lambda connection: _remove(connection, user))):
                await delete_data(user.username)
                return user
        raise Unavailable(f"Requests of {user.username} still run. Try again.", retry_after_s=5)


def check_username(username: str) -> None:
    """
    Raises:
        Unprocessable
    """
    if not _NAME.fullmatch(username):
        raise Unprocessable(
            "A username has 1 to 64 characters: letters, digits and . _ @ - , and starts with a letter or a digit.",
            param="username",
        )


def find_user(connection: Connection, username: str) -> User | None:
    if not _NAME.fullmatch(username):
        return None
    row = connection.execute(select(users).where(func.lower(users.c.username) == username.lower())).first()
    return None if row is None else _user(row)


def get_user(connection: Connection, username: str) -> User:
    """
    Raises:
        NotFound
    """
    user = find_user(connection, username)
    if user is None:
        raise _no_such_user(username)
    return user


def _check_another_admin(connection: Connection, user: User) -> None:
    enabled_admins = (users.c.role == "admin") & users.c.disabled.is_(False)
    # Locked where the database can (SQLite has one writer anyway): two admins cannot demote each other at once.
    names = connection.execute(select(users.c.username).where(enabled_admins).with_for_update()).scalars().all()
    if list(names) == [user.username]:
        raise Conflict(
            f"{user.username} is the last admin who can sign in: the server would have nobody to run it. Make another "
            "admin first.",
            param="username",
        )


def _remove(connection: Connection, user: User) -> bool:
    """Remove the account, unless it owns something with files: with its rows, the way to those would be lost."""
    # Locked where the database can: a row that refers to it is made before this, and seen, or never.
    connection.execute(select(users.c.id).where(users.c.username == user.username).with_for_update())
    for table in (sessions, files):
        if connection.execute(select(table.c.id).where(table.c.username == user.username).limit(1)).first():
            return False
    connection.execute(delete(users).where(users.c.username == user.username))
    return True


def _no_such_user(username: str) -> NotFound:
    return NotFound(f"There is no user {username}." if _NAME.fullmatch(username) else "There is no such user.")


def _user(row: Any) -> User:
    return User(**{name: getattr(row, name) for name in User.__slots__})
