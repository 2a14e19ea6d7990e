"""Wrong passwords, counted in the database so that the count holds over workers and restarts.

Each failure counts for three subjects: the name at the caller's address (`max_failures` lock it), the name wherever it
comes from, and the address whatever name it tries (`WIDE_FACTOR` times as many). A locked attempt does not count, so
that one address alone never locks a name for everybody. A count is forgotten `lockout_s` after its last failure, which
is also how long a lock lasts. Success clears the name's counts but not the address's: an attacker with an account of
their own would wipe it.

Names are kept as a hash: people type passwords into the wrong box. An IPv6 caller is its /64, since one caller has all
of it. A time in the future (the clock went back) is set to now, so that no lock outlives `lockout_s`.
"""

import hashlib
import ipaddress
import time

from sqlalchemy import Connection, delete, insert, select, update

from backend.core.storage.database import Database
from backend.core.storage.tables import login_failures

WIDE_FACTOR = 10


class LoginFailures:
    """The counts, and whether they lock somebody out."""

    def __init__(self, database: Database, *, max_failures: int, lockout_s: float) -> None:
        self._database = database
        self._max_failures = max_failures
        self._lockout_s = lockout_s

    async def locked_for_s(self, name: str, address: str) -> float:
        """Seconds until this caller may try this name again; 0: now."""
        limits = self._limits(name, address)
        now = time.time()
        locked_s, in_future = await self._database.read(lambda connection: self._locked(connection, limits, now))
        if in_future:
            await self._database.write(lambda connection: _clamp_to(connection, now))
        return locked_s

    async def settle(self, name: str, address: str, *, succeeded: bool) -> float:
        """Count an attempt that was checked. When others locked the caller out meanwhile, it is as if it never was.

        Returns:
            Seconds of the lock that forbids to tell the caller how it went; 0: none.
        """
        limits = self._limits(name, address)
        now = time.time()

        def change(connection: Connection) -> float:
            _clamp_to(connection, now)
            connection.execute(delete(login_failures).where(login_failures.c.last_failure_at <= now - self._lockout_s))
            locked_s, _ = self._locked(connection, limits, now)
            if locked_s:
                return locked_s
            if succeeded:
                forgiven = [subject for subject in limits if not subject.startswith("*")]
                connection.execute(delete(login_failures).where(login_failures.c.subject.in_(forgiven)))
            else:
                for subject in limits:
                    _count(connection, subject, now)
            return 0.0

        return await self._database.write(change)

    async def clear(self, name: str) -> None:
        """Unlock a name everywhere: an admin has given it a new password."""
        where = login_failures.c.subject.startswith(_hash_name(name) + " ")
        await self._database.write_rows([(delete(login_failures).where(where), {})])

    def _limits(self, name: str, address: str) -> dict[str, int]:
        who, where = _hash_name(name), _network(address)
        wide = self._max_failures * WIDE_FACTOR
        return {f"{who} {where}": self._max_failures, f"{who} *": wide, f"* {where}": wide}

    def _locked(self, connection: Connection, limits: dict[str, int], now: float) -> tuple[float, bool]:
        rows = connection.execute(select(login_failures).where(login_failures.c.subject.in_(limits))).all()
        ends = [min(row.last_failure_at, now) + self._lockout_s for row in rows if row.failures >= limits[row.subject]]
        return max(0.0, max(ends, default=now) - now), any(row.last_failure_at > now for row in rows)


def _count(connection: Connection, subject: str, now: float) -> None:
    row = login_failures.c.subject == subject
    more = update(login_failures).where(row).values(failures=login_failures.c.failures + 1, last_failure_at=now)
    if connection.execute(more).rowcount == 0:
        connection.execute(insert(login_failures).values(subject=subject, failures=1, last_failure_at=now))


def _clamp_to(connection: Connection, now: float) -> None:
    future = login_failures.c.last_failure_at > now
    connection.execute(update(login_failures).where(future).values(last_failure_at=now))


def _hash_name(name: str) -> str:
    return hashlib.sha256(name.lower().encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _network(address: str) -> str:
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "local"  # a Unix socket has no address
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ip.ipv4_mapped or ipaddress.ip_network((ip, 64), strict=False))
    return str(ip)
