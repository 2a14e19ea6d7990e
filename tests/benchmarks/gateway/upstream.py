"""A fake llama.cpp server that answers from prepared bytes, so that what is measured is the gateway.

It speaks what a gateway needs of llama.cpp's wire over keep-alive HTTP/1.1: GET /health, /v1/models, /props, and
POST /v1/chat/completions, streamed or whole. A gateway that always streams from its backend gets the short reply as
two text chunks, so that it carries the same text as one that asks for the whole answer. Bodies need a Content-Length.
"""

import asyncio
import re
import socket
import sys
from typing import cast

import uvloop

from tests.benchmarks.gateway import wire

_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_STREAM = re.compile(rb'"stream" *: *true')
_USAGE = re.compile(rb'"include_usage" *: *true')
_HALF = len(wire.REPLY_TEXT) // 2

_COMPLETION = wire.completion()
_REPLY_STREAM, _TOKEN_STREAM = (
    {usage: wire.stream_parts(texts, usage=usage) for usage in (False, True)}
    for texts in ([wire.REPLY_TEXT[:_HALF], wire.REPLY_TEXT[_HALF:]], [wire.TOKEN] * wire.TOKENS)
)
_REPLY_BYTES, _BURST_BYTES = (
    {usage: wire.STREAM_HEAD + b"".join(parts) for usage, parts in stream.items()}
    for stream in (_REPLY_STREAM, _TOKEN_STREAM)
)
_MODEL_LIST = wire.json_answer(
    {
        "object": "list",
        "data": [
            {"id": name, "object": "model", "created": 1700000000, "owned_by": "llamacpp", "meta": {"n_ctx": 32768}}
            for name in wire.MODELS
        ],
    }
)
_PAGES = {
    b"/health": wire.json_answer({"status": "ok"}),
    b"/v1/health": wire.json_answer({"status": "ok"}),
    b"/v1/models": _MODEL_LIST,
    b"/models": _MODEL_LIST,
    b"/props": wire.json_answer(
        {
            "default_generation_settings": {"n_ctx": 32768},
            "total_slots": 64,
            "model_path": "bench.gguf",
            "modalities": {"vision": False, "audio": False},
            "chat_template_caps": {"supports_tools": True, "supports_tool_calls": True, "supports_system_role": True},
        }
    ),
}
_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


class Upstream(asyncio.Protocol):
    """One connection of a gateway."""

    def __init__(self) -> None:
        self._pending = b""
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._timer:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        data = self._pending + data
        while (end := data.find(b"\r\n\r\n")) >= 0:
            head = data[:end]
            length = _CONTENT_LENGTH.search(head)
            total = end + 4 + (int(length[1]) if length else 0)
            if len(data) < total:
                break
            self._answer(head, data[end + 4 : total])
            data = data[total:]
        self._pending = data

    def _answer(self, head: bytes, body: bytes) -> None:
        assert self._transport
        method, path, _ = head.split(b" ", 2)
        if method == b"GET":
            self._transport.write(_PAGES.get(path, _NOT_FOUND))
        elif not path.endswith(b"/chat/completions"):
            self._transport.write(_NOT_FOUND)
        elif not _STREAM.search(body):
            self._transport.write(_COMPLETION)
        else:
            usage = _USAGE.search(body) is not None
            if b'"bench-paced"' in body:
                self._transport.write(wire.STREAM_HEAD + _TOKEN_STREAM[usage][0])
                self._pace(_TOKEN_STREAM[usage], 1, asyncio.get_running_loop().time())
            else:
                self._transport.write((_BURST_BYTES if b'"bench-burst"' in body else _REPLY_BYTES)[usage])

    def _pace(self, parts: list[bytes], position: int, start: float) -> None:
        """Send each part at its own time since the start, so that a late one does not delay those after it."""
        if position > 1 and self._transport:
            self._transport.write(parts[position - 1])
        if position < len(parts):
            due = start + position * wire.TOKEN_INTERVAL_S
            self._timer = asyncio.get_running_loop().call_at(due, self._pace, parts, position + 1, start)


async def serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Upstream, "127.0.0.1", port, backlog=1024, family=socket.AF_INET)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
