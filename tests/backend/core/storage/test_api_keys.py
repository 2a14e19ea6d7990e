import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from backend.core.errors import Conflict, NotFound
from backend.core.storage import api_keys as module
from backend.core.storage.api_keys import find_owner, looks_like_a_key
from tests.support.accounts import OpenedAccounts, opened_accounts


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[OpenedAccounts]:
    async with opened_accounts(tmp_path) as accounts:
        await accounts.users.create("alice", "pw", "user")
        await accounts.users.create("bob", "pw", "user")
        yield accounts


async def test_a_key_is_random_shown_once_and_stored_as_its_hash(opened: OpenedAccounts, tmp_path: Path) -> None:
    key, secret = await opened.api_keys.create("alice", "laptop")
    assert re.fullmatch(r"sk-[A-Za-z0-9_-]{48}", secret)
    assert looks_like_a_key(secret)
    assert secret.endswith(key.hint)
    assert await opened.api_keys.list("alice") == [key]
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.name.startswith("app.db"))
    assert b"laptop" in stored
    assert secret.encode() not in stored
    assert secret[3:].encode() not in stored


async def test_a_key_tells_its_owner(opened: OpenedAccounts) -> None:
    key, secret = await opened.api_keys.create("alice", "laptop")
    owner = await opened.database.read(lambda connection: find_owner(connection, secret))
    assert owner is not None
    assert (owner.key_id, owner.username, owner.role, owner.disabled) == (key.id, "alice", "user", False)
    assert await opened.database.read(lambda connection: find_owner(connection, secret[:-1] + "!")) is None


async def test_keys_are_listed_newest_first_and_only_ones_own(opened: OpenedAccounts) -> None:
    for name in ("one", "two"):
        await opened.api_keys.create("alice", name)
    await opened.api_keys.create("bob", "three")
    assert [key.name for key in await opened.api_keys.list("alice")] == ["two", "one"]


async def test_somebody_elses_key_cannot_be_deleted(opened: OpenedAccounts) -> None:
    key, _ = await opened.api_keys.create("alice", "laptop")
    with pytest.raises(NotFound):
        await opened.api_keys.delete("bob", key.id)
    await opened.api_keys.delete("alice", key.id)
    assert await opened.api_keys.list("alice") == []
    with pytest.raises(NotFound):
        await opened.api_keys.delete("alice", key.id)


async def test_keys_are_bounded(opened: OpenedAccounts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KEYS_PER_USER", 2)
    for name in ("one", "two"):
        await opened.api_keys.create("alice", name)
    with pytest.raises(Conflict, match="Delete one"):
        await opened.api_keys.create("alice", "three")
    await opened.api_keys.create("bob", "one")


async def test_the_use_of_a_key_is_noted(opened: OpenedAccounts) -> None:
    key, _ = await opened.api_keys.create("alice", "laptop")
    await opened.api_keys.touch(key.id, 1234.0)
    assert (await opened.api_keys.list("alice"))[0].last_used_at == 1234.0
