"""The address that a nanocoder task can reach, spoken to byte by byte."""

import asyncio
import contextlib
import json
import socket
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from backend.core.contracts import ToolContext
from tests.support.eventually import eventually
from tests.support.scripted import Pause, ScriptedLLM, refused
from tools.python_coder.nanocoder_gateway import MAX_CONNECTIONS, Gateway


@asynccontextmanager
async def opened_gateway(llm: ScriptedLLM, data_dir: Path):
    """The gateway on a port of this machine, to be spoken to byte by byte."""
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    gateway = Gateway(listener, ToolContext("alice", "session", "request", data_dir, llm=llm))
    try:
        yield gateway, lambda: asyncio.open_connection(*address)
    finally:
        await gateway.close()


BODY = json.dumps({"model": "another", "messages": [{"role": "user", "content": "Hi"}], "unknown": 1})
TOO_LONG = "POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n"


def post(body: str) -> str:
    return f"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: {len(body)}\r\n\r\n{body}"


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        (post(BODY), 200),
        (post("{"), 400),
        (post('{"messages": []}'), 400),
        ("POST /v1/chat/completions HTTP/1.1\r\n\r\n", 400),
        ("POST /v1/chat/completions HTTP/1.1\r\nContent-Length: \u00b2\r\n\r\n", 400),
        (TOO_LONG, 413),
        ("GET /v1/chat/completions HTTP/1.1\r\n\r\n", 404),
        ("\r\n\r\n", 404),
        ("x" * 20_000, 400),
    ],
)
async def test_the_gateway_answers_one_kind_of_request_and_refuses_the_rest(tmp_path, request_text, status):
    llm = ScriptedLLM(["Hello."])
    async with opened_gateway(llm, tmp_path) as (_, connect):
        reader, writer = await connect()
        writer.write(request_text.encode("latin-1"))
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()

    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert len(llm.requests) == (status == 200)
    assert answer.endswith(b"data: [DONE]\n\n") == (status == 200)


async def test_whoever_holds_connections_open_gets_few_of_them_and_ends_with_the_gateway(tmp_path):
    llm = ScriptedLLM(lambda _: [Pause()])
    async with opened_gateway(llm, tmp_path) as (_, connect):
        connections = [await connect() for _ in range(12)]
        for _, writer in connections:
            writer.write(post(BODY).encode())
        assert await eventually(lambda: llm.running == MAX_CONNECTIONS)
        await asyncio.sleep(0.3)
        assert llm.running == MAX_CONNECTIONS
    assert llm.running == 0
    for reader, writer in connections:
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


async def test_an_answer_that_breaks_off_says_so_in_the_stream(tmp_path):
    llm = ScriptedLLM([["Hel", refused()]])
    async with opened_gateway(llm, tmp_path) as (gateway, connect):
        reader, writer = await connect()
        writer.write(post(BODY).encode())
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()

    assert b'"content": "Hel"' in answer
    assert b'data: {"error"' in answer
    assert gateway.failure == "The model server cannot be reached."
