"""`POST /v1/chat/completions` over a real socket, with an Ollama behind it that does what the test wants."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.fake_llamacpp import FakeLlamaCpp
from tests.support.fake_ollama import FakeModel, FakeOllama
from tests.support.llm_script import Fault, Reply
from tests.support.server import RunningServer, make_settings, running_server

MODEL = "smollm2:135m"
CHAT = "/v1/chat/completions"


def say(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


@pytest.fixture
async def ollama() -> AsyncIterator[FakeOllama]:
    async with FakeOllama() as fake:
        yield fake


@contextlib.asynccontextmanager
async def serving(tmp_path: Path, *fakes: FakeOllama | FakeLlamaCpp, **changes: Any) -> AsyncIterator[RunningServer]:
    """The server with these backends as its chain, in this order."""
    kinds = {"ollama": FakeOllama, "llamacpp": FakeLlamaCpp}
    order = list(dict.fromkeys(name for fake in fakes for name, kind in kinds.items() if isinstance(fake, kind)))
    urls = {name: ",".join(fake.url for fake in fakes if isinstance(fake, kind)) for name, kind in kinds.items()}
    chain = {"LLM_BACKEND": ",".join(order), "OLLAMA_MODEL": MODEL}
    chain |= {f"{name.upper()}_BASE_URL": url for name, url in urls.items() if url}
    async with running_server(make_settings(tmp_path, **{**chain, **changes})) as server:
        yield server


@pytest.fixture
async def server(tmp_path: Path, ollama: FakeOllama) -> AsyncIterator[RunningServer]:
    async with serving(tmp_path, ollama) as server:
        yield server


@pytest.fixture
async def alice(server: RunningServer) -> AsyncIterator[httpx.AsyncClient]:
    async with await server.signed_in("alice") as client:
        yield client


async def ask(client: httpx.AsyncClient, *messages: dict[str, Any], **fields: Any) -> httpx.Response:
    return await client.post(CHAT, json={"messages": list(messages), **fields})


def content_of(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    content: str = response.json()["choices"][0]["message"]["content"]
    return content


def frames_of(text: str) -> list[Any]:
    frames = [line.removeprefix("data: ") for line in text.split("\n\n") if line.startswith("data: ")]
    return [frame if frame == "[DONE]" else json.loads(frame) for frame in frames]


def text_of(frames: list[Any]) -> str:
    chunks = [frame for frame in frames if isinstance(frame, dict) and frame.get("choices")]
    return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)


async def history(client: httpx.AsyncClient, session_id: str) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = (await client.get(f"/api/chat/history/{session_id}")).json()["messages"]
    return messages


async def session_count(client: httpx.AsyncClient) -> int:
    return len((await client.get("/api/chat/sessions")).json()["sessions"])


# --- The answer and its conversation -------------------------------------------------------------------------------


async def test_an_answer_has_openais_shape_and_tells_its_session_request_and_backend(alice: httpx.AsyncClient) -> None:
    response = await alice.post(CHAT, json={"messages": [say("Hi")]}, headers={"X-Request-ID": "mine-1"})
    body = response.json()
    assert body["object"] == "chat.completion"
    assert body["choices"][0] == {
        "index": 0,
        "message": {"role": "assistant", "content": "Echo: Hi", "refusal": None},
        "logprobs": None,
        "finish_reason": "stop",
    }
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + body["usage"]["completion_tokens"] > 0
    assert body["model"] == MODEL
    assert response.headers["x-session-id"] == body["session_id"]
    assert response.headers["x-llm-backend"] == "ollama"
    assert response.headers["x-request-id"] == "mine-1"


async def test_a_stream_says_the_same_as_the_whole_answer_and_both_are_kept(alice: httpx.AsyncClient) -> None:
    whole = await ask(alice, say("Count from 1 to 9"))
    streamed = await ask(alice, say("Count from 1 to 9"), stream=True)
    frames = frames_of(streamed.text)
    assert frames[-1] == "[DONE]"
    assert text_of(frames) == content_of(whole) == "1, 2, 3, 4, 5, 6, 7, 8, 9"
    for response in (whole, streamed):
        kept = await history(alice, response.headers["x-session-id"])
        assert [(message["role"], message["content"]) for message in kept] == [
            ("user", "Count from 1 to 9"),
            ("assistant", "1, 2, 3, 4, 5, 6, 7, 8, 9"),
        ]


async def test_a_session_id_continues_the_stored_conversation(alice: httpx.AsyncClient, ollama: FakeOllama) -> None:
    first = (await ask(alice, {"role": "system", "content": "Be brief."}, say("one"))).json()
    await ask(alice, say("two"), session_id=first["session_id"])
    sent = [(message["role"], message["content"]) for message in ollama.chats[-1].body["messages"]]
    assert sent == [("system", "Be brief."), ("user", "one"), ("assistant", "Echo: one"), ("user", "two")]
    await ask(alice, {"role": "developer", "content": "Be long."}, say("three"), session_id=first["session_id"])
    sent = [(message["role"], message["content"]) for message in ollama.chats[-1].body["messages"]]
    assert (sent[0], len(sent)) == (("system", "Be long."), 6)
    assert len(await history(alice, first["session_id"])) == 8


async def test_only_the_newest_messages_of_a_long_conversation_are_sent_and_that_is_told(
    tmp_path: Path, ollama: FakeOllama
) -> None:
    async with serving(tmp_path, ollama, MAX_CONVERSATION_HISTORY=4) as server, await server.signed_in() as alice:
        session = (await ask(alice, say("0"))).json()["session_id"]
        for number in range(1, 4):
            response = await ask(alice, say(str(number)), session_id=session)
        assert response.json()["dropped_messages"] == 2
        assert response.headers["x-dropped-messages"] == "2"
        streamed = await ask(alice, say("4"), session_id=session, stream=True)
        assert frames_of(streamed.text)[0]["dropped_messages"] == 4
        assert len(ollama.chats[-1].body["messages"]) == 5
        assert len(await history(alice, session)) == 10


async def test_a_client_that_sends_its_whole_history_gets_one_session(alice: httpx.AsyncClient) -> None:
    messages: list[dict[str, Any]] = []
    sessions = set()
    for number in range(4):
        messages.append(say(f"question {number}"))
        answer = (await ask(alice, *messages)).json()
        messages.append(answer["choices"][0]["message"])
        sessions.add(answer["session_id"])
    assert len(sessions) == 1
    assert [message["content"] for message in await history(alice, sessions.pop())] == [m["content"] for m in messages]
    again = (await ask(alice, *messages[:3])).json()  # "regenerate" the second answer
    assert await session_count(alice) == 1
    assert again["session_id"] == (await alice.get("/api/chat/sessions")).json()["sessions"][0]["session_id"]


async def test_two_conversations_that_begin_differently_are_two_sessions(alice: httpx.AsyncClient) -> None:
    for text in ("a", "b"):
        await ask(alice, say(text))
    assert await session_count(alice) == 2


async def test_what_a_chat_ui_asks_for_itself_and_what_is_not_to_be_stored_makes_no_session(
    alice: httpx.AsyncClient,
) -> None:
    await ask(alice, say("### Task:\nGenerate a title for the chat"))
    await alice.post(CHAT, json={"messages": [say("tags")]}, headers={"X-OpenWebUI-Task": "tags_generation"})
    response = await ask(alice, say("secret"), store=False)
    assert "x-session-id" not in response.headers
    assert "session_id" not in response.json()
    assert await session_count(alice) == 0


async def test_a_session_of_somebody_else_or_of_nobody_is_not_found(
    server: RunningServer, alice: httpx.AsyncClient
) -> None:
    session = (await ask(alice, say("mine"))).json()["session_id"]
    async with await server.signed_in("bob") as bob:
        for session_id in (session, "sess_" + "0" * 32, "../../etc/passwd", "a" * 256, "sess_\x00"):
            response = await ask(bob, say("Hi"), session_id=session_id)
            assert (response.status_code, response.json()["error"]["type"]) == (404, "not_found_error")
    assert len(await history(alice, session)) == 2


async def test_several_choices_come_with_their_own_index_streamed_or_not(alice: httpx.AsyncClient) -> None:
    whole = (await ask(alice, say("Hi"), n=5)).json()
    assert [choice["index"] for choice in whole["choices"]] == [0, 1, 2, 3, 4]
    frames = frames_of((await ask(alice, say("Hi"), n=5, stream=True)).text)
    by_index: dict[int, str] = {}
    for chunk in frames[:-1]:
        choice = chunk["choices"][0]
        by_index[choice["index"]] = by_index.get(choice["index"], "") + (choice["delta"].get("content") or "")
    assert by_index == dict.fromkeys(range(5), "Echo: Hi")
    assert [message["role"] for message in await history(alice, whole["session_id"])] == ["user", "assistant"]


async def test_the_models_calls_of_the_clients_own_tools_go_back_to_the_client(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    model = FakeModel(capabilities=("completion", "tools"))
    async with FakeOllama([model]) as ollama, serving(tmp_path, ollama) as server, await server.signed_in() as alice:
        ollama.script(*[Reply(tool_calls=(("f", {"a": 1}), ("f", {"a": 2})))] * 2)
        whole = (await ask(alice, say("go"), tools=[tool])).json()["choices"][0]
        assert whole["finish_reason"] == "tool_calls"
        assert whole["message"]["content"] is None
        assert [json.loads(call["function"]["arguments"]) for call in whole["message"]["tool_calls"]] == [
            {"a": 1},
            {"a": 2},
        ]
        frames = frames_of((await ask(alice, say("go"), tools=[tool], stream=True)).text)
        deltas = [d for chunk in frames[:-1] for d in chunk["choices"][0]["delta"].get("tool_calls", [])]
        assert [delta["index"] for delta in deltas if "id" in delta] == [0, 1]
        ollama.script(Reply(text="done"))
        results = [
            {"role": "tool", "tool_call_id": call["id"], "content": "ok"} for call in whole["message"]["tool_calls"]
        ]
        answer = await ask(alice, say("go"), whole["message"], *results, tools=[tool])
        assert content_of(answer) == "done"
        assert await session_count(alice) == 2  # the tool results went on with the first one


async def test_a_multipart_request_keeps_its_files_and_describes_them(
    server: RunningServer, alice: httpx.AsyncClient, ollama: FakeOllama
) -> None:
    form = {"messages": json.dumps([say("Sum it up")]), "temperature": "0.5", "stream": "false"}
    files = [
        ("files", ("../../data.csv", b"a,b\n1,2\n", "text/csv")),
        ("files", ("blob.bin", b"\xff\x00\xfe", "application/octet-stream")),
    ]
    response = await alice.post(CHAT, data=form, files=files)
    session = response.json()["session_id"]
    asked = ollama.chats[-1].body["messages"][-1]["content"]
    assert asked.startswith("Sum it up")
    assert "a | b\n1 | 2" in asked
    assert "'blob.bin' (application/octet-stream, 3 bytes)" in asked
    listed = (await alice.get(f"/api/chat/sessions/{session}/files")).json()["files"]
    assert sorted(file["name"] for file in listed) == ["blob.bin", "data.csv"]


PIXEL = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


async def test_a_picture_reaches_a_model_that_sees(tmp_path: Path) -> None:
    model = FakeModel(capabilities=("completion", "vision"))
    async with FakeOllama([model]) as ollama, serving(tmp_path, ollama) as server, await server.signed_in() as alice:
        parts = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": PIXEL}}]
        assert (await ask(alice, {"role": "user", "content": parts})).status_code == 200
        sent = ollama.chats[-1].body["messages"][-1]
        assert (sent["content"], sent["images"]) == ("What is it?", [PIXEL.partition(",")[2]])


@pytest.mark.parametrize("url", ["http://localhost/x.png", "file:///etc/passwd", "ftp://example.org/x.png", "x"])
async def test_a_picture_from_where_nobody_may_look_is_refused(
    alice: httpx.AsyncClient, ollama: FakeOllama, url: str
) -> None:
    parts = [{"type": "image_url", "image_url": {"url": url}}]
    response = await ask(alice, {"role": "user", "content": parts})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "messages")
    assert not ollama.chats


# --- Bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        (b"{not json", 400, None),
        (b'{"messages": [{"role": "user", "content": "x"}], "temperature": NaN}', 400, None),
        (b"[]", 400, None),
        (b"", 400, None),
        (b'{"messages": []}', 400, "messages"),
        (b'{"messages": [{"role": "wizard", "content": "x"}]}', 400, "messages.0.role"),
        (b'{"messages": [{"role": "user", "content": "x"}], "n": "many"}', 400, "n"),
        (b'{"messages": [{"role": "user", "content": "\xff\xfe"}]}', 400, None),
        (b"[" * 100_000, 400, None),
        (b'{"messages": [{"role": "user", "content": "x"}], "model": "no/such:model"}', 404, "model"),
        (b'{"messages": [{"role": "user", "content": "x"}], "agent_type": "wizard"}', 400, "agent_type"),
        (b'{"messages": [{"role": "user", "content": "x"}], "agent_type": "react", "n": 2}', 400, "n"),
    ],
)
async def test_a_bad_request_is_refused_in_openais_shape_and_leaves_nothing_behind(
    alice: httpx.AsyncClient, body: bytes, status: int, param: str | None
) -> None:
    response = await alice.post(CHAT, content=body, headers={"Content-Type": "application/json"})
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (status, param)
    assert set(error) == {"message", "type", "param", "code"}
    assert await session_count(alice) == 0


async def test_a_body_over_the_limit_is_refused_however_it_is_announced(tmp_path: Path, ollama: FakeOllama) -> None:
    async with serving(tmp_path, ollama, MAX_BODY_MB=1) as server, await server.signed_in() as alice:
        body = json.dumps({"messages": [say("x" * 2**21)]}).encode()

        async def in_chunks() -> AsyncIterator[bytes]:
            for start in range(0, len(body), 65536):
                yield body[start : start + 65536]

        for content in (body, in_chunks()):
            response = await alice.post(CHAT, content=content, headers={"Content-Type": "application/json"})
            assert response.status_code == 413
            assert response.json()["error"]["code"] == "payload_too_large"
        response = await alice.post(
            "/api/auth/login", content=in_chunks(), headers={"Content-Type": "application/json"}
        )
        assert response.status_code in {400, 413}


async def test_messages_of_ten_megabytes_are_too_long_for_the_model(alice: httpx.AsyncClient) -> None:
    response = await ask(alice, say("word " * 2_000_000))
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "context_length_exceeded"
    assert await session_count(alice) == 0


async def test_old_turns_are_left_out_of_a_prompt_that_is_too_long_and_that_is_told(
    tmp_path: Path,
) -> None:
    async with (
        FakeOllama([FakeModel(context=400)]) as ollama,
        serving(tmp_path, ollama) as server,
        await server.signed_in() as alice,
    ):
        turns = [m for n in range(20) for m in (say(f"{n} " + "word " * 30), {"role": "assistant", "content": "ok"})]
        response = await ask(alice, {"role": "system", "content": "Be brief."}, *turns, say("the newest"))
        assert content_of(response) == "Echo: the newest"
        assert response.json()["dropped_messages"] == 42 - len(ollama.chats[-1].body["messages"])
        sent = ollama.chats[-1].body["messages"]
        assert (sent[0]["role"], sent[-1]["content"]) == ("system", "the newest")
        assert sent[1]["role"] == "user"


# --- Bad days --------------------------------------------------------------------------------------------------------

BEFORE_THE_FIRST_TOKEN = [
    Reply(status=500, error="boom"),
    Reply(status=503, error="server busy, please try again.  maximum pending requests exceeded"),
    Reply(fault=Fault.HTML),
    Reply(fault=Fault.GARBAGE),
    Reply(fault=Fault.CUT),
    Reply(fault=Fault.HALF_LINE),
    Reply(fault=Fault.END),
    Reply(fault=Fault.ERROR),
    Reply(fault=Fault.HANG),
]


@pytest.mark.parametrize("reply", BEFORE_THE_FIRST_TOKEN, ids=lambda reply: str(reply.fault or reply.status))
@pytest.mark.parametrize("stream", [True, False])
async def test_a_backend_that_fails_before_the_first_token_is_replaced_unnoticed(
    tmp_path: Path, ollama: FakeOllama, reply: Reply, stream: bool
) -> None:
    ollama.always(reply)
    async with (
        FakeLlamaCpp() as llamacpp,
        serving(
            tmp_path, ollama, llamacpp, FIRST_TOKEN_TIMEOUT_S=0.5, BACKEND_MODEL_MAP={"llamacpp": {MODEL: "default"}}
        ) as server,
        await server.signed_in() as alice,
    ):
        response = await ask(alice, say("Hi"), stream=stream, model=MODEL)
        assert response.headers["x-llm-backend"] == "llamacpp"
        assert (text_of(frames_of(response.text)) if stream else content_of(response)) == "Echo: Hi"


@pytest.mark.parametrize("reply", BEFORE_THE_FIRST_TOKEN, ids=lambda reply: str(reply.fault or reply.status))
@pytest.mark.parametrize("stream", [True, False])
async def test_when_every_backend_fails_the_answer_is_503_with_retry_after(
    tmp_path: Path, ollama: FakeOllama, reply: Reply, stream: bool
) -> None:
    ollama.always(reply)
    async with serving(tmp_path, ollama, FIRST_TOKEN_TIMEOUT_S=0.5) as server, await server.signed_in() as alice:
        response = await ask(alice, say("Hi"), stream=stream)
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) >= 1
        assert response.json()["error"]["type"] == "service_unavailable"
        assert "127.0.0.1" not in response.text
        assert await session_count(alice) == 0
        ollama.always(Reply())
        await asyncio.sleep(0.1)
        response = await ask(alice, say("Hi"), stream=stream)
        assert response.status_code in {200, 503}  # the breaker may still be open; the server is well


async def test_all_backends_down_is_told_within_five_seconds(tmp_path: Path) -> None:
    async with (
        running_server(make_settings(tmp_path, LLM_BACKEND="ollama,llamacpp")) as server,
        await server.signed_in() as alice,
    ):
        for stream in (True, False):
            started = time.monotonic()
            response = await ask(alice, say("Hi"), stream=stream)
            assert response.status_code == 503
            assert "retry-after" in response.headers
            assert time.monotonic() - started < 5
        assert (await server.client.get("/health")).status_code == 200
        assert (await alice.get("/ready")).status_code == 503


@pytest.mark.parametrize("fault", [Fault.CUT, Fault.HALF_LINE, Fault.END, Fault.ERROR, Fault.GARBAGE, Fault.HANG])
async def test_an_answer_that_breaks_off_ends_with_an_error_frame_and_is_kept_as_far_as_it_went(
    tmp_path: Path, ollama: FakeOllama, fault: Fault
) -> None:
    async with serving(tmp_path, ollama, STREAM_IDLE_TIMEOUT_S=0.5) as server, await server.signed_in() as alice:
        ollama.script(Reply(fault=fault, after=3))
        response = await ask(alice, say("Count from 1 to 9"), stream=True)
        frames = frames_of(response.text)
        assert frames[-1]["error"]["code"] == "answer_interrupted"
        assert text_of(frames[:-1]) == "1, 2, 3,"
        kept = await history(alice, response.headers["x-session-id"])
        assert [message["content"] for message in kept] == ["Count from 1 to 9", "1, 2, 3,"]
        assert kept[-1]["interrupted"] is True
        assert content_of(await ask(alice, say("Hi"), session_id=response.headers["x-session-id"])) == "Echo: Hi"


async def test_a_stream_goes_on_at_another_backend_when_its_own_dies(tmp_path: Path, ollama: FakeOllama) -> None:
    mapped = {"llamacpp": {MODEL: "default"}}
    async with (
        FakeLlamaCpp() as llamacpp,
        serving(tmp_path, ollama, llamacpp, BACKEND_MODEL_MAP=mapped) as server,
        await server.signed_in() as alice,
    ):
        ollama.script(Reply(fault=Fault.CUT, after=4))
        llamacpp.script(Reply(text="1, 2, 3, 4, 5, 6, 7, 8, 9"))
        response = await ask(alice, say("Count from 1 to 9"), stream=True, model=MODEL)
        frames = frames_of(response.text)
        assert text_of(frames) == "1, 2, 3, 4, 5, 6, 7, 8, 9"
        assert frames[-1] == "[DONE]"
        assert len({frame["model"] for frame in frames[:-1]}) == 1
        assert llamacpp.chats[-1].body["messages"][-1] == {"role": "assistant", "content": "1, 2, 3, 4,"}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "reply", [Reply(delay_s=30), Reply(fault=Fault.HANG, after=3)], ids=["before the first token", "in the middle"]
)
async def test_a_client_that_leaves_ends_the_model_call_within_a_second(
    alice: httpx.AsyncClient, ollama: FakeOllama, reply: Reply, stream: bool
) -> None:
    ollama.script(reply)
    request = asyncio.create_task(ask(alice, say("Count from 1 to 9"), stream=stream))
    while not ollama.chats:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    left_at = time.monotonic()
    request.cancel()
    assert await ollama.chats[-1].gone() - left_at < 1
    await asyncio.sleep(0.1)
    sessions = (await alice.get("/api/chat/sessions")).json()["sessions"]
    if reply.fault:
        assert [m["content"] for m in await history(alice, sessions[0]["session_id"])][1] == "1, 2, 3,"
    else:
        assert sessions == []
    assert content_of(await ask(alice, say("Hi"))) == "Echo: Hi"


async def test_silence_before_the_first_token_is_bridged_by_comments(tmp_path: Path, ollama: FakeOllama) -> None:
    async with serving(tmp_path, ollama, SSE_KEEPALIVE_S=0.1) as server, await server.signed_in() as alice:
        ollama.script(Reply(delay_s=0.5))
        response = await ask(alice, say("Hi"), stream=True)
        assert response.text.startswith(": keep-alive\n\n")
        assert text_of(frames_of(response.text)) == "Echo: Hi"


async def test_two_hundred_streams_at_once_are_all_answered_and_all_kept(tmp_path: Path, ollama: FakeOllama) -> None:
    ollama.always(Reply(pace_s=0.01))
    # Both servers and all clients share this loop: a busy machine needs its time to connect.
    async with serving(tmp_path, ollama, CONNECT_TIMEOUT_S=30) as server, await server.signed_in() as alice:
        limits = httpx.Limits(max_connections=200)
        async with httpx.AsyncClient(base_url=server.url, headers=alice.headers, limits=limits, timeout=50) as crowd:
            responses = await asyncio.gather(
                *(ask(crowd, say(f"Count from {n} to {n + 9}"), stream=True) for n in range(200))
            )
        for number, response in enumerate(responses):
            assert text_of(frames_of(response.text)) == ", ".join(str(number + step) for step in range(10))
        assert len(list((tmp_path / "sessions").glob("*.json"))) == 200
        for path in (tmp_path / "sessions").glob("*.json"):
            assert [message["seq"] for message in json.loads(path.read_bytes())["messages"]] == [1, 2]


async def test_more_calls_than_may_run_at_once_wait_or_are_told_to_come_back(
    tmp_path: Path, ollama: FakeOllama
) -> None:
    ollama.always(Reply(delay_s=0.2))
    async with serving(tmp_path, ollama, MAX_OPEN_CHATS=2) as server, await server.signed_in() as alice:
        responses = await asyncio.gather(*(ask(alice, say("Hi")) for _ in range(6)))
        assert [response.status_code for response in responses] == [200] * 6


# --- Logs ------------------------------------------------------------------------------------------------------------


async def test_the_prompt_log_has_a_line_for_each_call_and_no_credential(tmp_path: Path, ollama: FakeOllama) -> None:
    async with serving(tmp_path, ollama) as server, await server.signed_in() as alice:
        token = alice.headers["authorization"].removeprefix("Bearer ")
        await alice.post(CHAT, json={"messages": [say(f"my token is {token}")]}, headers={"X-Request-ID": "req-7"})
    lines = [json.loads(line) for line in (tmp_path / "logs" / "prompts.log").read_text().splitlines()]
    assert [(line["request_id"], line["user"], line["backend"]) for line in lines] == [("req-7", "alice", "ollama")]
    assert lines[0]["messages"][0]["content"].startswith("my token is")
    assert token not in (tmp_path / "logs" / "prompts.log").read_text()


async def test_the_prompt_log_can_be_switched_off(tmp_path: Path, ollama: FakeOllama) -> None:
    async with serving(tmp_path, ollama, PROMPT_LOG=False) as server, await server.signed_in() as alice:
        await ask(alice, say("Hi"))
    assert not (tmp_path / "logs" / "prompts.log").exists()


async def test_metrics_count_calls_tokens_and_requests_without_naming_anybody(alice: httpx.AsyncClient) -> None:
    await ask(alice, say("Hi"))
    text = (await alice.get("/metrics")).text
    assert f'llm_calls_total{{backend="ollama",model="{MODEL}",outcome="completed"}} 1.0' in text
    assert 'http_requests_total{method="POST",route="/v1/chat/completions",status="200"} 1.0' in text
    assert 'llm_backend_up{backend="ollama"} 1.0' in text
    assert "alice" not in text


@pytest.mark.parametrize(
    ("kind", "begun"),
    [
        ("application/json", '{"messages'),
        ("multipart/form-data; boundary=x", '--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nhal'),
    ],
)
async def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_failure_of_the_server(
    server: RunningServer, alice: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, kind: str, begun: str
) -> None:
    host, _, port = server.url.removeprefix("http://").partition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: {alice.headers['authorization']}\r\n"
    writer.write(f"{head}Content-Type: {kind}\r\nContent-Length: 1000\r\n\r\n{begun}".encode())
    await writer.drain()
    await asyncio.sleep(0.1)
    writer.close()
    await asyncio.sleep(0.3)
    assert "unexpected" not in caplog.text
    assert 'status="499"' in (await alice.get("/metrics")).text
