"""The main API's side of a tool call, against the real tools API and against worse ones."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from backend.api.tools_app import create_tools_app
from backend.core import tool_client
from backend.core.contracts import ToolResult
from backend.core.errors import Unavailable
from backend.core.events import ToolProgress
from backend.core.llm.base import CallContext
from backend.core.llm.http import open_http_session
from backend.core.messages import ToolCall
from backend.core.storage.sessions import new_session_id
from backend.core.tool_client import ToolClient
from tests.support.serving import running
from tests.support.tools_server import TOYS, RunningTools, running_tools
from tests.support.toy_tool.tool import SlowTool

SLOW = {"slow": "tests.support.toy_tool.tool:SlowTool"}

Respond = Callable[[asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_http_session(max_connections=20) as session:
        yield session


@pytest.fixture
async def tools(tmp_path: Path) -> AsyncIterator[RunningTools]:
    async with running_tools(tmp_path) as server:
        yield server


def make_client(
    http: aiohttp.ClientSession, url: str, make_token: Any = None, *, keepalive_s: float = 15
) -> ToolClient:
    make_token = make_token or (lambda username, session_id, *, timeout_s: "token")
    return ToolClient(http, url, make_token, default_timeout_s=5, keepalive_s=keepalive_s)


@pytest.fixture
def client(http: aiohttp.ClientSession, tools: RunningTools) -> ToolClient:
    return make_client(http, tools.url, tools.main.authenticator.make_service_token)


def toy(act: str = "echo", **args: Any) -> ToolCall:
    return ToolCall("call_1", "toy", json.dumps({"act": act, **args}))


def as_alice(session_id: str | None = None) -> CallContext:
    return CallContext("req-9", "alice", session_id, "react")


async def run(client: ToolClient, call: ToolCall, context: CallContext | None = None, **more: Any) -> list[Any]:
    async with aclosing(client.run(call, context or as_alice(), **more)) as items:
        return [item async for item in items]


async def failure(client: ToolClient, call: ToolCall | None = None) -> str:
    """The sentence of a call that must fail, and quickly."""
    async with asyncio.timeout(5):
        (result,) = await run(client, call or toy())
    assert isinstance(result, ToolResult)
    assert not result.success
    return result.error or ""


# --- The real tools API -----------------------------------------------------------------------------------------------


async def test_a_call_brings_progress_and_ends_with_the_result(client: ToolClient) -> None:
    *progress, result = await run(client, toy("report", text="done"))
    assert progress == [ToolProgress("call_1", "toy", f"step {n}", {"step": n}) for n in range(3)]
    assert (result.success, result.answer) == (True, "done")
    assert result.metadata["request_id"] == "req-9"


async def test_a_call_is_made_as_the_user_in_the_session(client: ToolClient) -> None:
    session_id = new_session_id()
    (result,) = await run(client, toy(), as_alice(session_id), rag_collection="文 a\r\n")
    assert result.data == {"username": "alice", "workspace": session_id, "collection": "文 a\r\n", "model": "default"}


async def test_a_call_of_a_conversation_that_is_not_kept_has_a_folder_of_its_own(client: ToolClient) -> None:
    (first,), (second,) = await run(client, toy()), await run(client, toy())
    assert first.data["workspace"] != second.data["workspace"]


async def test_progress_comes_while_the_tool_works(client: ToolClient, tools: RunningTools) -> None:
    async with aclosing(client.run(toy("report", seconds=0.3), as_alice())) as items:
        first = await anext(items)
        assert first.message == "step 0"
        assert tools.context.toolbox.find("toy").queue.running == 1


async def test_a_large_result_arrives_whole(client: ToolClient) -> None:
    (result,) = await run(client, toy("huge"))
    assert result.success
    assert len(result.data["text"]) > 100_000


async def test_a_question_waits_a_little_for_tools_that_are_still_starting(
    http: aiohttp.ClientSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SlowTool, "start_s", 0.8)
    async with running_tools(tmp_path, SLOW) as server:
        client = make_client(http, server.url, server.main.authenticator.make_service_token)
        assert [tool.starting for tool in await client.list_tools("alice")] == [True]
        assert [tool.enabled for tool in await client.list_started_tools("alice")] == [True]


async def test_a_tool_that_takes_longer_to_start_holds_up_no_question(
    http: aiohttp.ClientSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool_client, "STARTING_S", 0.2)
    async with running_tools(tmp_path, SLOW) as server:
        client = make_client(http, server.url, server.main.authenticator.make_service_token)
        assert [tool.starting for tool in await client.list_started_tools("alice")] == [True]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (toy("fail"), "The toy is broken. Take another one."),
        (toy("crash"), "crashed"),
        (toy("dance"), "The arguments of toy are wrong: act:"),
        (ToolCall("c", "toy", "{broken"), "not a JSON object"),
        (ToolCall("c", "toy", "[1]"), "not a JSON object"),
        (ToolCall("c", "toy", '{"text": "\ud800"}'), "not a JSON object"),
        (ToolCall("c", "nope", ""), "The tools are: toy"),
        (ToolCall("c", "../../x y", ""), "cannot be used"),
        (ToolCall("c", "", ""), "cannot be used"),
        (ToolCall("c", "disabled", ""), "Set TOY_KEY."),
        (ToolCall("c", "slow", ""), "still starting"),
    ],
)
async def test_what_the_tool_or_the_call_did_wrong_is_told_to_the_model(
    client: ToolClient, call: ToolCall, words: str
) -> None:
    assert words in await failure(client, call)


async def test_a_busy_tool_is_a_result(client: ToolClient, tools: RunningTools) -> None:
    calls = [asyncio.create_task(run(client, toy("sleep", seconds=1))) for _ in range(2)]
    await tools.busy(1)
    while tools.context.toolbox.find("toy").queue.waiting == 0:
        await asyncio.sleep(0.01)
    assert "Wait for their results" in await failure(client)
    for call in calls:
        call.cancel()


async def test_a_token_that_the_tools_api_does_not_know_is_a_result(
    http: aiohttp.ClientSession, tools: RunningTools
) -> None:
    stranger = make_client(http, tools.url)
    assert "cannot be reached" in await failure(stranger)


async def test_a_call_that_is_given_up_stops_the_tool_within_a_second(client: ToolClient, tools: RunningTools) -> None:
    call = asyncio.create_task(run(client, toy("sleep", seconds=15, text="long")))
    await tools.busy(1)
    call.cancel()
    async with asyncio.timeout(1):
        await tools.busy(0)
    assert tools.toy.journal[-1] == "cancelled long"


async def test_closing_the_generator_after_some_progress_stops_the_tool(
    client: ToolClient, tools: RunningTools
) -> None:
    async with aclosing(client.run(toy("report", seconds=10, text="long"), as_alice())) as items:
        await anext(items)
    async with asyncio.timeout(1):
        await tools.busy(0)
    assert tools.toy.journal[-1] == "cancelled long"


async def test_connections_are_used_again(client: ToolClient, http: aiohttp.ClientSession) -> None:
    for _ in range(5):
        await run(client, toy())
    connections = sum(len(pool) for pool in http.connector._conns.values())  # type: ignore[union-attr]
    assert connections == 1


# --- The list ---------------------------------------------------------------------------------------------------------


async def test_the_list_tells_which_tools_are_on(client: ToolClient) -> None:
    tools = {tool.name: tool for tool in await client.list_tools("alice")}
    assert [name for name, tool in tools.items() if tool.enabled] == ["toy"]
    assert "act" in tools["toy"].parameters["properties"]
    assert tools["toy"].timeout_s == 20
    assert tools["disabled"].reason == "It has no key."


async def test_the_list_is_asked_for_once_by_all_who_want_it(client: ToolClient, tools: RunningTools) -> None:
    lists = await asyncio.gather(*(client.list_tools("alice") for _ in range(20)))
    assert all(listed is lists[0] for listed in lists)
    text = (await tools.alice.get("/metrics")).text
    assert 'http_requests_total{method="GET",route="/api/tools/list",status="200"} 1.0' in text


async def test_the_list_is_renewed_after_a_while(client: ToolClient, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {tool.name: tool.enabled for tool in await client.list_tools("alice")}
    monkeypatch.setattr(tool_client, "PROBE_AGE_S", 0)
    assert not before["slow"]
    async with asyncio.timeout(30):
        while not {tool.name: tool.enabled for tool in await client.list_tools("alice")}["slow"]:
            await asyncio.sleep(0.1)


async def test_without_an_answer_there_is_no_list(http: aiohttp.ClientSession) -> None:
    with pytest.raises(Unavailable):
        await make_client(http, "http://127.0.0.1:9").list_tools("alice")


# --- Down and up again ------------------------------------------------------------------------------------------------


async def test_tools_that_were_never_up_are_a_result(http: aiohttp.ClientSession) -> None:
    client = make_client(http, "http://127.0.0.1:9")
    assert "cannot be reached now" in await failure(client)
    assert not (await client.state()).up


async def test_tools_that_stop_and_come_back(
    http: aiohttp.ClientSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool_client, "PROBE_AGE_S", 0)
    async with running_tools(tmp_path) as tools:
        client = make_client(http, tools.url, tools.main.authenticator.make_service_token)
        settings, port = tools.main.settings, int(tools.url.rpartition(":")[2])
        assert (await client.state()).up
        call = asyncio.create_task(failure(client, toy("sleep", seconds=15)))
        await tools.busy(1)
    assert tool_client.UNKNOWN_OUTCOME in await call
    assert "cannot be reached" in await failure(client)
    assert not (await client.state()).up
    assert {tool.name for tool in await client.list_tools("alice")} == set(TOYS)  # as it was last seen
    async with running(create_tools_app(settings, TOYS), port=port):
        (result,) = await run(client, toy())
    assert result.success


# --- Others than the tools API ----------------------------------------------------------------------------------------

LISTING = {"tools": [{"name": "toy", "description": "", "parameters": {}, "enabled": True, "timeout_s": 1}]}


@asynccontextmanager
async def something_else(respond: Respond, listing: Any = LISTING) -> AsyncIterator[str]:
    """A server that lists a tool, and answers a call of it in its own way."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"GET"):
                body = json.dumps(listing).encode()
                writer.write(
                    b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
                )
            else:
                await respond(writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def says(data: bytes, head: bytes = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n") -> Respond:
    async def respond(writer: asyncio.StreamWriter) -> None:
        writer.write(head + data)

    return respond


PROGRESS = b'event: progress\ndata: {"message": "m", "data": {}}\n\n'

BAD_ANSWERS = {
    "no HTTP": (says(b"\x00\x01\x02", b""), "broke off"),
    "nothing": (says(b"", b""), "broke off"),
    "no body": (says(b""), "broke off"),
    "only comments": (says(b": keep-alive\n\n" * 3), "broke off"),
    "HTML": (says(b"<html>\n\n"), "broke off"),
    "no JSON": (says(b"data: <html>\n\n"), "no result"),
    "another JSON": (says(b"data: [1, 2]\n\n"), "no result"),
    "a wrong type": (says(b'data: {"success": true, "data": "text"}\n\n'), "no result"),
    "half a frame": (says(b'event: result\ndata: {"success": true'), "broke off"),
    "a half body": (
        says(b'data: {"succ', b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"),
        "broke off",
    ),
    "an endless frame": (says(b"data: " + b"x" * (tool_client.MAX_FRAME_BYTES + 1)), "no result"),
    "an error event": (
        says(b'event: error\ndata: {"error": {"message": "It is off.", "type": "t", "param": null, "code": null}}\n\n'),
        "It is off.",
    ),
    "a redirect": (
        says(b"", b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n"),
        "302",
    ),
    "a proxy's error": (says(b"<html>", b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 6\r\n\r\n"), "status 502"),
    "an endless error": (
        says(b"x" * (tool_client.MAX_FRAME_BYTES + 1), b"HTTP/1.1 500 Oh\r\nConnection: close\r\n\r\n"),
        "no result",
    ),
}


@pytest.mark.parametrize("kind", BAD_ANSWERS)
async def test_an_answer_that_is_none_is_a_result(http: aiohttp.ClientSession, kind: str) -> None:
    respond, words = BAD_ANSWERS[kind]
    async with something_else(respond) as url:
        assert words in await failure(make_client(http, url))


async def test_a_connection_that_breaks_after_progress_is_a_result(http: aiohttp.ClientSession) -> None:
    async with something_else(says(PROGRESS)) as url:
        progress, result = await run(make_client(http, url), toy())
    assert progress.message == "m"
    assert "Whether it has done its work is not known." in result.error


async def test_a_result_counts_though_the_connection_does_not_end(http: aiohttp.ClientSession) -> None:
    async def respond(writer: asyncio.StreamWriter) -> None:
        await says(PROGRESS + b'event: result\ndata: {"success": true}\n\n')(writer)
        await asyncio.sleep(20)

    async with something_else(respond) as url:
        started = time.monotonic()
        _, result = await run(make_client(http, url), toy())
    assert result.success
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("first", [b"", PROGRESS], ids=["from the start", "after progress"])
async def test_silence_is_a_result(http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch, first: bytes) -> None:
    monkeypatch.setattr(tool_client, "SILENCE_SLACK_S", 0.1)

    async def respond(writer: asyncio.StreamWriter) -> None:
        if first:
            await says(first)(writer)
        await asyncio.sleep(10)

    async with something_else(respond) as url, asyncio.timeout(3):
        *_, result = await run(make_client(http, url, keepalive_s=0.2), toy())
    assert "no sign of life" in result.error


async def test_keep_alives_do_not_extend_the_deadline(
    http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool_client, "RESULT_SLACK_S", 0)

    async def respond(writer: asyncio.StreamWriter) -> None:
        await says(b"")(writer)
        while True:
            writer.write(b": keep-alive\n\n")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with something_else(respond) as url, asyncio.timeout(4):
        (result,) = await run(make_client(http, url), toy())
    assert "no sign of life" in result.error


@pytest.mark.parametrize("listing", [[], {"tools": [{"name": 1}]}, {"tools": None}])
async def test_a_list_that_is_none_leaves_the_tools_unreachable(http: aiohttp.ClientSession, listing: Any) -> None:
    async with something_else(says(b""), listing) as url:
        assert "cannot be reached" in await failure(make_client(http, url))
