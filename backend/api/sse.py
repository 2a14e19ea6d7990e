"""Responses whose content comes from a run that is still going on.

`RunResponse` streams it as Server-Sent Events. A task of its own pumps the run's frames into a small buffer, and the
response sends whatever has gathered in one write: under load that is many tokens a write, and it lets a comment line
keep the connection alive while the run is silent. Nothing is sent before the run's first frame (or the first
keep-alive), so that what fails until then still gets its HTTP status.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping

from prometheus_client import Gauge
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from backend.api.completions import KEEP_ALIVE, error_frame
from backend.api.disconnects import stop_on_disconnect
from backend.api.errors import ClientDisconnected
from backend.core.errors import ApiError

logger = logging.getLogger(__name__)

MAX_BUFFERED_FRAMES = 512
SSE_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",  # nginx would hold the stream back otherwise
}


class RunResponse(Response):
    """Streams the frames of a run.

    Args:
        frames: the run; it is closed when the client leaves, and has ended when the response has.
        late_headers: read right before the first byte, when more is known of the run than at the start.
        keepalive_s: silence after which a comment line is sent.
        stall_s: how long the client may refuse to read before it is given up.
        open_streams: counts the streams that are open.
        encode_error: makes the last frame of a run that failed after its first byte.
    """

    def __init__(
        self,
        frames: AsyncGenerator[bytes, None],
        late_headers: Callable[[], Mapping[str, str]],
        *,
        keepalive_s: float,
        stall_s: float,
        open_streams: Gauge,
        encode_error: Callable[[ApiError], bytes] = error_frame,
    ) -> None:
        self.status_code = 200
        self.background = None
        self._frames = frames
        self._late_headers = late_headers
        self._keepalive_s = keepalive_s
        self._stall_s = stall_s
        self._open_streams = open_streams
        self._encode_error = encode_error
        self._buffer: deque[bytes] = deque()
        self._gathered = asyncio.Event()  # there is something to send, or the run has ended
        self._drained = asyncio.Event()  # there is room in the buffer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        pump = asyncio.create_task(self._pump())
        self._open_streams.inc()
        try:
            async with stop_on_disconnect(receive):
                await self._wait(pump)
                if pump.done() and not self._buffer:
                    await pump  # raises what failed before the first byte: an ordinary error response
                await self._stream(pump, send)
        except ClientDisconnected:
            logger.debug("The client left the stream.")
        except TimeoutError:
            logger.info("The client did not read its stream for %g s.", self._stall_s)
        finally:
            self._open_streams.dec()
            pump.cancel()
            await asyncio.wait([pump])

    async def _stream(self, pump: asyncio.Task[None], send: Send) -> None:
        headers = SSE_HEADERS | dict(self._late_headers())
        raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": raw})
        while self._buffer or not pump.done():
            body = b"".join(self._buffer) or KEEP_ALIVE
            self._buffer.clear()
            self._drained.set()
            async with asyncio.timeout(self._stall_s):
                await send({"type": "http.response.body", "body": body, "more_body": True})
            await self._wait(pump)
        last = b""
        if error := pump.exception():
            if not isinstance(error, ApiError):
                logger.error("A run failed in an unexpected way.", exc_info=error)
                error = ApiError("The server failed in the middle of the answer.")
            last = self._encode_error(error)
        await send({"type": "http.response.body", "body": last, "more_body": False})

    async def _wait(self, pump: asyncio.Task[None]) -> None:
        """Return when there are frames, when the run has ended, or when a keep-alive is due."""
        if self._buffer or pump.done():
            return
        self._gathered.clear()
        try:
            async with asyncio.timeout(self._keepalive_s):
                await self._gathered.wait()
        except TimeoutError:
            return

    async def _pump(self) -> None:
        try:
            async for frame in self._frames:
                if frame:
                    self._buffer.append(frame)
                    self._gathered.set()
                if len(self._buffer) >= MAX_BUFFERED_FRAMES:
                    self._drained.clear()
                    await self._drained.wait()
        finally:
            await self._frames.aclose()
            self._gathered.set()
