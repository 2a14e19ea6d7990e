"""Accounts of people whom another program has signed in, a chat UI that calls with one API key for all of them.

Each person gets an account of their own here, made when they are first seen: their own sessions, files and limits. The
rules, so that neither the program nor a name that somebody chose there can reach an account that is not theirs:

- An account belongs to the program's own id of a person (not to the name, which can be changed there), and to the
  account whose key the program has. It is found by these two alone.
- It is always a new account: one that exists already is never taken over, however its name reads. The name follows the
  person's address or name; where that is taken, something random is put behind it.
- It can be a user's only. Whatever the program says and whatever the account may become, who comes this way is no
  admin, and neither is the program itself.
- It has a password that nobody knows. An admin can disable it, bound it and delete it, as any other.
"""

import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from backend.core.errors import Forbidden
from backend.core.identity import RECHECK_S, Accounts, Principal
from backend.core.storage.allowances import Allowance, find_user_allowance
from backend.core.storage.database import Database
from backend.core.storage.forwarded_users import find_forwarded, find_or_make_forwarded
from backend.core.storage.users import User

MAX_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class ForwardedIdentity:
    """A person, as the program knows them."""

    id: str
    name: str  # an address or a name: only what the account is called after


@dataclass(slots=True)
class _Entry:
    user: User
    allowance: Allowance
    stamp: bytes
    recheck_at: float  # time.monotonic() seconds


class ForwardedUsers:
    """Finds the account of a person, and makes it. One for the life of the process."""

    def __init__(self, database: Database, accounts: Accounts) -> None:
        self._database = database
        self._passwords = accounts.passwords
        self._stamp = accounts.stamp
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()  # the least recently used one first

    async def resolve(self, program: Principal, person: ForwardedIdentity) -> Principal:
        """The person, calling with the program's key.

        Raises:
            Forbidden: the account is disabled, or the program has made too many.
        """
        key = (program.username, person.id)
        entry = self._entries.get(key)
        if entry is None or entry.stamp != self._stamp.read() or time.monotonic() >= entry.recheck_at:
            entry = self._entries[key] = await self._look_up(program.username, person)
            if len(self._entries) > MAX_REMEMBERED:
                self._entries.popitem(last=False)
        self._entries.move_to_end(key)
        if entry.user.disabled:
            raise Forbidden("This account is disabled. Ask an admin to enable it.", code="account_disabled")
        return Principal(entry.user.username, "user", program.key_id, entry.allowance, program.key_allowance)

    async def _look_up(self, issuer: str, person: ForwardedIdentity) -> _Entry:
        stamp = self._stamp.read()  # before the database is asked: a change in between voids the answer

        def find(connection: Connection) -> tuple[User, Allowance] | None:
            user = find_forwarded(connection, issuer, person.id)
            return (user, find_user_allowance(connection, user.username)) if user else None

        found = await self._database.read(find)
        if found is None:
            await self._make(issuer, person)
            found = await self._database.read(find)
        if found is None:
            raise Forbidden("This account has just been deleted.")
        return _Entry(*found, stamp, time.monotonic() + RECHECK_S)

    async def _make(self, issuer: str, person: ForwardedIdentity) -> None:
        password_hash = await self._passwords.hash(secrets.token_urlsafe(32))

        def make(connection: Connection) -> None:
            find_or_make_forwarded(connection, issuer, person.id, person.name, password_hash)

        try:
            await self._database.write(make)
        except IntegrityError:  # somebody made the same account, or took the name, in this moment
            await self._database.write(make)
