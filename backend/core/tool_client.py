"""The main API's view of the tools API, which may be down, slow or replaced at any time.

A call is one HTTP request that streams progress and ends with a result (`POST /api/tools/{name}`). Whatever goes wrong
on the way is a result too, with a sentence for the model. A call is never sent twice: a tool may have acted.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote

import aiohttp
import orjson
from pydantic import TypeAdapter, ValidationError

from backend.core.contracts import ToolResult
from backend.core.errors import Unavailable
from backend.core.events import ToolProgress
from backend.core.llm.base import CallContext
from backend.core.llm.http import reach_end, read_body
from backend.core.llm.wire import EventStreamDecoder, WireError
from backend.core.messages import ToolCall
from backend.core.storage.sessions import new_session_id

logger = logging.getLogger(__name__)

PROBE_TIMEOUT_S = 2.0
STARTING_S = 8.0  # that a question waits for tools that are still starting
STARTING_POLL_S = 0.3
PROBE_AGE_S = 5.0  # also the age at which the list of tools is asked for again
CONNECT_TIMEOUT_S = 2.0
RESULT_SLACK_S = 15.0  # beyond the tool's own deadline, within which the tools API answers
SILENCE_SLACK_S = 10.0  # beyond a keep-alive that does not come
MAX_FRAME_BYTES = 8 * 2**20
UNKNOWN_OUTCOME = "Whether it has done its work is not known."


class TokenMaker(Protocol):
    """Makes the service token of one call."""

    def __call__(self, username: str, session_id: str, *, timeout_s: float) -> str: ...


@dataclass(frozen=True, slots=True)
class ToolsState:
    """Whether the tools API answers; `checked_at` is in `time.monotonic()` seconds."""

    up: bool
    checked_at: float

    @property
    def age_s(self) -> float:
        return time.monotonic() - self.checked_at


@dataclass(frozen=True, slots=True)
class ToolDescription:
    """A tool as the list of the tools API describes it."""

    name: str
    description: str
    parameters: dict[str, Any]  # JSON schema of the arguments
    enabled: bool
    timeout_s: float
    starting: bool = False
    reason: str = ""
    how_to_enable: str = ""


@dataclass(frozen=True, slots=True)
class _ToolList:
    tools: tuple[ToolDescription, ...]


@dataclass(frozen=True, slots=True)
class _Progress:
    message: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _ErrorDetail:
    message: str


@dataclass(frozen=True, slots=True)
class _Error:
    error: _ErrorDetail


_LIST = TypeAdapter(_ToolList)
_ERROR = TypeAdapter(_Error)
_FRAME: TypeAdapter[ToolResult | _Progress | _Error] = TypeAdapter(ToolResult | _Progress | _Error)


class _CallFailed(Exception):
    """There is no result, and why: a sentence for the model."""


class ToolClient:
    """Speaks to the tools API over HTTP.

    Args:
        default_timeout_s: of a call when the tool's own is not known.
        keepalive_s: the longest silence on a stream of the tools API while all is well.
    """

    def __init__(
        self,
        http: aiohttp.ClientSession,
        base_url: str,
        make_token: TokenMaker,
        *,
        default_timeout_s: float,
        keepalive_s: float,
    ) -> None:
        self._http = http
        self._base_url = base_url
        self._make_token = make_token
        self._default_timeout_s = default_timeout_s
        self._silence_s = keepalive_s + SILENCE_SLACK_S
        self._state: ToolsState | None = None
        self._tools: tuple[ToolDescription, ...] | None = None
        self._tools_asked_at = -PROBE_AGE_S
        self._asking = asyncio.Lock()

    async def state(self) -> ToolsState:
        """The state, at most `PROBE_AGE_S` old."""
        if self._state is None or self._state.age_s > PROBE_AGE_S:
            self._state = ToolsState(await self._probe(), time.monotonic())
        return self._state

    async def list_tools(self, username: str) -> tuple[ToolDescription, ...]:
        """All tools, on or off, as of a few seconds ago; while the tools API is down, as they were last seen.

        Args:
            username: on whose behalf; the list is the same for all.

        Raises:
            Unavailable: the tools API has not answered yet.
        """
        return await self._list_tools(username, PROBE_AGE_S)

    async def list_started_tools(self, username: str) -> tuple[ToolDescription, ...]:
        """The same, after waiting a little for tools that are still starting. Calls wait for those that take longer.

        Raises:
            Unavailable: as above.
        """
        until = time.monotonic() + STARTING_S
        tools = await self._list_tools(username, PROBE_AGE_S)
        while any(tool.starting for tool in tools) and time.monotonic() < until:
            await asyncio.sleep(STARTING_POLL_S)
            tools = await self._list_tools(username, STARTING_POLL_S)
        return tools

    async def _list_tools(self, username: str, max_age_s: float) -> tuple[ToolDescription, ...]:
        async with self._asking:
            if time.monotonic() - self._tools_asked_at >= max_age_s:
                try:
                    self._tools = await self._fetch_tools(username)
                except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                    logger.warning("The tools API does not list its tools: %s: %s", type(error).__name__, error)
                self._tools_asked_at = time.monotonic()
        if self._tools is None:
            raise Unavailable("The tools cannot be reached now.", code="tools_unavailable", retry_after_s=PROBE_AGE_S)
        return self._tools

    async def run(
        self, call: ToolCall, context: CallContext, *, rag_collection: str | None = None, model: str | None = None
    ) -> AsyncGenerator[ToolProgress | ToolResult, None]:
        """Yield the call's progress, then its result. Closing the generator ends the call at once. Never raises."""
        try:
            body = _read_arguments(call)
            timeout_s = await self._timeout_s(call.name, context.username)
            headers = self._headers(context, timeout_s, rag_collection, model)
            result: ToolResult | None = None
            async with aclosing(self._stream(call.name, body, headers, timeout_s)) as frames:
                async for frame in frames:
                    if isinstance(frame, ToolResult):
                        result = frame
                    else:
                        yield ToolProgress(call.id, call.name, frame.message, frame.data)
            if result is None:
                raise _CallFailed(_broken_off(call.name))
        except _CallFailed as failure:
            logger.warning("A call of the tool %s has no result: %s", call.name, failure)
            result = ToolResult(False, error=str(failure))
        yield result

    async def _probe(self) -> bool:
        timeout = aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S)
        try:
            async with self._http.get(f"{self._base_url}/health", timeout=timeout) as response:
                return response.status == 200
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    async def _fetch_tools(self, username: str) -> tuple[ToolDescription, ...]:
        token = self._make_token(username, new_session_id(), timeout_s=PROBE_TIMEOUT_S)
        timeout = aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S)
        headers = {"Authorization": f"Bearer {token}"}
        async with self._http.get(f"{self._base_url}/api/tools/list", headers=headers, timeout=timeout) as response:
            content = await read_body(response, MAX_FRAME_BYTES)
        if response.status != 200:
            hint = ": both servers need the same JWT_SECRET_KEY or DATA_DIR" if response.status == 401 else ""
            raise ValueError(f"status {response.status}{hint}")
        return _LIST.validate_json(content).tools

    async def _timeout_s(self, tool: str, username: str) -> float:
        try:
            tools = await self.list_tools(username)
        except Unavailable:
            raise _CallFailed(f"The tool {tool} cannot be used: the tools cannot be reached now.") from None
        return next((known.timeout_s for known in tools if known.name == tool), self._default_timeout_s)

    def _headers(
        self, context: CallContext, timeout_s: float, rag_collection: str | None, model: str | None
    ) -> Mapping[str, str]:
        session_id = context.session_id or new_session_id()  # a conversation that is not kept has none
        token = self._make_token(context.username, session_id, timeout_s=timeout_s)
        headers = {
            "Authorization": f"Bearer {token}",
            "Accept": "text/event-stream",
            "Content-Type": "application/json",
        }
        if context.request_id:
            headers["X-Request-ID"] = context.request_id
        if rag_collection:
            headers["X-RAG-Collection"] = quote(rag_collection)
        if model:
            headers["X-LLM-Model"] = quote(model)
        return headers

    async def _stream(
        self, tool: str, body: bytes, headers: Mapping[str, str], timeout_s: float
    ) -> AsyncGenerator[ToolResult | _Progress, None]:
        """Raises: _CallFailed"""
        clock = asyncio.get_running_loop().time
        until = clock() + timeout_s + RESULT_SLACK_S
        decoder = EventStreamDecoder(MAX_FRAME_BYTES)
        response = None
        try:
            async with asyncio.timeout_at(min(until, clock() + self._silence_s)):
                response = await self._send(tool, body, headers)
                if response.status != 200:
                    raise _CallFailed(_refusal(tool, response.status, await read_body(response, MAX_FRAME_BYTES)))
            while True:
                async with asyncio.timeout_at(min(until, clock() + self._silence_s)):
                    data = await response.content.readany()
                if not data:
                    return
                for frame in map(_FRAME.validate_json, decoder.feed(data)):
                    if isinstance(frame, _Error):
                        raise _CallFailed(f"The tool {tool} has no result: {frame.error.message}")
                    if isinstance(frame, ToolResult):
                        await reach_end(response)
                        yield frame
                        return
                    yield frame
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            raise _CallFailed(f"The tool {tool} cannot be used: the tools cannot be reached now.") from None
        except TimeoutError:
            raise _CallFailed(f"The tool {tool} gave no sign of life for too long. {UNKNOWN_OUTCOME}") from None
        except (ValidationError, WireError):
            raise _CallFailed(f"The tool {tool} answered with something that is no result. {UNKNOWN_OUTCOME}") from None
        except (aiohttp.ClientError, OSError):
            raise _CallFailed(_broken_off(tool)) from None
        finally:
            if response:
                response.close()

    async def _send(self, tool: str, body: bytes, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        return await self._http.post(
            f"{self._base_url}/api/tools/{quote(tool, safe='')}",
            data=body,
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
            allow_redirects=False,  # the token is for the tools API alone
        )


def _broken_off(tool: str) -> str:
    return f"The connection to the tool {tool} broke off during the call. {UNKNOWN_OUTCOME}"


def _read_arguments(call: ToolCall) -> bytes:
    """Raises: _CallFailed"""
    text = call.arguments.strip() or "{}"
    try:
        if not isinstance(orjson.loads(text), dict):
            raise ValueError
    except ValueError:
        raise _CallFailed(f"The arguments of {call.name} are not a JSON object. Send them as one.") from None
    return text.encode()


def _refusal(tool: str, status: int, content: bytes) -> str:
    try:
        message = _ERROR.validate_json(content).error.message
    except ValidationError:  # from a server that is being stopped, or a proxy before it
        return f"The tool {tool} has no result (status {status}). {UNKNOWN_OUTCOME}"
    if status == 400:
        return f"The arguments of {tool} are wrong: {message}"
    return f"The tool {tool} cannot be used: {message}"
