"""`Idempotency-Key`: a repeated POST gets the first answer, and the model is asked once."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from backend.api import idempotency
from tests.support.chat_server import CHAT, ask, chat_server, code_of, frames_of, streamed_text
from tests.support.fake_ollama import FakeOllama
from tests.support.llm_script import Fault, Reply
from tests.support.server import RunningServer

KEY = {"Idempotency-Key": "order-7"}


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


@pytest.mark.parametrize("stream", [True, False])
async def test_a_repeated_post_gets_the_first_answer_byte_for_byte(
    alice: httpx.AsyncClient, ollama: FakeOllama, stream: bool
) -> None:
    first = await ask(alice, "Count from 1 to 9", stream=stream, headers=KEY)
    again = await ask(alice, "Count from 1 to 9", stream=stream, headers=KEY)
    assert first.status_code == again.status_code == 200
    assert again.content == first.content
    assert again.headers["x-session-id"] == first.headers["x-session-id"]
    assert again.headers["content-type"] == first.headers["content-type"]
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert len(ollama.chats) == 1
    assert len((await alice.get("/api/chat/sessions")).json()["sessions"]) == 1


async def test_a_repeat_joins_the_answer_that_still_runs_from_its_beginning(
    alice: httpx.AsyncClient, ollama: FakeOllama
) -> None:
    ollama.script(Reply(pace_s=0.03))
    first = asyncio.create_task(ask(alice, "Count from 1 to 20", stream=True, headers=KEY))
    while not ollama.chats:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    async with alice.stream(
        "POST",
        CHAT,
        json={"messages": [{"role": "user", "content": "Count from 1 to 20"}], "stream": True},
        headers=KEY,
    ) as joined:
        pieces = [piece async for piece in joined.aiter_text()]
    assert len(pieces) > 1, "the rest comes as it is made"
    assert streamed_text("".join(pieces)) == ", ".join(map(str, range(1, 21)))
    assert (await first).text == "".join(pieces)
    assert len(ollama.chats) == 1


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_whose_connection_broke_finds_the_answer_when_it_comes_again(
    alice: httpx.AsyncClient, ollama: FakeOllama, stream: bool
) -> None:
    ollama.script(Reply(pace_s=0.05))
    first = asyncio.create_task(ask(alice, "Count from 1 to 9", stream=stream, headers=KEY))
    while not ollama.chats:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    first.cancel()
    await asyncio.sleep(0.1)
    again = await ask(alice, "Count from 1 to 9", stream=stream, headers=KEY)
    text = streamed_text(again.text) if stream else again.json()["choices"][0]["message"]["content"]
    assert text == "1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert len(ollama.chats) == 1


async def test_a_key_with_another_body_is_an_error_and_with_another_user_another_key(
    server: RunningServer, alice: httpx.AsyncClient, ollama: FakeOllama
) -> None:
    await ask(alice, "Hi", headers=KEY)
    assert code_of(await ask(alice, "Ho", headers=KEY)) == (400, "idempotency_key_reused")
    async with await server.signed_in("bob") as bob:
        assert "idempotent-replayed" not in (await ask(bob, "Hi", headers=KEY)).headers
    assert len(ollama.chats) == 2
    for key in ("", "x" * 256, "two words"):
        assert (await ask(alice, headers={"Idempotency-Key": key})).status_code == 400


async def test_a_form_is_the_same_whatever_its_boundary(alice: httpx.AsyncClient, ollama: FakeOllama) -> None:
    async def post(text: str) -> httpx.Response:
        form = {"messages": '[{"role": "user", "content": "Read it"}]'}
        return await alice.post(CHAT, data=form, files={"files": ("a.txt", text)}, headers=KEY)

    assert (await post("one")).status_code == 200
    assert (await post("one")).headers["idempotent-replayed"] == "true"
    assert code_of(await post("two")) == (400, "idempotency_key_reused")
    assert len(ollama.chats) == 1


async def test_what_failed_before_its_answer_may_be_tried_again_with_the_same_key(
    alice: httpx.AsyncClient, ollama: FakeOllama
) -> None:
    ollama.always(Reply(status=500))
    assert (await ask(alice, headers=KEY)).status_code == 503
    ollama.always(Reply())
    async with asyncio.timeout(10):
        while (response := await ask(alice, headers=KEY)).status_code == 503:
            await asyncio.sleep(0.2)
    assert response.json()["choices"][0]["message"]["content"] == "Echo: Hi"
    assert "idempotent-replayed" not in response.headers


async def test_what_began_to_stream_is_the_answer_also_when_it_broke_off(
    alice: httpx.AsyncClient, ollama: FakeOllama
) -> None:
    ollama.script(Reply(fault=Fault.CUT, after=3))
    first = await ask(alice, "Count from 1 to 9", stream=True, headers=KEY)
    again = await ask(alice, "Count from 1 to 9", stream=True, headers=KEY)
    assert again.content == first.content
    assert frames_of(again.text)[-1]["error"]["code"] == "answer_interrupted"


async def test_a_repeat_is_no_new_request_for_limits_and_usage(tmp_path: Path, ollama: FakeOllama) -> None:
    async with (
        chat_server(tmp_path / "2", ollama, USER_REQUESTS_PER_MINUTE=1) as server,
        await server.signed_in() as alice,
    ):
        assert [(await ask(alice, headers=KEY)).status_code for _ in range(3)] == [200] * 3
        assert (await alice.get("/api/usage")).json()["total"]["requests"] == 1
        assert (await ask(alice)).status_code == 429


async def test_answers_that_are_kept_are_bounded_in_number_size_and_age(
    alice: httpx.AsyncClient, ollama: FakeOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "MAX_OF_USER", 3)

    async def replayed(key: str) -> bool:
        return "idempotent-replayed" in (await ask(alice, headers={"Idempotency-Key": key})).headers

    assert [await replayed(key) for key in "abcd"] == [False] * 4
    assert [await replayed(key) for key in "bcd"] == [True] * 3
    assert not await replayed("a"), "the oldest went first"
    monkeypatch.setattr(idempotency, "KEEP_S", 0.0)
    assert not await replayed("a")
    monkeypatch.setattr(idempotency, "KEEP_S", 3600.0)
    monkeypatch.setattr(idempotency, "MAX_TOTAL_BYTES", 1000)
    assert [await replayed(key) for key in "xyzz"] == [False, False, False, True]
    assert not await replayed("x"), "all together were too large"
    monkeypatch.setattr(idempotency, "MAX_ANSWER_BYTES", 10)
    assert (await ask(alice, headers=KEY)).status_code == 500
    assert (await ask(alice)).status_code == 200


async def test_one_user_cannot_keep_more_running_than_are_kept(
    alice: httpx.AsyncClient, ollama: FakeOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "MAX_OF_USER", 2)
    ollama.always(Reply(fault=Fault.HANG, after=1))
    running = [asyncio.create_task(ask(alice, headers={"Idempotency-Key": key})) for key in "ab"]
    while len(ollama.chats) < 2:
        await asyncio.sleep(0.01)
    assert (await ask(alice, headers=KEY)).status_code == 429
    for task in running:
        task.cancel()


async def test_a_server_that_stops_ends_what_runs_for_a_key(tmp_path: Path, ollama: FakeOllama) -> None:
    async with chat_server(tmp_path / "2", ollama) as server, await server.signed_in() as alice:
        ollama.script(Reply(fault=Fault.HANG, after=1))
        request = asyncio.create_task(ask(alice, headers=KEY))
        while not ollama.chats:
            await asyncio.sleep(0.01)
        request.cancel()
    async with asyncio.timeout(5):
        await ollama.chats[-1].gone()
