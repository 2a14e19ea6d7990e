import asyncio
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import exc, func, insert, select

from backend.core.errors import StorageFailed, Unavailable
from backend.core.storage import database as module
from backend.core.storage.database import Database
from backend.core.storage.tables import login_failures, sessions, users

COUNT = insert(login_failures)  # a module-level statement, as callers are to use


def failure(subject: str) -> dict[str, object]:
    return {"subject": subject, "failures": 1, "last_failure_at": 0.0}


async def subjects(database: Database) -> list[str]:
    query = select(login_failures.c.subject).order_by(login_failures.c.subject)
    return await database.read(lambda connection: list(connection.execute(query).scalars()))


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = await asyncio.to_thread(Database, f"sqlite:///{tmp_path}/deep/app.db")
    await opened.open()
    yield opened
    await opened.close()


async def test_what_is_written_can_be_read_when_the_write_returns(database: Database) -> None:
    await database.write_rows([(COUNT, failure("a"))])
    assert await database.write(lambda connection: connection.execute(COUNT, failure("b")).rowcount) == 1
    assert await subjects(database) == ["a", "b"]


async def test_many_writes_at_once_are_all_kept(database: Database) -> None:
    names = [f"{number:04}" for number in range(500)]
    await asyncio.gather(*(database.write_rows([(COUNT, failure(name))]) for name in names))
    assert await subjects(database) == names


async def test_of_writes_that_share_a_transaction_only_the_wrong_one_fails(database: Database) -> None:
    await database.write_rows([(COUNT, failure("taken"))])
    held = threading.Event()
    blocker = asyncio.create_task(database.write(lambda connection: held.wait(5)))
    names = ["a", "taken", "b", "c"]
    writes = [asyncio.create_task(database.write_rows([(COUNT, failure(name))])) for name in names]
    await asyncio.sleep(0.05)  # all of them wait behind the first
    held.set()
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    await blocker
    assert [type(outcome) for outcome in outcomes] == [type(None), exc.IntegrityError, type(None), type(None)]
    assert await subjects(database) == ["a", "b", "c", "taken"]


async def test_preparing_runs_exactly_once_also_when_a_neighbour_fails(database: Database) -> None:
    await database.write_rows([(COUNT, failure("taken"))])
    held = threading.Event()
    blocker = asyncio.create_task(database.write(lambda connection: held.wait(5)))
    prepared: list[str] = []
    writes = [
        asyncio.create_task(
            database.write_rows([(COUNT, failure(name))], prepare=lambda name=name: prepared.append(name))  # type: ignore[misc]
        )
        for name in ("a", "taken", "b")
    ]
    await asyncio.sleep(0.05)
    held.set()
    await asyncio.gather(*writes, blocker, return_exceptions=True)
    assert prepared == ["a", "taken", "b"]


async def test_rows_are_not_written_when_preparing_them_fails(database: Database) -> None:
    def fail() -> None:
        raise FileNotFoundError("gone")

    with pytest.raises(FileNotFoundError):
        await database.write_rows([(COUNT, failure("a"))], prepare=fail)
    assert await subjects(database) == []


async def test_rows_may_be_filled_in_while_they_are_prepared(database: Database) -> None:
    rows: list[module.Row] = []
    await database.write_rows(rows, prepare=lambda: rows.append((COUNT, failure("late"))))
    assert await subjects(database) == ["late"]


async def test_a_caller_that_goes_away_does_not_undo_its_write(database: Database) -> None:
    held = threading.Event()
    blocker = asyncio.create_task(database.write(lambda connection: held.wait(5)))
    write = asyncio.create_task(database.write_rows([(COUNT, failure("a"))]))
    await asyncio.sleep(0.01)
    write.cancel()
    held.set()
    await blocker
    with pytest.raises(asyncio.CancelledError):
        await write
    await database.write_rows([(COUNT, failure("b"))])
    assert await subjects(database) == ["a", "b"]


async def test_too_many_waiting_writes_are_told_to_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING_WRITES", 2)
    database = await asyncio.to_thread(Database, f"sqlite:///{tmp_path}/app.db")
    await database.open()
    held = threading.Event()
    blocker = asyncio.create_task(database.write(lambda connection: held.wait(5)))
    await asyncio.sleep(0.05)
    writes = [asyncio.create_task(database.write_rows([(COUNT, failure(str(number)))])) for number in range(3)]
    await asyncio.sleep(0.05)
    held.set()
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    await blocker
    assert [type(outcome) for outcome in outcomes] == [type(None), type(None), Unavailable]
    await database.close()


async def test_the_event_loop_runs_on_while_the_disk_is_waited_for(database: Database) -> None:
    write = asyncio.create_task(database.write(lambda connection: time.sleep(2)))
    longest = 0.0
    while not write.done():
        began = time.perf_counter()
        await asyncio.sleep(0.001)
        longest = max(longest, time.perf_counter() - began)
    assert longest < 1.5


async def test_closing_finishes_the_writes_that_were_accepted(tmp_path: Path) -> None:
    database = await asyncio.to_thread(Database, f"sqlite:///{tmp_path}/app.db")
    await database.open()
    writes = [asyncio.create_task(database.write_rows([(COUNT, failure(str(number)))])) for number in range(50)]
    await asyncio.sleep(0)
    await database.close()
    await asyncio.gather(*writes)
    with sqlite3.connect(tmp_path / "app.db") as connection:
        assert connection.execute("SELECT count(*) FROM login_failures").fetchone() == (50,)
    connection.close()


async def test_a_database_that_others_lock_for_too_long_is_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOCK_WAIT_S", 0.1)
    database = await asyncio.to_thread(Database, f"sqlite:///{tmp_path}/app.db")
    await database.open()
    other = await asyncio.to_thread(sqlite3.connect, tmp_path / "app.db", isolation_level=None, check_same_thread=False)
    await asyncio.to_thread(other.execute, "BEGIN IMMEDIATE")
    with pytest.raises(Unavailable):
        await database.write_rows([(COUNT, failure("a"))])
    assert await subjects(database) == []  # readers are not held up
    await asyncio.to_thread(other.execute, "COMMIT")
    await database.write_rows([(COUNT, failure("a"))])
    other.close()
    await database.close()


async def test_a_full_disk_is_an_error_with_a_name_and_the_database_goes_on(database: Database) -> None:
    limit = "PRAGMA max_page_count = {}"
    pages = await database.write(lambda connection: connection.exec_driver_sql("PRAGMA page_count").scalar())
    await database.write(lambda connection: connection.exec_driver_sql(limit.format(pages)))
    with pytest.raises(StorageFailed):
        await database.write_rows([(COUNT, failure("x" * 100_000))])
    await database.write(lambda connection: connection.exec_driver_sql(limit.format(100_000)))
    await database.write_rows([(COUNT, failure("a"))])
    assert await subjects(database) == ["a"]


WRITE_MANY = """
import asyncio, sys
from backend.core.storage.database import Database
from backend.core.storage.tables import login_failures
from sqlalchemy import insert
COUNT = insert(login_failures)
async def main():
    database = Database(sys.argv[1])
    await database.open()
    for round in range(20):
        names = [f"{sys.argv[2]}-{round}-{number}" for number in range(10)]
        rows = [(COUNT, {"subject": name, "failures": 1, "last_failure_at": 0}) for name in names]
        await asyncio.gather(*(database.write_rows([row]) for row in rows))
    await database.close()
asyncio.run(main())
"""


async def test_processes_that_open_and_write_one_database_together_lose_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/app.db"
    root = Path(__file__).parents[4]
    running = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", WRITE_MANY, url, name, cwd=root, stderr=subprocess.PIPE
        )
        for name in ("a", "b", "c")
    ]
    for process in running:
        _, errors = await asyncio.wait_for(process.communicate(), 40)
        assert process.returncode == 0, errors.decode()
    database = await asyncio.to_thread(Database, url)
    await database.open()
    count = select(func.count()).select_from(login_failures)
    assert await database.read(lambda connection: connection.execute(count).scalar()) == 600
    await database.close()


async def test_what_belongs_to_a_user_goes_with_the_user(database: Database) -> None:
    user = {"username": "alice", "password_hash": "x", "role": "user", "created_at": 0.0}
    session = {"id": "s", "username": "alice", "created_at": 0.0, "updated_at": 0.0}
    await database.write_rows([(insert(users), user), (insert(sessions), session)])
    with pytest.raises(exc.IntegrityError):
        await database.write_rows([(insert(sessions), session | {"id": "t", "username": "nobody"})])
    with pytest.raises(exc.IntegrityError):
        await database.write_rows([(insert(users), user | {"username": "ALICE"})])
    await database.write_rows([(users.delete(), {})])
    assert await database.read(lambda connection: connection.execute(select(sessions.c.id)).all()) == []
