"""What was used, as its routes tell it: every way in which an answer can end is counted."""

import asyncio
import contextlib
import datetime
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from backend.core.events import Usage
from backend.core.llm.base import CallContext, LLMRequest
from backend.core.messages import Message
from tests.support.agents import NativeModel, running_agents
from tests.support.chat_server import MODEL, admin_of, ask, chat_server, with_key
from tests.support.fake_ollama import FakeOllama
from tests.support.llm_script import Fault, Reply
from tests.support.scripted import collect
from tests.support.server import RunningServer


def today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()


@pytest.fixture
async def ollama() -> AsyncIterator[FakeOllama]:
    async with FakeOllama() as fake:
        yield fake


@pytest.fixture
async def server(tmp_path: Path, ollama: FakeOllama) -> AsyncIterator[RunningServer]:
    async with chat_server(tmp_path, ollama) as server:
        yield server


@pytest.fixture
async def alice(server: RunningServer) -> AsyncIterator[httpx.AsyncClient]:
    async with await server.signed_in("alice") as client:
        yield client


async def test_every_answer_is_counted_as_the_model_server_reports_it(alice: httpx.AsyncClient) -> None:
    answers = [await ask(alice, "Count from 1 to 9") for _ in range(2)]
    await ask(alice, "Count from 1 to 9", stream=True)
    told = [answer.json()["usage"] for answer in answers]
    usage = (await alice.get("/api/usage")).json()
    assert usage["total"] == {
        "requests": 3,
        "prompt_tokens": 3 * told[0]["prompt_tokens"],
        "cached_tokens": 3 * told[0]["prompt_tokens_details"]["cached_tokens"],
        "completion_tokens": 3 * told[0]["completion_tokens"],
        "total_tokens": 3 * told[0]["total_tokens"],
        "estimated_tokens": 0,
    }
    assert [(row["day"], row["requests"]) for row in usage["rows"]] == [(today(), 3)]
    assert usage["tokens_today"] == usage["total"]["total_tokens"]
    assert usage["limits"] == {"requests_per_minute": 0, "tokens_per_day": 0, "concurrent_requests": 0}


async def test_an_answer_that_broke_off_or_was_left_counts_by_estimate_and_says_so(
    alice: httpx.AsyncClient, ollama: FakeOllama
) -> None:
    ollama.script(Reply(fault=Fault.CUT, after=5))
    await ask(alice, "Count from 1 to 9", stream=True)
    broken = (await alice.get("/api/usage")).json()["total"]
    assert broken["requests"] == 1
    assert broken["estimated_tokens"] == broken["total_tokens"] > 0
    ollama.script(Reply(fault=Fault.HANG, after=5))
    request = asyncio.create_task(ask(alice, "Count from 1 to 9"))
    while len(ollama.chats) < 2:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    request.cancel()
    await ollama.chats[-1].gone()
    await asyncio.sleep(0.1)
    left = (await alice.get("/api/usage")).json()["total"]
    assert left["requests"] == 2
    assert left["estimated_tokens"] == left["total_tokens"] > broken["total_tokens"]


async def test_what_no_model_answered_counts_nothing(alice: httpx.AsyncClient, ollama: FakeOllama) -> None:
    ollama.always(Reply(status=500))
    assert (await ask(alice)).status_code == 503
    assert (await ask(alice, model="unknown")).status_code == 404
    assert (await alice.get("/api/usage")).json()["total"]["requests"] == 0


async def test_several_choices_and_an_agents_many_calls_are_one_request_each(
    alice: httpx.AsyncClient, ollama: FakeOllama
) -> None:
    await ask(alice, n=3)
    await ask(alice, agent_type="plan_execute")
    rows = (await alice.get("/api/usage?group=agent&group=model")).json()["rows"]
    assert [(row["agent"], row["model"], row["requests"]) for row in rows] == [
        ("chat", MODEL, 1),
        ("plan_execute", MODEL, 1),
    ]
    assert len(ollama.chats) > 4


async def test_users_see_their_own_and_admins_everybodys(server: RunningServer, alice: httpx.AsyncClient) -> None:
    async with contextlib.AsyncExitStack() as stack:
        bob = await stack.enter_async_context(await server.signed_in("bob"))
        admin = await stack.enter_async_context(await admin_of(server))
        made = (await alice.post("/api/auth/keys", json={"name": "laptop"})).json()
        script = await stack.enter_async_context(with_key(server, made["key"]))
        for client in (alice, script, script, bob):
            await ask(client)
        rows = (await alice.get("/api/usage?group=key")).json()["rows"]
        assert [(row["key"], row.get("key_name"), row["requests"]) for row in rows] == [
            ("", None, 1),
            (made["id"], "laptop", 2),
        ]
        everybody = (await admin.get("/api/admin/usage")).json()
        assert [(row["user"], row["requests"]) for row in everybody["rows"]] == [("alice", 3), ("bob", 1)]
        assert everybody["total"]["requests"] == 4
        only = (await admin.get("/api/admin/usage?user=BOB&group=day")).json()
        assert [(row["day"], row["requests"]) for row in only["rows"]] == [(today(), 1)]
        assert (await admin.get("/api/admin/usage?user=nobody")).status_code == 404
        assert (await bob.get("/api/admin/usage")).status_code == 403
        assert (await bob.get("/api/usage?user=alice")).json()["total"]["requests"] == 1
        assert (await server.client.get("/api/usage")).status_code == 401


async def test_the_usage_of_a_deleted_user_is_deleted_and_does_not_come_back(
    server: RunningServer, alice: httpx.AsyncClient
) -> None:
    async with await admin_of(server) as admin:
        await ask(alice)
        await admin.get("/api/admin/usage")
        await ask(alice)  # still in memory when the account goes
        assert (await admin.delete("/api/admin/users/alice")).status_code == 200
        usage = (await admin.get("/api/admin/usage")).json()
        assert usage["rows"] == []


async def test_days_are_asked_for_by_their_first_and_last(server: RunningServer, alice: httpx.AsyncClient) -> None:
    await ask(alice)
    for query, requests in ((f"from={today()}&to={today()}", 1), ("from=2020-01-01&to=2020-12-31", 0)):
        assert (await alice.get(f"/api/usage?{query}")).json()["total"]["requests"] == requests
    for wrong in ("from=2020-01-01", "from=2030-01-02&to=2030-01-01", "from=yesterday", "to=0001-01-05", "group=nose"):
        response = await alice.get(f"/api/usage?{wrong}")
        assert response.status_code == 422, wrong
        assert response.json()["error"]["message"]


async def test_the_model_calls_of_tools_are_counted_where_they_are_made(tmp_path: Path) -> None:
    async with NativeModel() as model, running_agents(tmp_path, model) as server:
        context = CallContext("request-1", "alice", None, "websearch")
        request = LLMRequest("", (Message("user", "Count from 1 to 9"),), context=context)
        await collect(server.tools.llm, request)
        async with asyncio.timeout(10):
            while not (rows := (await server.alice.get("/api/usage?group=agent")).json()["rows"]):
                await asyncio.sleep(0.1)
    assert [(row["agent"], row["requests"]) for row in rows] == [("websearch", 0)]
    assert rows[0]["completion_tokens"] == 9


async def test_any_model_can_be_counted_and_belongs_to_who_asked(server: RunningServer) -> None:
    async with await server.signed_in("alice") as alice:
        server.app.state.context.usage.count("alice", "embedder", "embeddings", Usage(prompt_tokens=7))
        rows = (await alice.get("/api/usage?group=model")).json()["rows"]
        assert [(row["model"], row["prompt_tokens"]) for row in rows] == [("embedder", 7)]
