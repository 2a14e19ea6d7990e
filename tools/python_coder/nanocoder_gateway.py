"""The one address that a nanocoder task can reach: a chat API for that task alone, answered by the servers' own models.

It listens on a socket that was opened inside the task's network, so that nothing else of this machine is there to be
called. `POST /v1/chat/completions` streams; every other request is a 404. Who asks may be a stranger's program: heads,
bodies, calls and connections are bounded, and each connection serves one request.
"""

import asyncio
import contextlib
import json
import logging
import socket
from contextlib import aclosing

from backend.core.contracts import ToolContext
from backend.core.errors import ApiError, BadRequest, NotFound, PayloadTooLarge, TooManyRequests
from backend.core.events import ToolCallDelta
from backend.core.llm.base import LLMRequest

from .nanocoder_wire import DONE, read_request, write_chunk, write_data

log = logging.getLogger(__name__)

MODEL = "default"
MAX_CONNECTIONS = 4  # more wait in the kernel's queue
MAX_CALLS = 200
MAX_HEAD = 16 << 10
MAX_BODY = 8 << 20
READ_TIMEOUT_S = 15.0
WRITE_TIMEOUT_S = 60.0
CLOSE_TIMEOUT_S = 5.0
ACCEPT_PAUSE_S = 0.2  # when the server itself has no descriptor left


class Gateway:
    def __init__(self, listener: socket.socket, context: ToolContext) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._context = context
        self._places = asyncio.Semaphore(MAX_CONNECTIONS)
        self._connections: set[asyncio.Task[None]] = set()
        self._accepting = asyncio.create_task(self._accept())
        self.calls = 0  # of the model
        self.failure = ""  # why the latest call failed, if it did

    async def close(self) -> None:
        """End every model call that is under way."""
        tasks = {self._accepting, *self._connections}
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=CLOSE_TIMEOUT_S)
        self._listener.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._places.acquire()
            try:
                connection, _ = await loop.sock_accept(self._listener)
            except OSError:
                self._places.release()
                await asyncio.sleep(ACCEPT_PAUSE_S)
                continue
            task = asyncio.create_task(self._serve(connection))
            self._connections.add(task)
            task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._connections.discard(task)
        self._places.release()
        if not task.cancelled() and (error := task.exception()):
            log.error("python_coder: a model call of a task failed", exc_info=error)

    async def _serve(self, connection: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=connection, limit=MAX_HEAD)
        try:
            with contextlib.suppress(OSError, EOFError, TimeoutError):  # whoever asked went away, or sent half of it
                try:
                    async with asyncio.timeout(READ_TIMEOUT_S):
                        request = await self._read(reader)
                    await self._answer(request, writer)
                except ApiError as error:
                    body = json.dumps(error.body()).encode()
                    await _write(writer, _head(error.status, "application/json", len(body)) + body)
                writer.close()
                async with asyncio.timeout(WRITE_TIMEOUT_S):
                    await writer.wait_closed()
        finally:
            writer.transport.abort()

    async def _read(self, reader: asyncio.StreamReader) -> LLMRequest:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            raise BadRequest("The request's head is too long.") from None
        first, *lines = head.decode("latin-1").split("\r\n")
        if first.split(" ")[:2] != ["POST", "/v1/chat/completions"]:
            raise NotFound("There is nothing here but POST /v1/chat/completions.")
        fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = fields.get("content-length", "")
        if not (length.isascii() and length.isdigit()):
            raise BadRequest("The request needs a Content-Length.")
        if len(length) > 9 or int(length) > MAX_BODY:
            raise PayloadTooLarge(f"The request has more than {MAX_BODY >> 20} MiB.")
        body = await reader.readexactly(int(length))
        try:
            return read_request(body, self._context.model, self._context.call_context("python_coder"))
        except ValueError:
            raise BadRequest("The request is not one of OpenAI's chat API.") from None

    async def _answer(self, request: LLMRequest, writer: asyncio.StreamWriter) -> None:
        """Stream the model's answer. An error before the first event has a status of its own."""
        if self.calls >= MAX_CALLS:
            raise TooManyRequests(f"A task may ask the model {MAX_CALLS} times.")
        self.calls += 1
        self.failure = ""
        begun = False
        names: list[str] = []
        try:
            async with aclosing(self._context.llm.stream(request)) as events:
                async for event in events:
                    if isinstance(event, ToolCallDelta) and event.name:
                        names.append(event.name)
                    if chunk := write_chunk(event, MODEL):
                        await _write(writer, chunk if begun else _head(200, "text/event-stream") + chunk)
                        begun = True
        except ApiError as error:
            self.failure = error.message
            if not begun:
                raise
            await _write(writer, write_data(error.body()))
        await _write(writer, DONE)
        step = f"step {self.calls}: {', '.join(names) or 'answer'}"
        await self._context.progress(step, {"step": self.calls, "tools": names})


def _head(status: int, kind: str, length: int | None = None) -> bytes:
    size = "" if length is None else f"Content-Length: {length}\r\n"
    return f"HTTP/1.1 {status} -\r\nContent-Type: {kind}\r\n{size}Connection: close\r\n\r\n".encode()


async def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    async with asyncio.timeout(WRITE_TIMEOUT_S):
        await writer.drain()
