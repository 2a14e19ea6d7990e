"""Gathering counts, writing them in batches, and knowing what was spent today."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from backend.core import usage as module
from backend.core.events import Usage
from backend.core.storage.usage import Subject
from backend.core.usage import Asker, UsageLedger, asker_var, open_usage_ledger
from tests.support.accounts import OpenedAccounts, opened_accounts

ALICE = Subject("user", "alice")


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[OpenedAccounts]:
    async with opened_accounts(tmp_path) as opened:
        await opened.users.create("alice", "correct horse", "user")
        yield opened


def rows(data_dir: Path) -> list[tuple[object, ...]]:
    with sqlite3.connect(data_dir / "app.db") as database:
        return database.execute("SELECT username, key_id, requests, prompt_tokens FROM token_usage").fetchall()


def spend(ledger: UsageLedger, tokens: int, *, key: str | None = None) -> None:
    asker_var.set(Asker("alice", key))
    ledger.count("alice", "qwen", "chat", Usage(tokens, 0))


async def test_counts_of_one_kind_are_one_row_however_often_they_are_written(
    opened: OpenedAccounts, tmp_path: Path
) -> None:
    async with open_usage_ledger(opened.database) as ledger:
        for _ in range(3):
            for _ in range(100):
                spend(ledger, 2)
            await ledger.flush()
        spend(ledger, 1)
    assert rows(tmp_path) == [("alice", "", 301, 601)]


async def test_counts_are_written_within_about_a_second_by_themselves(opened: OpenedAccounts, tmp_path: Path) -> None:
    async with open_usage_ledger(opened.database) as ledger:
        spend(ledger, 2)
        async with asyncio.timeout(10):
            while not rows(tmp_path):
                await asyncio.sleep(0.05)


async def test_what_a_broken_disk_does_not_take_is_written_later(opened: OpenedAccounts, tmp_path: Path) -> None:
    async with open_usage_ledger(opened.database) as ledger:
        spend(ledger, 2)
        with sqlite3.connect(tmp_path / "app.db") as database:
            database.execute("ALTER TABLE token_usage RENAME TO away")
        await ledger.flush()
        spend(ledger, 3)
        with sqlite3.connect(tmp_path / "app.db") as database:
            database.execute("ALTER TABLE away RENAME TO token_usage")
    assert rows(tmp_path) == [("alice", "", 2, 5)]


async def test_what_was_spent_is_exact_between_writes_and_over_processes(
    opened: OpenedAccounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FLUSH_EVERY_S", 0.01)
    monkeypatch.setattr(module, "REREAD_S", 0.02)
    async with open_usage_ledger(opened.database) as ledger, open_usage_ledger(opened.database) as other:
        assert await ledger.spent_today(ALICE) == 0
        for step in range(1, 200):
            spend(ledger, 1)
            assert await ledger.spent_today(ALICE) == step
            await asyncio.sleep(0.001)
        spend(other, 1000)
        async with asyncio.timeout(10):
            while await ledger.spent_today(ALICE) != 1199:
                await asyncio.sleep(0.01)


async def test_a_key_has_a_sum_of_its_own(opened: OpenedAccounts) -> None:
    async with open_usage_ledger(opened.database) as ledger:
        spend(ledger, 5, key="key_1")
        spend(ledger, 7)
        assert await ledger.spent_today(Subject("key", "key_1")) == 5
        assert await ledger.spent_today(ALICE) == 12


async def test_a_new_day_begins_with_nothing_spent(opened: OpenedAccounts, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_usage_ledger(opened.database) as ledger:
        spend(ledger, 5)
        assert await ledger.spent_today(ALICE) == 5
        monkeypatch.setattr(module, "_today", lambda: "2999-01-01")
        assert await ledger.spent_today(ALICE) == 0
        spend(ledger, 2)
        assert await ledger.spent_today(ALICE) == 2


async def test_counts_that_wait_are_bounded(opened: OpenedAccounts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PENDING", 2)
    ledger = UsageLedger(opened.database)
    for model in "abc":
        ledger.count("alice", model, "chat", Usage(1, 1))
    assert len(ledger._pending) == 2
