"""The server around a fake model: what it was asked, what it does next, and how it fails.

    async with FakeOllama() as fake:
        fake.script(Reply(text="one"), Reply(fault=Fault.CUT, after=3))  # for the next two chats; then by itself again
        fake.always(Reply(pace_s=0.05))  # for every chat without a script
        ... fake.url, fake.chats[-1].body, await fake.chats[-1].gone()

As a process of its own it prints its address; `POST /_fake/script` takes `[{"text": "one", "pace_s": 0.1}, ...]`,
`POST /_fake/always` one of them, and `GET /_fake/calls` tells what was asked.
"""

import argparse
import asyncio
import contextlib
import json
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from aiohttp import web

from tests.support.llm_script import Answer, Fault, Reply, message_text


@dataclass(slots=True)
class Call:
    """One request that the server got."""

    path: str
    body: dict[str, Any]
    headers: dict[str, str]
    peer: object = None  # the client's end of the connection: equal for calls that shared one
    at: float = field(default_factory=time.monotonic)
    gone_at: float | None = None  # when the client hung up
    finished: bool = False  # the answer was sent to its end
    _over: asyncio.Event = field(default_factory=asyncio.Event)

    async def gone(self, timeout_s: float = 15.0) -> float:
        """Wait until the client hung up; return when."""
        async with asyncio.timeout(timeout_s):
            await self._over.wait()
        assert self.gone_at is not None, "the client read the whole answer"
        return self.gone_at


CALL = web.RequestKey("call", Call)


class FakeModelServer(ABC):
    """A real HTTP server on a free port of loopback. A wire adds its routes and its frames."""

    content_type: ClassVar[str]

    def __init__(self, *, port: int = 0) -> None:
        self.calls: list[Call] = []
        self.port = port
        self._script: list[Reply] = []
        self._always = Reply()
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def chats(self) -> list[Call]:
        return [call for call in self.calls if "messages" in call.body]

    @property
    def completions(self) -> list[Call]:
        """Calls that go on with a text, without a template."""
        return [call for call in self.calls if "prompt" in call.body]

    def script(self, *replies: Reply) -> None:
        """Answer the next calls with these, one each."""
        self._script.extend(replies)

    def always(self, reply: Reply) -> None:
        self._always = reply

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        app = web.Application(client_max_size=64 * 1024 * 1024, middlewares=[self._record])
        app.add_routes(self.routes())
        app.router.add_post("/_fake/script", self._take_script)
        app.router.add_post("/_fake/always", self._take_always)
        app.router.add_get("/_fake/calls", self._tell_calls)
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Close the port and every connection, as a server does that is killed."""
        if self._runner is not None:
            self.hang_up()
            await self._runner.cleanup()
            self._runner = None

    def hang_up(self) -> None:
        """Close every connection, whatever is going on in it."""
        assert self._runner is not None
        for connection in list(self._runner.server.connections if self._runner.server else ()):
            if connection.transport is not None:
                connection.transport.abort()

    # --- What a wire provides ---------------------------------------------------------------------------------------

    @abstractmethod
    def routes(self) -> list[web.RouteDef]: ...

    @abstractmethod
    def frames(self, call: Call, answer: Answer) -> tuple[list[bytes], list[bytes]]:
        """The deltas, one frame each, and the frames that end the stream."""

    @abstractmethod
    def error_frame(self, message: str) -> bytes: ...

    @abstractmethod
    def error(self, status: int, error: Any) -> web.Response: ...

    @abstractmethod
    def unknown_route(self, status: int) -> web.Response: ...

    # --- Answering --------------------------------------------------------------------------------------------------

    def next_reply(self, messages: list[dict[str, Any]]) -> Reply:
        """The script's next. Being asked whether it goes on with "1, 2, 3" is not a part of any script."""
        probed = (
            messages[-1:] and messages[-1]["role"] == "assistant" and message_text(messages[-1]).startswith("1, 2, 3")
        )
        return self._script.pop(0) if self._script and not probed else self._always

    async def stream(self, request: web.Request, call: Call, reply: Reply, answer: Answer) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": self.content_type})
        if reply.fault is Fault.HANG and not reply.after:
            await asyncio.sleep(3600)
        deltas, ending = self.frames(call, answer)
        if reply.fault is not None:
            deltas, ending = deltas[: reply.after], []
        await response.prepare(request)
        if reply.burst:
            await response.write(b"".join(deltas + ending))
            deltas = ending = []
        for frame in deltas:
            if reply.pace_s:
                await asyncio.sleep(reply.pace_s)
            await response.write(frame)
        if reply.fault is not None:
            await self._fail(reply.fault, request, response, self.frames(call, answer)[0])
        elif ending:
            await response.write(b"".join(ending))
        await response.write_eof()
        return response

    async def _fail(
        self, fault: Fault, request: web.Request, response: web.StreamResponse, frames: list[bytes]
    ) -> None:
        half = frames[-1][: len(frames[-1]) // 2]
        if fault is Fault.HANG:
            await asyncio.sleep(3600)
        elif fault is Fault.ERROR:
            await response.write(self.error_frame("an error was encountered while running the model: unexpected EOF"))
        elif fault is Fault.HTML:
            await response.write(b"<html>\n<body><h1>502 Bad Gateway</h1></body>\n</html>\n")
        elif fault is Fault.GARBAGE:
            await response.write(b"\x00\xff\xfe garbage \x80\n\ndata: {]\n\n{]\n")
        elif fault is Fault.HALF_LINE:
            await response.write(half)
        elif fault is Fault.CUT:
            await response.write(half)
            assert request.transport is not None
            request.transport.close()

    @web.middleware
    async def _record(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.path.startswith("/_fake/"):
            return await handler(request)
        text = await request.text()
        try:
            body = json.loads(text) if text else {}
        except ValueError:
            body = {}
        call = Call(request.path, body if isinstance(body, dict) else {}, dict(request.headers))
        call.peer = request.transport.get_extra_info("peername") if request.transport else None
        self.calls.append(call)
        request[CALL] = call
        try:
            response = await handler(request)
            call.finished = True
            return response
        except web.HTTPException as error:
            return self.unknown_route(error.status)
        except (asyncio.CancelledError, ConnectionError):
            call.gone_at = time.monotonic()
            raise
        finally:
            call._over.set()

    async def _take_script(self, request: web.Request) -> web.Response:
        self.script(*(parse_reply(fields) for fields in await request.json()))
        return web.json_response({"scripted": len(self._script)})

    async def _take_always(self, request: web.Request) -> web.Response:
        self.always(parse_reply(await request.json()))
        return web.json_response({})

    async def _tell_calls(self, request: web.Request) -> web.Response:
        return web.json_response(
            [
                {"path": c.path, "body": c.body, "gone": c.gone_at is not None, "finished": c.finished}
                for c in self.calls
            ]
        )


def parse_reply(fields: dict[str, Any]) -> Reply:
    if "fault" in fields:
        fields["fault"] = Fault(fields["fault"])
    if "body" in fields:
        fields["body"] = fields["body"].encode()
    fields["tool_calls"] = tuple((name, arguments) for name, arguments in fields.get("tool_calls", ()))
    return Reply(**fields)


def serve(make: Any) -> None:
    """Run a fake as a process: `make(arguments)` builds it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--model", action="append", help="its models; may be given several times")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before the first delta")
    parser.add_argument("--pace", type=float, default=0.0, help="seconds before each delta")
    arguments = parser.parse_args()

    async def run() -> None:
        fake: FakeModelServer = make(arguments)
        fake.always(Reply(delay_s=arguments.delay, pace_s=arguments.pace))
        async with fake:
            print(fake.url, flush=True)
            await asyncio.Event().wait()

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run())
