"""Who is calling: signing in with a password, and from then on with a token or an API key.

Every request is authenticated, so an answer is remembered. What is remembered must end *at once* when somebody is
disabled, deleted, demoted or gets a new password, or when a key is deleted, also when another process did it (a second
worker, the tools API's peer, the command line while the servers run). Therefore:

- every change of users or keys renews a stamp that all processes on the machine share (`SharedStamp`), after it is
  committed; each lookup compares the stamp with the one that was there *before* the remembered answer was read from
  the database. That costs less than a microsecond: no query, no thread.
- an answer older than `RECHECK_S` is asked again anyway. That is the bound where the stamp cannot help: servers on
  several machines with one database, a process killed between its commit and the new stamp, a stamp file replaced.

Only good answers are remembered, under the credential's SHA-256. A role is always the database's, never the token's.
"""

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sqlalchemy import Connection

from backend.core.errors import Forbidden, TooManyRequests, Unauthorized
from backend.core.storage.allowances import UNSET, Allowance, UserAllowances, find_user_allowance
from backend.core.storage.api_keys import PREFIX, ApiKeys, KeyOwner, find_owner, looks_like_a_key
from backend.core.storage.database import Database
from backend.core.storage.login_failures import LoginFailures
from backend.core.storage.users import Role, User, Users, find_user
from backend.utils.passwords import Passwords
from backend.utils.shared_stamp import SharedStamp
from backend.utils.tokens import ServiceClaims, TokenSigner, malformed
from config import Settings

STAMP_FILE = "identity.generation"
RECHECK_S = 5.0
MAX_REMEMBERED = 4096
KEY_USE_GRAIN_S = 60.0
SERVICE_TOKEN_SLACK_S = 60.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls."""

    username: str
    role: Role
    key_id: str | None = None  # the API key that was used; None: a token
    allowance: Allowance = UNSET  # what the user may use in all,
    key_allowance: Allowance = UNSET  # and by this key
    forwards_users: bool = False  # is a program that says itself on whose behalf it calls: see `forwarded_users`

    @property
    def is_admin(self) -> bool:
        return self.role == "admin"


@dataclass(frozen=True, slots=True)
class ToolCaller:
    """Who calls the tools API: a user, or the main API on a user's behalf in one session."""

    principal: Principal
    session_id: str | None = None  # None: the user's own call


@dataclass(frozen=True, slots=True)
class Accounts:
    """Everything that is stored about who may call, over one database."""

    users: Users
    api_keys: ApiKeys
    allowances: UserAllowances
    failures: LoginFailures
    passwords: Passwords
    stamp: SharedStamp


@asynccontextmanager
async def open_accounts(settings: Settings, database: Database) -> AsyncIterator[Accounts]:
    """Accounts over an open database. The command line needs no more than this."""
    stamp = await asyncio.to_thread(SharedStamp, settings.DATA_DIR / STAMP_FILE)
    passwords = Passwords(settings.BCRYPT_ROUNDS)
    failures = LoginFailures(database, max_failures=settings.LOGIN_MAX_FAILURES, lockout_s=settings.LOGIN_LOCKOUT_S)
    try:
        yield Accounts(
            Users(database, passwords, stamp),
            ApiKeys(database, stamp),
            UserAllowances(database, stamp),
            failures,
            passwords,
            stamp,
        )
    finally:
        passwords.close()
        await stamp.close()


@dataclass(slots=True)
class _Entry:
    """A good answer that is remembered."""

    digest: bytes  # of the credential
    caller: ToolCaller
    stamp: bytes
    recheck_at: float  # time.monotonic() seconds
    ends_at: float  # Unix seconds


class Authenticator:
    """Signs people in, and tells who a credential belongs to.

    Raises (from everything that takes a credential):
        Unauthorized: with a message that says whether it is missing, malformed, expired or revoked.
    """

    def __init__(self, database: Database, accounts: Accounts, signer: TokenSigner) -> None:
        self._database = database
        self._users = accounts.users
        self._api_keys = accounts.api_keys
        self._passwords = accounts.passwords
        self._failures = accounts.failures
        self._stamp = accounts.stamp
        self._signer = signer
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()  # the least recently used one first
        self._touches: dict[str, asyncio.Task[None]] = {}  # key id -> the note of its use that is being written

    async def authenticate(self, credential: str) -> Principal:
        """Tell who sent a user's token or an API key. A service token is neither."""
        caller = self._recall(credential) or await self._identify(credential)
        if caller.session_id is not None:
            raise malformed()
        return caller.principal

    async def authenticate_tool_caller(self, credential: str) -> ToolCaller:
        """Tell who calls a tool, by a service token, a user's token or an API key."""
        return self._recall(credential) or await self._identify(credential)

    async def sign_in(self, username: str, password: str, address: str) -> User:
        """Check a name and a password.

        Raises:
            Unauthorized: one of the two is wrong; which one, nobody can tell, not even by the time it takes.
            Forbidden: both are right and the account is disabled.
            TooManyRequests: too many failures; said of the right password too.
        """
        _refuse_locked(await self._failures.locked_for_s(username, address))
        user = await self._users.find(username)
        right = await self._passwords.verify(password, user.password_hash if user else None)
        _refuse_locked(await self._failures.settle(username, address, succeeded=right))
        if user is None or not right:
            raise Unauthorized("The username or the password is wrong.", code="wrong_credentials")
        if user.disabled:
            raise Forbidden("This account is disabled. Ask an admin to enable it.", code="account_disabled")
        if self._passwords.needs_rehash(user.password_hash):
            await self._users.replace_hash(user, password)
        return user

    async def has_user(self, username: str) -> bool:
        """Whether there is such an account now, by the database and not by what is remembered."""
        return await self._users.find(username) is not None

    async def unlock(self, username: str) -> None:
        """Forget somebody's failed sign-ins: an admin has set a new password."""
        await self._failures.clear(username)

    def make_token(self, user: User) -> str:
        """A token for somebody who has signed in."""
        return self._signer.sign_access(user.username, user.token_version)

    def make_service_token(self, username: str, session_id: str, *, timeout_s: float) -> str:
        """A token for one tool call of at most `timeout_s` on behalf of a user."""
        return self._signer.sign_service(username, session_id, lifetime_s=timeout_s + SERVICE_TOKEN_SLACK_S)

    async def close(self) -> None:
        """Let the notes of keys' use be written."""
        await asyncio.gather(*self._touches.values())

    def _recall(self, credential: str) -> ToolCaller | None:
        entry = self._entries.get(_digest(credential))
        if (
            entry is None
            or entry.stamp != self._stamp.read()
            or time.monotonic() >= entry.recheck_at
            or time.time() >= entry.ends_at
        ):
            return None
        self._entries.move_to_end(entry.digest)
        return entry.caller

    async def _identify(self, credential: str) -> ToolCaller:
        stamp = self._stamp.read()  # before the database is asked: a change in between voids the answer
        if credential.startswith(PREFIX):
            caller, ends_at = await self._check_key(credential), float("inf")
        else:
            caller, ends_at = await self._check_token(credential)
        digest = _digest(credential)
        self._entries[digest] = _Entry(digest, caller, stamp, time.monotonic() + RECHECK_S, ends_at)
        self._entries.move_to_end(digest)
        if len(self._entries) > MAX_REMEMBERED:
            self._entries.popitem(last=False)
        return caller

    async def _check_token(self, token: str) -> tuple[ToolCaller, float]:
        claims = self._signer.read(token)
        user, allowance = await self._database.read(lambda connection: self._read_user(connection, claims.sub))
        if user is None or user.disabled:
            raise _revoked()
        principal = Principal(user.username, user.role, allowance=allowance)
        if isinstance(claims, ServiceClaims):
            return ToolCaller(principal, claims.sid), claims.exp
        if user.token_version != claims.ver:
            raise _revoked()
        return ToolCaller(principal), claims.exp

    async def _check_key(self, key: str) -> ToolCaller:
        if not looks_like_a_key(key):
            raise malformed()
        owner, allowance = await self._database.read(lambda connection: self._read_owner(connection, key))
        if owner is None or owner.disabled:
            raise _revoked()
        self._note_use(owner)
        options = owner.options
        # A program that acts for many people is no admin, whoever made its key.
        role = "user" if options.forwards_users else owner.role
        return ToolCaller(
            Principal(owner.username, role, owner.key_id, allowance, options.allowance, options.forwards_users)
        )

    def _read_user(self, connection: Connection, username: str) -> tuple[User | None, Allowance]:
        self._stamp.reopen_if_replaced()  # here, since this is a thread that may wait for the disk
        user = find_user(connection, username)
        return user, find_user_allowance(connection, user.username) if user else UNSET

    def _read_owner(self, connection: Connection, key: str) -> tuple[KeyOwner | None, Allowance]:
        self._stamp.reopen_if_replaced()
        owner = find_owner(connection, key)
        return owner, find_user_allowance(connection, owner.username) if owner else UNSET

    def _note_use(self, owner: KeyOwner) -> None:
        now = time.time()
        if owner.key_id in self._touches or 0 <= now - (owner.last_used_at or 0) < KEY_USE_GRAIN_S:
            return
        if len(self._touches) < MAX_REMEMBERED:
            self._touches[owner.key_id] = asyncio.create_task(self._touch(owner.key_id, now))

    async def _touch(self, key_id: str, now: float) -> None:
        try:
            await self._api_keys.touch(key_id, now)
        except Exception as error:  # nobody waits for this, and no request fails because of it
            log.warning("Cannot note the use of an API key: %s", error)
        finally:
            del self._touches[key_id]


@asynccontextmanager
async def open_authenticator(
    settings: Settings, database: Database, accounts: Accounts, secret: str
) -> AsyncIterator[Authenticator]:
    """What a server needs on top of the accounts; writes what is still to be noted at the end."""
    lifetime_s = settings.JWT_EXPIRATION_HOURS * 3600
    signer = TokenSigner(secret, settings.JWT_ALGORITHM, access_lifetime_s=lifetime_s)
    authenticator = Authenticator(database, accounts, signer)
    try:
        yield authenticator
    finally:
        await authenticator.close()


def _digest(credential: str) -> bytes:
    return hashlib.sha256(credential.encode("utf-8", "surrogatepass")).digest()


def _refuse_locked(seconds: float) -> None:
    if seconds > 0:
        raise TooManyRequests(
            f"Too many failed sign-ins. Try again in {max(1, round(seconds))} s.",
            code="too_many_failures",
            retry_after_s=seconds,
        )


def _revoked() -> Unauthorized:
    return Unauthorized(
        "The token or API key has been revoked, or its user is disabled. Sign in again: POST /api/auth/login.",
        code="token_revoked",
    )
