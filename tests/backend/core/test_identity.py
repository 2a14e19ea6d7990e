import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from statistics import median

import pytest
from sqlalchemy import event

from backend.core import identity as module
from backend.core.errors import ApiError, Forbidden, TooManyRequests, Unauthorized
from backend.core.identity import Principal, ToolCaller
from backend.core.storage.tables import users
from backend.utils.shared_stamp import REREAD_S
from tests.support.accounts import SECRET, OpenedAccounts, opened_accounts

HERE = "192.0.2.1"


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[OpenedAccounts]:
    async with opened_accounts(tmp_path) as accounts:
        await accounts.users.create("root", "root's password", "admin")
        await accounts.users.create("alice", "alice's password", "user")
        yield accounts


async def token_of(opened: OpenedAccounts, username: str = "alice") -> str:
    return opened.authenticator.make_token(await opened.users.get(username))


async def key_of(opened: OpenedAccounts, username: str = "alice") -> str:
    return (await opened.api_keys.create(username, "laptop"))[1]


def count_reads(opened: OpenedAccounts) -> list[str]:
    statements: list[str] = []
    engine = opened.database._read_engine
    event.listen(engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    return statements


async def test_a_token_and_a_key_tell_who_calls(opened: OpenedAccounts) -> None:
    key, secret = await opened.api_keys.create("alice", "laptop")
    assert await opened.authenticator.authenticate(await token_of(opened)) == Principal("alice", "user", None)
    assert await opened.authenticator.authenticate(secret) == Principal("alice", "user", key.id)
    assert (await opened.authenticator.authenticate(await token_of(opened, "root"))).is_admin


@pytest.mark.parametrize("make", [token_of, key_of])
async def test_a_second_request_asks_the_database_nothing(opened: OpenedAccounts, make) -> None:
    credential = await make(opened)
    await opened.authenticator.authenticate(credential)
    await opened.authenticator.close()
    statements = count_reads(opened)
    for _ in range(10):
        await opened.authenticator.authenticate(credential)
    assert statements == []


async def test_a_remembered_caller_costs_microseconds(opened: OpenedAccounts) -> None:
    token = await token_of(opened)
    times = []
    for _ in range(2000):
        started = time.perf_counter()
        await opened.authenticator.authenticate(token)
        times.append(time.perf_counter() - started)
    assert median(times) < 50e-6


@pytest.mark.parametrize(
    "credential",
    ["", "x", "sk-", "sk-" + "x" * 47, "sk-" + "x" * 49, "sk-" + "é" * 48, "sk-" + "x" * 47 + "\n", "a.b.c", "\ud800"],
)
async def test_what_is_neither_token_nor_key_is_malformed_without_a_look_into_the_database(
    opened: OpenedAccounts, credential: str
) -> None:
    statements = count_reads(opened)
    with pytest.raises(Unauthorized, match="not one of this server"):
        await opened.authenticator.authenticate(credential)
    assert statements == []


async def test_a_key_that_was_never_made_is_refused(opened: OpenedAccounts) -> None:
    with pytest.raises(Unauthorized, match="revoked"):
        await opened.authenticator.authenticate("sk-" + "x" * 48)


async def disable(opened: OpenedAccounts) -> None:
    await opened.users.update("alice", disabled=True)


async def delete(opened: OpenedAccounts) -> None:
    async def keep_data(username: str) -> None:
        """Alice owns nothing."""

    await opened.users.delete("alice", delete_data=keep_data)


async def change_password(opened: OpenedAccounts) -> None:
    await opened.users.update("alice", password="another")


async def delete_key(opened: OpenedAccounts) -> None:
    await opened.api_keys.delete("alice", (await opened.api_keys.list("alice"))[0].id)


@pytest.mark.parametrize(
    ("make", "end"),
    [
        (token_of, disable),
        (token_of, delete),
        (token_of, change_password),
        (key_of, disable),
        (key_of, delete),
        (key_of, delete_key),
    ],
)
async def test_what_ends_a_credential_ends_it_for_the_next_request(opened: OpenedAccounts, make, end) -> None:
    credential, roots = await make(opened), await token_of(opened, "root")
    await opened.authenticator.authenticate(credential)
    await opened.authenticator.authenticate(roots)
    await end(opened)
    with pytest.raises(Unauthorized, match="revoked") as refused:
        await opened.authenticator.authenticate(credential)
    assert refused.value.code == "token_revoked"
    assert (await opened.authenticator.authenticate(roots)).username == "root"


async def test_another_process_on_the_same_data_ends_a_credential_for_the_next_request(opened: OpenedAccounts) -> None:
    token, key = await token_of(opened), await key_of(opened)
    for credential in (token, key):
        await opened.authenticator.authenticate(credential)
    code = (
        "import asyncio, pathlib, sys\n"
        "from tests.support.accounts import opened_accounts\n"
        "async def main():\n"
        "    async with opened_accounts(pathlib.Path(sys.argv[1])) as opened:\n"
        "        await opened.users.update('alice', disabled=True)\n"
        "asyncio.run(main())\n"
    )
    other = await asyncio.create_subprocess_exec(sys.executable, "-c", code, str(opened.settings.DATA_DIR))
    async with asyncio.timeout(30):
        assert await other.wait() == 0
    for credential in (token, key):
        with pytest.raises(Unauthorized, match="revoked"):
            await opened.authenticator.authenticate(credential)


async def test_a_change_behind_the_stamps_back_is_seen_after_the_recheck(
    opened: OpenedAccounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RECHECK_S", 0.2)
    token = await token_of(opened)
    await opened.authenticator.authenticate(token)
    # As another machine with the same database would.
    await opened.database.write_rows([(users.update().values(disabled=True), {})])
    assert (await opened.authenticator.authenticate(token)).username == "alice"
    await asyncio.sleep(0.25)
    with pytest.raises(Unauthorized, match="revoked"):
        await opened.authenticator.authenticate(token)


async def test_a_stamp_file_that_was_replaced_is_followed_after_the_recheck(
    opened: OpenedAccounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RECHECK_S", 0.1)
    token = await token_of(opened)
    await opened.authenticator.authenticate(token)
    path = opened.settings.DATA_DIR / module.STAMP_FILE
    path.unlink()
    path.write_bytes(os.urandom(8))
    await asyncio.sleep(0.15)
    await opened.authenticator.authenticate(token)
    monkeypatch.setattr(module, "RECHECK_S", 1000)
    await opened.authenticator.authenticate(token)
    await opened.authenticator.authenticate(token)
    async with opened_accounts(opened.settings.DATA_DIR) as other_process:
        await other_process.users.update("alice", disabled=True)
    await asyncio.sleep(REREAD_S)
    with pytest.raises(Unauthorized):
        await opened.authenticator.authenticate(token)


async def test_a_role_is_the_databases_and_changes_with_the_next_request(opened: OpenedAccounts) -> None:
    token = await token_of(opened)
    assert not (await opened.authenticator.authenticate(token)).is_admin
    await opened.users.update("alice", role="admin")
    assert (await opened.authenticator.authenticate(token)).is_admin
    await opened.users.update("alice", role="user")
    assert not (await opened.authenticator.authenticate(token)).is_admin


async def test_enabling_brings_keys_back_and_not_tokens(opened: OpenedAccounts) -> None:
    token, key = await token_of(opened), await key_of(opened)
    await opened.users.update("alice", disabled=True)
    await opened.users.update("alice", disabled=False)
    assert (await opened.authenticator.authenticate(key)).username == "alice"
    with pytest.raises(Unauthorized):
        await opened.authenticator.authenticate(token)


async def test_a_remembered_token_expires_all_the_same(tmp_path: Path) -> None:
    async with opened_accounts(tmp_path, JWT_EXPIRATION_HOURS=1 / 3600) as opened:
        await opened.users.create("alice", "pw", "user")
        token = await token_of(opened)
        await opened.authenticator.authenticate(token)
        await asyncio.sleep(1.1)
        with pytest.raises(Unauthorized, match="expired") as refused:
            await opened.authenticator.authenticate(token)
        assert refused.value.code == "token_expired"


async def test_what_is_remembered_is_bounded(opened: OpenedAccounts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REMEMBERED", 3)
    tokens = [await token_of(opened) for _ in range(5)]
    for token in tokens:
        await opened.authenticator.authenticate(token)
        await opened.authenticator.authenticate(tokens[0])
    assert len(opened.authenticator._entries) == 3
    statements = count_reads(opened)
    await opened.authenticator.authenticate(tokens[0])  # the one in use stayed
    assert statements == []
    await opened.authenticator.authenticate(tokens[1])
    assert statements


async def test_another_secret_makes_every_token_malformed_and_leaves_keys(tmp_path: Path) -> None:
    async with opened_accounts(tmp_path) as opened:
        await opened.users.create("alice", "pw", "user")
        token, key = await token_of(opened), await key_of(opened)
    async with opened_accounts(tmp_path, secret=SECRET + "!") as opened:
        with pytest.raises(Unauthorized, match="not one of this server"):
            await opened.authenticator.authenticate(token)
        assert (await opened.authenticator.authenticate(key)).username == "alice"


async def test_the_use_of_a_key_is_noted_off_the_request_and_at_most_once_a_minute(
    opened: OpenedAccounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RECHECK_S", 0.0)
    key = await key_of(opened)
    await opened.authenticator.authenticate(key)
    await opened.authenticator.close()
    first = (await opened.api_keys.list("alice"))[0].last_used_at
    assert first == pytest.approx(time.time(), abs=10)
    await opened.authenticator.authenticate(key)
    await opened.authenticator.close()
    assert (await opened.api_keys.list("alice"))[0].last_used_at == first
    monkeypatch.setattr(module, "KEY_USE_GRAIN_S", 0.0)
    await opened.authenticator.authenticate(key)
    await opened.authenticator.close()
    assert (await opened.api_keys.list("alice"))[0].last_used_at > first


async def test_a_key_works_while_its_use_cannot_be_noted(
    opened: OpenedAccounts, caplog: pytest.LogCaptureFixture
) -> None:
    key = await key_of(opened)
    await opened.database.write(lambda connection: connection.exec_driver_sql("PRAGMA query_only=ON") and None)
    assert (await opened.authenticator.authenticate(key)).username == "alice"
    await opened.authenticator.close()
    assert "Cannot note the use" in caplog.text
    assert key not in caplog.text


async def test_a_service_token_stands_for_its_user_in_one_session_and_only_at_the_tools(opened: OpenedAccounts) -> None:
    token = opened.authenticator.make_service_token("alice", "session-1", timeout_s=120)
    for _ in range(2):  # the second time it is remembered
        with pytest.raises(Unauthorized, match="not one of this server"):
            await opened.authenticator.authenticate(token)
        assert await opened.authenticator.authenticate_tool_caller(token) == ToolCaller(
            Principal("alice", "user"), "session-1"
        )


@pytest.mark.parametrize("make", [token_of, key_of])
async def test_a_user_may_call_tools_and_names_no_session_by_that(opened: OpenedAccounts, make) -> None:
    caller = await opened.authenticator.authenticate_tool_caller(await make(opened))
    assert (caller.principal.username, caller.session_id) == ("alice", None)


@pytest.mark.parametrize("end", [disable, delete])
async def test_a_service_token_ends_with_its_user(opened: OpenedAccounts, end) -> None:
    token = opened.authenticator.make_service_token("alice", "session-1", timeout_s=120)
    await opened.authenticator.authenticate_tool_caller(token)
    await end(opened)
    with pytest.raises(Unauthorized):
        await opened.authenticator.authenticate_tool_caller(token)


async def test_signing_in_takes_the_right_password_and_the_name_in_any_case(opened: OpenedAccounts) -> None:
    assert (await opened.authenticator.sign_in("ALICE", "alice's password", HERE)).username == "alice"


@pytest.mark.parametrize(
    ("username", "password"),
    [("alice", "wrong"), ("nobody", "wrong"), ("alice", ""), ("", ""), ("alice", "x" * 99), ("al ice", "wrong")],
)
async def test_a_wrong_name_and_a_wrong_password_answer_alike(
    opened: OpenedAccounts, username: str, password: str
) -> None:
    with pytest.raises(Unauthorized) as refused:
        await opened.authenticator.sign_in(username, password, HERE)
    assert refused.value.body()["error"] == {
        "message": "The username or the password is wrong.",
        "type": "authentication_error",
        "param": None,
        "code": "wrong_credentials",
    }


async def test_a_wrong_name_and_a_wrong_password_take_the_same_time(tmp_path: Path) -> None:
    async with opened_accounts(tmp_path, BCRYPT_ROUNDS=9, LOGIN_MAX_FAILURES=100) as opened:
        await opened.users.create("alice", "pw", "user")
        times: dict[str, list[float]] = {"alice": [], "nobody": [], "no name at all": []}
        for _ in range(9):
            for name, taken in times.items():
                started = time.process_time()  # of all threads; what else the machine does is left out
                with pytest.raises(Unauthorized):
                    await opened.authenticator.sign_in(name, "wrong", HERE)
                taken.append(time.process_time() - started)
    medians = [median(taken) for taken in times.values()]
    assert max(medians) / min(medians) < 1.5


async def test_a_disabled_account_is_told_so_only_with_the_right_password(opened: OpenedAccounts) -> None:
    await disable(opened)
    with pytest.raises(Unauthorized):
        await opened.authenticator.sign_in("alice", "wrong", HERE)
    with pytest.raises(Forbidden, match="disabled"):
        await opened.authenticator.sign_in("alice", "alice's password", HERE)


async def test_a_locked_out_caller_is_refused_with_the_right_password_too(opened: OpenedAccounts) -> None:
    for _ in range(opened.settings.LOGIN_MAX_FAILURES):
        with pytest.raises(Unauthorized):
            await opened.authenticator.sign_in("alice", "wrong", HERE)
    with pytest.raises(TooManyRequests) as refused:
        await opened.authenticator.sign_in("alice", "alice's password", HERE)
    assert 0 < int(refused.value.headers["Retry-After"]) <= opened.settings.LOGIN_LOCKOUT_S
    assert (await opened.authenticator.sign_in("alice", "alice's password", "192.0.2.2")).username == "alice"
    await opened.authenticator.unlock("alice")
    assert (await opened.authenticator.sign_in("alice", "alice's password", HERE)).username == "alice"


async def test_guesses_sent_at_once_are_no_more_than_guesses_one_by_one(opened: OpenedAccounts) -> None:
    guesses = [f"guess {number}" for number in range(20)] + ["alice's password"]
    outcomes = await asyncio.gather(
        *(opened.authenticator.sign_in("alice", guess, HERE) for guess in guesses), return_exceptions=True
    )
    told = [outcome for outcome in outcomes if not isinstance(outcome, TooManyRequests)]
    assert len(told) == opened.settings.LOGIN_MAX_FAILURES
    assert all(isinstance(outcome, Unauthorized) for outcome in told)


async def test_many_right_sign_ins_at_once_lock_nobody_out(opened: OpenedAccounts) -> None:
    signed_in = await asyncio.gather(
        *(opened.authenticator.sign_in("alice", "alice's password", HERE) for _ in range(20))
    )
    assert {user.username for user in signed_in} == {"alice"}


async def test_a_new_cost_is_taken_over_at_the_next_sign_in(tmp_path: Path) -> None:
    async with opened_accounts(tmp_path) as opened:
        await opened.users.create("alice", "pw", "user")
    async with opened_accounts(tmp_path, BCRYPT_ROUNDS=5) as opened:
        token = opened.authenticator.make_token(await opened.authenticator.sign_in("alice", "pw", HERE))
        assert (await opened.users.get("alice")).password_hash.startswith("$2b$05$")
        assert (await opened.authenticator.authenticate(token)).username == "alice"
        assert (await opened.authenticator.sign_in("alice", "pw", HERE)).username == "alice"


async def test_signing_in_does_not_hold_up_the_event_loop(tmp_path: Path) -> None:
    async with opened_accounts(tmp_path, BCRYPT_ROUNDS=11) as opened:
        await opened.users.create("alice", "pw", "user")
        started = time.perf_counter()
        await opened.authenticator.sign_in("alice", "pw", HERE)
        one_s = time.perf_counter() - started
        logins = asyncio.gather(*(opened.authenticator.sign_in("alice", "pw", HERE) for _ in range(5)))
        lags = []
        while not logins.done():
            before = time.perf_counter()
            await asyncio.sleep(0.002)
            lags.append(time.perf_counter() - before - 0.002)
        await logins
    assert len(lags) > 20
    assert median(lags) < one_s / 10
    assert max(lags) < one_s


async def test_an_error_about_a_credential_never_holds_it(opened: OpenedAccounts) -> None:
    for credential in ("sk-" + "x" * 48, await token_of(opened) + "x"):
        with pytest.raises(ApiError) as refused:
            await opened.authenticator.authenticate(credential)
        assert credential[5:20] not in str(refused.value)
