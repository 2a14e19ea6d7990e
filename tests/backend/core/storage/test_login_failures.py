import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import select

from backend.core.storage import login_failures as module
from backend.core.storage.database import Database
from backend.core.storage.login_failures import WIDE_FACTOR, LoginFailures
from backend.core.storage.tables import login_failures

HERE = "192.0.2.1"
LOCKOUT_S = 300.0


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = await asyncio.to_thread(Database, f"sqlite:///{tmp_path / 'app.db'}")
    await database.open()
    yield database
    await database.close()


@pytest.fixture
def failures(database: Database, clock: Clock) -> LoginFailures:
    return LoginFailures(database, max_failures=3, lockout_s=LOCKOUT_S)


async def fail(failures: LoginFailures, name: str = "alice", address: str = HERE, times: int = 1) -> float:
    locked_s = 0.0
    for _ in range(times):
        locked_s = await failures.settle(name, address, succeeded=False)
    return locked_s


async def test_the_last_allowed_failure_locks_the_name_for_its_caller(failures: LoginFailures) -> None:
    await fail(failures, times=2)
    assert await failures.locked_for_s("alice", HERE) == 0
    await fail(failures)
    assert await failures.locked_for_s("alice", HERE) == LOCKOUT_S
    assert await failures.locked_for_s("ALICE", HERE) == LOCKOUT_S


async def test_others_are_not_locked_out_with_them(failures: LoginFailures) -> None:
    await fail(failures, times=3)
    assert await failures.locked_for_s("alice", "192.0.2.2") == 0
    assert await failures.locked_for_s("bob", HERE) == 0


async def test_a_lock_ends(failures: LoginFailures, clock: Clock) -> None:
    await fail(failures, times=3)
    clock.now += LOCKOUT_S - 1
    assert await failures.locked_for_s("alice", HERE) == pytest.approx(1)
    clock.now += 1
    assert await failures.locked_for_s("alice", HERE) == 0
    assert await fail(failures) == 0


async def test_success_clears_what_the_name_has(failures: LoginFailures) -> None:
    await fail(failures, times=2)
    assert await failures.settle("alice", HERE, succeeded=True) == 0
    await fail(failures, times=2)
    assert await failures.locked_for_s("alice", HERE) == 0


async def test_an_attempt_that_was_under_way_when_the_lock_fell_is_not_told_how_it_went(
    failures: LoginFailures,
) -> None:
    await fail(failures, times=3)
    assert await failures.settle("alice", HERE, succeeded=True) == LOCKOUT_S
    assert await failures.settle("alice", HERE, succeeded=False) == LOCKOUT_S
    assert await failures.locked_for_s("alice", HERE) == LOCKOUT_S


async def test_of_many_attempts_at_once_no_more_than_allowed_are_told(failures: LoginFailures) -> None:
    told = await asyncio.gather(*(fail(failures) for _ in range(20)))
    assert sum(locked_s == 0 for locked_s in told) == 3


async def test_a_name_is_locked_for_all_when_many_addresses_try_it(failures: LoginFailures) -> None:
    for number in range(WIDE_FACTOR):
        assert await failures.locked_for_s("alice", "198.51.100.99") == 0
        await fail(failures, address=f"198.51.100.{number}", times=3)
    assert await failures.locked_for_s("alice", "198.51.100.99") == LOCKOUT_S
    assert await failures.locked_for_s("bob", "198.51.100.99") == 0


async def test_an_address_is_locked_when_it_tries_many_names_and_its_own_success_does_not_help(
    failures: LoginFailures,
) -> None:
    for number in range(WIDE_FACTOR * 3):
        assert await failures.locked_for_s("mallory", HERE) == 0
        await fail(failures, name=f"user{number}")
        await failures.settle("mallory", HERE, succeeded=True)
    assert await failures.locked_for_s("mallory", HERE) == LOCKOUT_S


async def test_one_address_alone_does_not_lock_a_name_for_everybody(failures: LoginFailures, clock: Clock) -> None:
    for _ in range(WIDE_FACTOR):
        await fail(failures, times=10)
        clock.now += LOCKOUT_S
    assert await failures.locked_for_s("alice", "192.0.2.2") == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("", "unix:", True),
    ],
)
async def test_an_ipv6_caller_is_its_network(failures: LoginFailures, one: str, other: str, same: bool) -> None:
    await fail(failures, address=one, times=3)
    assert (await failures.locked_for_s("alice", other) > 0) == same


async def test_the_count_survives_a_restart(database: Database, failures: LoginFailures) -> None:
    await fail(failures, times=3)
    assert await LoginFailures(database, max_failures=3, lockout_s=LOCKOUT_S).locked_for_s("alice", HERE) > 0


async def test_a_lock_does_not_outlive_its_time_when_the_clock_goes_back(failures: LoginFailures, clock: Clock) -> None:
    await fail(failures, times=3)
    clock.now -= 86_400
    assert await failures.locked_for_s("alice", HERE) == LOCKOUT_S
    clock.now += LOCKOUT_S
    assert await failures.locked_for_s("alice", HERE) == 0


async def test_a_count_survives_a_clock_that_goes_back(failures: LoginFailures, clock: Clock) -> None:
    await fail(failures, times=2)
    clock.now -= 86_400
    await fail(failures)
    assert await failures.locked_for_s("alice", HERE) == LOCKOUT_S


async def test_old_rows_are_cleaned_and_names_are_not_kept_as_text(
    database: Database, failures: LoginFailures, clock: Clock
) -> None:
    await fail(failures, name="my-password-typed-into-the-wrong-box")
    clock.now += LOCKOUT_S
    await fail(failures, name="bob")
    rows = await database.read(lambda connection: connection.execute(select(login_failures)).all())
    assert len(rows) == 3
    assert not any("bob" in row.subject or "password" in row.subject for row in rows)


async def test_an_admin_can_unlock_a_name_everywhere(failures: LoginFailures) -> None:
    for number in range(WIDE_FACTOR):
        await fail(failures, address=f"198.51.100.{number}", times=3)
    await failures.clear("Alice")
    assert await failures.locked_for_s("alice", "198.51.100.0") == 0
    assert await failures.locked_for_s("alice", HERE) == 0


@pytest.mark.parametrize("name", ["", "x" * 100_000, "a%", "a_", "\0", "\ud800", "é"])
async def test_any_text_can_be_tried_as_a_name(failures: LoginFailures, name: str) -> None:
    await fail(failures, name=name, times=3)
    assert await failures.locked_for_s(name, HERE) > 0
    assert await failures.locked_for_s("alice", HERE) == 0
