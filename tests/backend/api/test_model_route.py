"""Limits of users and keys, over a real socket."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.chat_server import admin_of, ask, chat_server, code_of, with_key
from tests.support.fake_ollama import FakeOllama
from tests.support.llm_script import Fault, Reply


@pytest.fixture
async def ollama() -> AsyncIterator[FakeOllama]:
    async with FakeOllama() as fake:
        yield fake


async def test_without_limits_nothing_is_refused_and_no_header_tells_of_any(tmp_path: Path, ollama: FakeOllama) -> None:
    async with chat_server(tmp_path, ollama) as server, await server.signed_in() as alice:
        responses = [await ask(alice) for _ in range(20)]
    assert {response.status_code for response in responses} == {200}
    assert not [name for name in responses[-1].headers if name.startswith("x-ratelimit")]
    assert int(responses[-1].headers["openai-processing-ms"]) >= 0


async def test_requests_beyond_those_of_a_minute_are_refused_with_the_time_to_come_back(
    tmp_path: Path, ollama: FakeOllama
) -> None:
    async with (
        chat_server(tmp_path, ollama, USER_REQUESTS_PER_MINUTE=3) as server,
        await server.signed_in("alice") as alice,
        await server.signed_in("bob") as bob,
    ):
        good = [await ask(alice) for _ in range(3)]
        refused = await ask(alice, stream=True)
        assert [response.headers["x-ratelimit-remaining-requests"] for response in good] == ["2", "1", "0"]
        assert good[0].headers["x-ratelimit-limit-requests"] == "3"
        assert code_of(refused) == (429, "rate_limit_exceeded")
        assert refused.json()["error"]["type"] == "rate_limit_error"
        assert 1 <= int(refused.headers["retry-after"]) <= 120
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"
        assert refused.headers["x-ratelimit-reset-requests"].endswith("s")
        assert len(ollama.chats) == 3
        assert (await ask(bob)).status_code == 200, "one user's limit is nobody else's"
        assert (await alice.get("/v1/models")).status_code == 200, "what asks no model is not limited"


async def test_a_request_that_fails_counts_and_still_tells_how_the_caller_stands(
    tmp_path: Path, ollama: FakeOllama
) -> None:
    async with chat_server(tmp_path, ollama, USER_REQUESTS_PER_MINUTE=5) as server, await server.signed_in() as alice:
        failed = await ask(alice, model="no such model")
    assert code_of(failed) == (404, "model_not_found")
    assert failed.headers["x-ratelimit-remaining-requests"] == "4"


async def test_a_users_tokens_are_one_sum_over_all_keys_and_end_with_the_day(
    tmp_path: Path, ollama: FakeOllama
) -> None:
    async with (
        chat_server(tmp_path, ollama, USER_TOKENS_PER_DAY=40) as server,
        await server.signed_in() as alice,
        with_key(server, (await alice.post("/api/auth/keys", json={"name": "x"})).json()["key"]) as script,
    ):
        first = await ask(alice, "Count from 1 to 20")
        spent = first.json()["usage"]["total_tokens"]
        second = await ask(script, "Count from 1 to 20")
        assert second.headers["x-ratelimit-remaining-tokens"] == str(40 - spent)
        refused = await ask(alice)
        assert code_of(refused) == (429, "insufficient_quota")
        assert refused.json()["error"]["type"] == "insufficient_quota"
        assert 1 <= int(refused.headers["retry-after"]) <= 86_400
        assert refused.headers["x-ratelimit-limit-tokens"] == "40"
        assert refused.headers["x-should-retry"] == "false", "SDKs would try twice more"
        assert len(ollama.chats) == 2


async def test_the_tokens_of_today_outlive_a_restart(tmp_path: Path, ollama: FakeOllama) -> None:
    async with chat_server(tmp_path, ollama) as server, await server.signed_in() as alice:
        await ask(alice, "Count from 1 to 20")
    async with chat_server(tmp_path, ollama, USER_TOKENS_PER_DAY=20) as server, await server.signed_in() as alice:
        assert code_of(await ask(alice)) == (429, "insufficient_quota")


async def test_only_so_many_requests_of_a_user_are_answered_at_once(tmp_path: Path, ollama: FakeOllama) -> None:
    ollama.always(Reply(text="one two three", fault=Fault.HANG, after=1))
    async with (
        chat_server(tmp_path, ollama, USER_CONCURRENT_REQUESTS=2) as server,
        await server.signed_in("alice") as alice,
        await server.signed_in("bob") as bob,
    ):
        running = [asyncio.create_task(ask(alice, stream=stream)) for stream in (True, False)]
        while len(ollama.chats) < 2:
            await asyncio.sleep(0.01)
        refused = await ask(alice)
        assert code_of(refused) == (429, "rate_limit_exceeded")
        assert refused.headers["retry-after"] == "1"
        other = asyncio.create_task(ask(bob))
        while len(ollama.chats) < 3:
            await asyncio.sleep(0.01)
        for task in (*running, other):  # clients that leave give their places back
            task.cancel()
        await asyncio.gather(*(call.gone() for call in ollama.chats))
        ollama.always(Reply(text="fine"))
        async with asyncio.timeout(5):
            while (await ask(alice)).status_code != 200:
                await asyncio.sleep(0.05)


async def test_a_refused_request_gives_its_place_back(tmp_path: Path, ollama: FakeOllama) -> None:
    limits = {"USER_REQUESTS_PER_MINUTE": 1, "USER_CONCURRENT_REQUESTS": 1}
    async with chat_server(tmp_path, ollama, **limits) as server, await server.signed_in() as alice:
        assert (await ask(alice)).status_code == 200
        for _ in range(3):
            assert "a minute are used up" in (await ask(alice)).json()["error"]["message"]
        assert not server.app.state.context.limits._running


async def test_an_admin_sets_limits_that_hold_from_the_next_request_on(tmp_path: Path, ollama: FakeOllama) -> None:
    async with (
        chat_server(tmp_path, ollama, USER_REQUESTS_PER_MINUTE=100) as server,
        await server.signed_in("alice") as alice,
        await admin_of(server) as admin,
    ):
        assert (await ask(alice)).headers["x-ratelimit-limit-requests"] == "100"
        url = "/api/admin/users/alice/limits"
        told = (await admin.put(url, json={"requests_per_minute": 1, "tokens_per_day": 10_000})).json()
        assert told["limits"] == {"requests_per_minute": 1, "tokens_per_day": 10_000, "concurrent_requests": None}
        assert told["effective"]["concurrent_requests"] == 0
        assert (await ask(alice)).headers["x-ratelimit-limit-requests"] == "1"
        assert (await ask(alice)).status_code == 429
        await admin.put(url, json={"requests_per_minute": 0})
        assert "x-ratelimit-limit-requests" not in (await ask(alice)).headers, "0 lifts the server's own limit"
        await admin.put(url, json={})
        assert (await admin.get(url)).json()["effective"]["requests_per_minute"] == 100
        assert (await admin.put(url, json={"requests_per_minute": -1})).status_code == 422
        assert (await admin.put(url, json={"request_per_minute": 1})).status_code == 422
        assert (await admin.put("/api/admin/users/nobody/limits", json={})).status_code == 404
        assert (await alice.put(url, json={})).status_code == 403
        assert (await alice.get(url)).status_code == 403


async def test_a_key_has_limits_of_its_own_and_cannot_make_a_key_without_them(
    tmp_path: Path, ollama: FakeOllama
) -> None:
    async with (
        chat_server(tmp_path, ollama, USER_REQUESTS_PER_MINUTE=50) as server,
        await server.signed_in("alice") as alice,
        contextlib.AsyncExitStack() as stack,
    ):
        made = await alice.post("/api/auth/keys", json={"name": "script", "limits": {"requests_per_minute": 2}})
        script = await stack.enter_async_context(with_key(server, made.json()["key"]))
        remaining = [(await ask(script)).headers["x-ratelimit-remaining-requests"] for _ in range(2)]
        assert remaining == ["1", "0"], "the tightest bound is told"
        refused = await ask(script)
        assert refused.status_code == 429
        assert refused.json()["error"]["message"].startswith("This API key's 2")
        assert (await ask(alice)).headers["x-ratelimit-remaining-requests"] == "47", "what was refused does not count"
        assert (await script.post("/api/auth/keys", json={"name": "more"})).status_code == 403
        assert (await alice.get("/api/auth/keys")).json()["keys"][0]["limits"]["requests_per_minute"] == 2
