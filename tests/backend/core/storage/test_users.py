import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from backend.core.errors import Conflict, NotFound, Unprocessable
from backend.core.storage.users import Users
from tests.support.accounts import OpenedAccounts, opened_accounts


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[OpenedAccounts]:
    async with opened_accounts(tmp_path) as accounts:
        yield accounts


@pytest.fixture
async def users(opened: OpenedAccounts) -> Users:
    return opened.users


async def keep_data(username: str) -> None:
    """Nothing is owned outside the table in these tests."""


async def test_an_account_is_found_by_its_name_whatever_the_case(users: Users) -> None:
    made = await users.create("Alice", "pw", "user")
    found = await users.find("aLICE")
    assert found == made
    assert found.username == "Alice"
    assert (found.role, found.disabled) == ("user", False)
    assert "pw" not in found.password_hash


@pytest.mark.parametrize("taken", ["alice", "ALICE"])
async def test_a_name_is_taken_whatever_its_case(users: Users, taken: str) -> None:
    await users.create("Alice", "pw", "user")
    with pytest.raises(Conflict, match="taken"):
        await users.create(taken, "pw", "admin")
    assert (await users.get("alice")).role == "user"


async def test_of_many_who_take_a_name_at_once_one_gets_it(users: Users) -> None:
    names = ["carol", "Carol", "CAROL", "carol"]
    made = await asyncio.gather(*(users.create(name, "pw", "user") for name in names), return_exceptions=True)
    assert sorted(type(each).__name__ for each in made) == ["Conflict", "Conflict", "Conflict", "User"]


@pytest.mark.parametrize("name", ["a", "0", "a" * 64, "alice.b_c-d@example.org", "A1"])
async def test_ordinary_names_are_allowed(users: Users, name: str) -> None:
    await users.create(name, "pw", "user")
    assert (await users.get(name)).username == name


@pytest.mark.parametrize(
    "name",
    ["", " ", "a" * 65, ".alice", "-alice", "_a", "@a", "al ice", "alice\n", "älice", "a/b", "..", "a\0", "a'--", "٣"],
)
async def test_other_names_are_refused_with_the_rule(users: Users, name: str) -> None:
    with pytest.raises(Unprocessable, match="1 to 64 characters") as refused:
        await users.create(name, "pw", "user")
    assert refused.value.param == "username"
    assert await users.find(name) is None


async def test_a_letter_that_only_looks_like_one_of_the_name_does_not_find_it(users: Users) -> None:
    await users.create("kate", "pw", "user")
    assert await users.find("\N{KELVIN SIGN}ate") is None


async def test_a_password_that_breaks_the_rules_makes_no_account(users: Users) -> None:
    with pytest.raises(Unprocessable, match="76 bytes"):
        await users.create("alice", "🔑" * 19, "user")
    assert await users.find("alice") is None


async def test_a_new_password_and_disabling_end_tokens_and_a_role_does_not(users: Users) -> None:
    version = (await users.create("alice", "pw", "user")).token_version
    assert (await users.update("alice", role="admin")).token_version == version
    assert (await users.update("alice", password="other")).token_version == version + 1
    await users.create("root", "pw", "admin")
    assert (await users.update("alice", disabled=True)).token_version == version + 2
    enabled = await users.update("alice", disabled=False)
    assert (enabled.token_version, enabled.disabled) == (version + 2, False)


async def test_an_account_made_again_does_not_take_over_the_tokens_of_the_deleted_one(users: Users) -> None:
    before = await users.create("alice", "pw", "user")
    await users.delete("alice", delete_data=keep_data)
    assert (await users.create("alice", "pw", "user")).token_version != before.token_version


async def test_the_same_password_hashed_anew_ends_no_token(users: Users) -> None:
    before = await users.create("alice", "pw", "user")
    await users.replace_hash(before, "pw")
    after = await users.get("alice")
    assert after.password_hash != before.password_hash
    assert after.token_version == before.token_version


async def test_a_late_rehash_does_not_undo_a_password_change(users: Users) -> None:
    before = await users.create("alice", "pw", "user")
    changed = await users.update("alice", password="other")
    await users.replace_hash(before, "pw")
    assert (await users.get("alice")).password_hash == changed.password_hash


async def test_nothing_given_changes_nothing(users: Users) -> None:
    before = await users.create("alice", "pw", "admin")
    assert await users.update("alice") == before


@pytest.mark.parametrize("change", [{"role": "user"}, {"disabled": True}])
async def test_the_last_enabled_admin_stays_one(users: Users, change: dict) -> None:
    await users.create("root", "pw", "admin")
    await users.create("alice", "pw", "user")
    await users.create("off", "pw", "admin")
    await users.update("off", disabled=True)
    with pytest.raises(Conflict, match="last admin"):
        await users.update("ROOT", **change)
    with pytest.raises(Conflict, match="last admin"):
        await users.delete("root", delete_data=keep_data)
    assert (await users.get("root")).token_version == (await users.update("root", role="admin")).token_version
    await users.update("off", disabled=False)
    await users.update("root", **change)


async def test_two_admins_who_demote_each_other_at_once_do_not_both_succeed(users: Users) -> None:
    await users.create("one", "pw", "admin")
    await users.create("two", "pw", "admin")
    outcomes = await asyncio.gather(
        users.update("one", role="user"), users.update("two", disabled=True), return_exceptions=True
    )
    assert sorted(type(each).__name__ for each in outcomes) == ["Conflict", "User"]


async def test_whoever_runs_the_command_line_may_touch_the_last_admin(users: Users) -> None:
    await users.create("root", "pw", "admin")
    await users.delete("root", delete_data=keep_data, keep_an_admin=False)
    assert await users.find("root") is None


async def test_deleting_takes_keys_and_data_along_and_disables_first(opened: OpenedAccounts) -> None:
    await opened.users.create("Alice", "pw", "user")
    await opened.api_keys.create("Alice", "laptop")
    seen: list[tuple[str, bool | None]] = []

    async def delete_data(username: str) -> None:
        user = await opened.users.find(username)
        seen.append((username, user and user.disabled))

    await opened.users.delete("alice", delete_data=delete_data)
    assert seen == [("Alice", True), ("Alice", None)]  # once more for what running requests made meanwhile
    assert await opened.users.find("alice") is None
    assert await opened.api_keys.list("Alice") == []


async def test_an_account_whose_data_cannot_be_deleted_is_disabled_and_can_be_deleted_again(users: Users) -> None:
    await users.create("alice", "pw", "user")

    async def fail(username: str) -> None:
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        await users.delete("alice", delete_data=fail)
    assert (await users.get("alice")).disabled
    await users.delete("alice", delete_data=keep_data)
    assert await users.find("alice") is None


async def test_an_unknown_name_is_not_found_and_what_was_asked_is_not_echoed_when_it_is_no_name(users: Users) -> None:
    with pytest.raises(NotFound, match="nobody"):
        await users.get("nobody")
    with pytest.raises(NotFound) as missing:
        await users.update("<script>", role="admin")
    assert "script" not in missing.value.message
    with pytest.raises(NotFound):
        await users.delete("nobody", delete_data=keep_data)


async def test_accounts_are_listed_by_name_a_page_at_a_time(users: Users) -> None:
    for name in ("carol", "Bob", "alice"):
        await users.create(name, "pw", "user")
    assert [user.username for user in await users.list(limit=2)] == ["alice", "Bob"]
    assert [user.username for user in await users.list(limit=2, offset=2)] == ["carol"]
