"""Which accounts were made for people whom another program has signed in. The rules are in `core.forwarded_users`."""

import hashlib
import re
import secrets
import time

from sqlalchemy import Connection, func, insert, select

from backend.core.errors import Forbidden
from backend.core.storage.tables import forwarded_users, users
from backend.core.storage.users import User, find_user

MAX_PER_ISSUER = 10_000
MAX_STEM_CHARS = 56  # a username has 64: the rest is for what makes it unique

_UNUSABLE = re.compile(r"[^A-Za-z0-9._@-]+")


def find_forwarded(connection: Connection, issuer: str, external_id: str) -> User | None:
    where = (forwarded_users.c.issuer == issuer) & (forwarded_users.c.external_id == _digest(external_id))
    name = connection.execute(select(forwarded_users.c.username).where(where)).scalar_one_or_none()
    return None if name is None else find_user(connection, name)


def find_or_make_forwarded(
    connection: Connection, issuer: str, external_id: str, name: str, password_hash: str
) -> None:
    """
    Raises:
        Forbidden: the issuer has as many as it may have.
        IntegrityError: another process was quicker.
    """
    if find_forwarded(connection, issuer, external_id):
        return
    count = select(func.count()).select_from(forwarded_users).where(forwarded_users.c.issuer == issuer)
    if connection.execute(count).scalar_one() >= MAX_PER_ISSUER:
        raise Forbidden(f"This API key has forwarded {MAX_PER_ISSUER} users; no more are taken. Delete old accounts.")
    username = _free_name(connection, name)
    row = {
        "username": username,
        "password_hash": password_hash,
        "role": "user",
        "created_at": time.time(),
        "disabled": False,
        "token_version": secrets.randbelow(2**30),
    }
    connection.execute(insert(users), row)
    link = {"issuer": issuer, "external_id": _digest(external_id), "username": username}
    connection.execute(insert(forwarded_users), link)


def _free_name(connection: Connection, name: str) -> str:
    stem = _UNUSABLE.sub("-", name)[:MAX_STEM_CHARS].strip("._@-") or "user"
    return stem if find_user(connection, stem) is None else f"{stem}-{secrets.token_hex(3)}"


def _digest(external_id: str) -> str:
    return hashlib.sha256(external_id.encode("utf-8", "surrogatepass")).hexdigest()
