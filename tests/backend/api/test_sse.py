"""A run as Server-Sent Events, over a real socket: when the first byte goes out, what silence and departure do."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import pytest
from fastapi import FastAPI, Request
from prometheus_client import CollectorRegistry, Gauge
from starlette.responses import Response

from backend.api.disconnects import stop_on_disconnect
from backend.api.errors import install_error_handlers
from backend.api.sse import MAX_BUFFERED_FRAMES, RunResponse
from backend.core.errors import BackendUnavailable
from tests.support.eventually import eventually
from tests.support.serving import running

Run = Callable[[], AsyncGenerator[bytes, None]]


@dataclass
class Stage:
    """A server whose one route streams a run given by the test."""

    run: Run | None = None
    keepalive_s: float = 5.0
    stall_s: float = 5.0
    url: str = ""
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    open_streams: Gauge = field(default_factory=lambda: Gauge("open", "", registry=CollectorRegistry()))

    async def frames(self) -> AsyncGenerator[bytes, None]:
        assert self.run
        try:
            async with contextlib.aclosing(self.run()) as frames:
                async for frame in frames:
                    yield frame
        finally:
            self.closed.set()


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    stage = Stage()
    app = FastAPI()
    install_error_handlers(app)

    @app.get("/stream")
    async def stream() -> Response:
        return RunResponse(
            stage.frames(),
            lambda: {"X-Late": "known"},
            keepalive_s=stage.keepalive_s,
            stall_s=stage.stall_s,
            open_streams=stage.open_streams,
        )

    @app.get("/whole")
    async def whole(request: Request) -> Response:
        async with stop_on_disconnect(request.receive):
            return Response(b"".join([frame async for frame in stage.frames()]))

    async with running(app) as stage.url:
        yield stage


@asynccontextmanager
async def reading(url: str) -> AsyncIterator[httpx.Response]:
    async with httpx.AsyncClient(timeout=20) as client, client.stream("GET", url) as response:
        yield response


async def test_an_error_before_the_first_frame_keeps_its_http_status(stage: Stage) -> None:
    async def run() -> AsyncGenerator[bytes, None]:
        raise BackendUnavailable("All backends are down.", retry_after_s=5)
        yield b""

    stage.run = run
    async with reading(f"{stage.url}/stream") as response:
        body = await response.aread()
    assert (response.status_code, response.headers["retry-after"]) == (503, "5")
    assert b'"code":"backend_unavailable"' in body


async def test_headers_tell_what_is_known_when_the_first_frame_is_there(stage: Stage) -> None:
    async def run() -> AsyncGenerator[bytes, None]:
        yield b""  # nothing to show yet
        yield b"data: 1\n\n"

    stage.run = run
    async with reading(f"{stage.url}/stream") as response:
        assert await response.aread() == b"data: 1\n\n"
    assert response.headers["x-late"] == "known"
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["x-accel-buffering"] == "no"
    assert response.headers["cache-control"] == "no-cache"


async def test_silence_before_and_after_the_first_token_is_bridged_by_comments(stage: Stage) -> None:
    async def run() -> AsyncGenerator[bytes, None]:
        await asyncio.sleep(0.35)
        yield b"data: 1\n\n"
        await asyncio.sleep(0.35)
        yield b"data: 2\n\n"

    stage.run, stage.keepalive_s = run, 0.1
    async with reading(f"{stage.url}/stream") as response:
        body = await response.aread()
    before, _, after = body.partition(b"data: 1\n\n")
    assert before.count(b": keep-alive\n\n") >= 2
    assert after.count(b": keep-alive\n\n") >= 2
    assert after.endswith(b"data: 2\n\n")


@pytest.mark.parametrize("error", [BackendUnavailable("Gone."), ValueError("secret detail")])
async def test_an_error_after_the_first_byte_is_one_frame_and_the_end(stage: Stage, error: Exception) -> None:
    async def run() -> AsyncGenerator[bytes, None]:
        yield b"data: 1\n\n"
        raise error

    stage.run = run
    async with reading(f"{stage.url}/stream") as response:
        body = await response.aread()
    assert response.status_code == 200
    assert body.startswith(b'data: 1\n\ndata: {"error":{"message":')
    assert body.count(b"data:") == 2
    assert b"secret" not in body


async def test_an_error_after_a_keep_alive_is_a_frame_as_well(stage: Stage) -> None:
    async def run() -> AsyncGenerator[bytes, None]:
        await asyncio.sleep(0.25)
        raise BackendUnavailable("Gone.")
        yield b""

    stage.run, stage.keepalive_s = run, 0.1
    async with reading(f"{stage.url}/stream") as response:
        body = await response.aread()
    assert response.status_code == 200
    assert body.startswith(b": keep-alive\n\n")
    assert body.count(b"data: ") == 1


@pytest.mark.parametrize("path", ["stream", "whole"])
@pytest.mark.parametrize("first", [True, False])
async def test_a_client_that_leaves_ends_the_run_within_a_second(stage: Stage, path: str, first: bool) -> None:
    started = asyncio.Event()

    async def run() -> AsyncGenerator[bytes, None]:
        if first:
            yield b"data: 1\n\n"
        started.set()
        await asyncio.sleep(30)

    stage.run = run

    async def leave_early() -> None:
        async with reading(f"{stage.url}/{path}") as response:
            await anext(response.aiter_raw())
            await asyncio.sleep(30)

    client = asyncio.create_task(leave_early())
    await asyncio.wait_for(started.wait(), 5)
    left_at = time.monotonic()
    client.cancel()
    await asyncio.wait_for(stage.closed.wait(), 10)
    assert time.monotonic() - left_at < 5
    assert await eventually(lambda: stage.open_streams._value.get() == 0)


async def test_a_client_that_does_not_read_holds_the_run_back_and_is_given_up(stage: Stage) -> None:
    produced = 0

    async def run() -> AsyncGenerator[bytes, None]:
        nonlocal produced
        while True:
            produced += 1
            yield b"data: " + b"x" * 10_000 + b"\n\n"

    stage.run, stage.stall_s = run, 0.5
    host, _, port = stage.url.removeprefix("http://").partition(":")
    _, writer = await asyncio.open_connection(host, int(port), limit=1024)
    writer.write(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
    await asyncio.wait_for(stage.closed.wait(), 10)
    writer.close()
    assert produced < 20 * MAX_BUFFERED_FRAMES  # sockets hold a few megabytes; the rest was never made


async def test_frames_that_gather_go_out_in_their_order_and_whole(stage: Stage) -> None:
    expected = [b"data: %d\n\n" % number for number in range(5_000)]

    async def run() -> AsyncGenerator[bytes, None]:
        for number, frame in enumerate(expected):
            if number % 700 == 0:
                await asyncio.sleep(0)
            yield frame

    stage.run = run
    async with reading(f"{stage.url}/stream") as response:
        assert await response.aread() == b"".join(expected)
