"""How a backend is reached: one pooled HTTP session for the process, every wait with a deadline, one kind of failure.

A streamed call is bounded three times: to connect, until the first delta (response headers included), and between two
deltas. Comments and empty frames that keep a connection alive do not count as an answer. Closing the generator closes
the socket at once, since that is what makes Ollama and llama.cpp stop generating.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import aiohttp
import orjson

from backend.core.errors import ApiError, BackendUnavailable
from backend.core.events import BackendEvent
from backend.core.llm.wire import AnswerDecoder, WireError

# Far below llama.cpp's 5 s, which begin before ours: what it is about to close must not be taken from the pool.
POOL_KEEPALIVE_S = 2.0
SPARE_CONNECTIONS = 16
END_OF_BODY_TIMEOUT_S = 0.5  # after the last event, for the end of the body: only then the connection is kept
ERROR_BODY_TIMEOUT_S = 5.0
MAX_ERROR_BYTES = 64 * 1024
MAX_JSON_BYTES = 32 * 1024 * 1024

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long a backend may take to be reached, to say the first word, and between two words."""

    connect_s: float = 2.0
    first_token_s: float = 120.0
    idle_s: float = 120.0


@dataclass(frozen=True, slots=True)
class StreamedCall:
    """One streamed model call, ready to be sent."""

    body: dict[str, Any]
    decoder: AnswerDecoder
    refusal: Callable[[int, bytes], ApiError]  # what a status other than 200 and its body mean


def open_http_session(*, max_connections: int) -> aiohttp.ClientSession:
    """Make the session that all backends share. Call it inside the event loop; close it when the process ends.

    `max_connections` is the number of model calls at once. A few more are there for listings: when every call is taken,
    a health probe that waits for a connection would find healthy backends dead.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=max_connections + SPARE_CONNECTIONS, keepalive_timeout=POOL_KEEPALIVE_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        trust_env=False,
    )


class BackendConnection:
    """Calls to one model server. Every failure is a `BackendUnavailable` whose message names the backend alone."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        base_url: str,
        *,
        name: str,
        timeouts: Timeouts,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._session = session
        self._base_url = base_url.rstrip("/")
        self._name = name
        self._timeouts = timeouts
        self._headers = {"Content-Type": "application/json", **(headers or {})}
        self._connect_timeout = aiohttp.ClientTimeout(
            total=None, connect=timeouts.connect_s, sock_connect=timeouts.connect_s
        )

    async def fetch_json(
        self,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        deadline: float,
        refusal: Callable[[int, bytes], ApiError],
    ) -> Any:
        """GET `path`, or POST `body` to it, and return the JSON of the answer.

        Raises:
            ApiError: what `refusal` makes of a status other than 200.
            BackendUnavailable: no JSON came before `deadline`, which is a time of the event loop's clock.
        """
        try:
            async with asyncio.timeout_at(deadline):
                response = await self._send("GET" if body is None else "POST", path, body)
                try:
                    content = await read_body(response, MAX_JSON_BYTES)
                finally:
                    response.close()
        except (aiohttp.ClientError, OSError, TimeoutError, WireError) as error:
            self._fail(error)
        if response.status != 200:
            raise refusal(response.status, content)
        try:
            return orjson.loads(content)
        except ValueError as error:
            self._fail(error)

    async def stream(
        self, path: str, prepare: Callable[[], Awaitable[StreamedCall]]
    ) -> AsyncGenerator[BackendEvent, None]:
        """Send what `prepare` makes and yield the answer: deltas, then one `Completed`.

        Raises:
            ApiError: what the call's `refusal`, or its decoder, makes of the vendor's error.
            BackendUnavailable: too late, cut off, or not an answer at all.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._timeouts.first_token_s
        call = await prepare()
        decoder = call.decoder
        try:
            async with asyncio.timeout_at(deadline):
                response = await self._send("POST", path, call.body)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self._fail(error)
        try:
            if response.status != 200:
                raise call.refusal(response.status, await self._read_error(response))
            while decoder.completed is None:
                try:
                    data = await _read_some(response.content, deadline)
                    silent = True
                    for event in decoder.feed(data) if data else decoder.end():
                        silent = False
                        yield event
                except (aiohttp.ClientError, OSError, TimeoutError, WireError) as error:
                    self._fail(error)
                if not silent:
                    deadline = clock() + self._timeouts.idle_s
            await reach_end(response)
        finally:
            response.close()
        yield decoder.completed

    async def _send(self, method: str, path: str, body: dict[str, Any] | None) -> aiohttp.ClientResponse:
        """Send a request; again when pooled connections turn out to have been closed by the server."""
        data = None if body is None else orjson.dumps(body)
        for last_try in (False, False, False, True):
            try:
                return await self._session.request(
                    method,
                    self._base_url + path,
                    data=data,
                    headers=self._headers,
                    timeout=self._connect_timeout,
                    allow_redirects=False,  # an answer from elsewhere is not this backend's, and would get its key
                )
            except aiohttp.ClientConnectorError:
                raise
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                if last_try:
                    raise
        raise AssertionError("unreachable")

    async def _read_error(self, response: aiohttp.ClientResponse) -> bytes:
        """The body of an error; as much of it as comes, since the status says the most."""
        try:
            async with asyncio.timeout(ERROR_BODY_TIMEOUT_S):
                return await read_body(response, MAX_ERROR_BYTES)
        except (aiohttp.ClientError, OSError, TimeoutError, WireError):
            return b""

    def _fail(self, error: Exception) -> NoReturn:
        # The chain tells of a call that failed, and the catalog of a backend that comes or goes; this is the detail.
        _log.debug("backend %s: %s: %s", self._name, type(error).__name__, error)
        raise BackendUnavailable(f"The model server `{self._name}` {_symptom(error)}.") from error


def _symptom(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return "cannot be reached"
    if isinstance(error, TimeoutError):
        return "did not answer in time"
    if isinstance(error, ValueError):
        return "sent something that is not an answer, or only a part of one"
    return "closed the connection in the middle of an answer"


async def _read_some(content: aiohttp.StreamReader, deadline: float) -> bytes:
    """What has arrived, or else what comes next; nothing at the end. A deadline costs more than most reads do."""
    if data := content.read_nowait():
        return data
    async with asyncio.timeout_at(deadline):
        return await content.readany()


async def read_body(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """Raises: WireError, for a body of more than `limit` bytes."""
    content = bytearray()
    while data := await response.content.readany():
        content += data
        if len(content) > limit:
            raise WireError(f"a body is longer than {limit} bytes")
    return bytes(content)


async def reach_end(response: aiohttp.ClientResponse) -> None:
    """Read to the end of the body, so that the connection can be used again. Nothing is lost if that fails."""
    if response.content.at_eof():
        return
    try:
        async with asyncio.timeout(END_OF_BODY_TIMEOUT_S):
            while await response.content.readany():
                pass
    except (aiohttp.ClientError, OSError, TimeoutError):
        pass
