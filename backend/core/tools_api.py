"""Plain requests to the tools API on a user's behalf: what the main API passes on, with the tools API's own errors."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson

from backend.core.errors import ApiError, Unavailable
from backend.core.llm.http import read_body
from backend.core.llm.wire import WireError
from backend.core.storage.sessions import new_session_id
from backend.core.tool_client import TokenMaker

CONNECT_TIMEOUT_S = 2.0
MAX_BODY_BYTES = 64 * 2**20


class RelayedError(ApiError):
    """An error of the tools API, as it stands."""

    def __init__(self, status: int, error: Mapping[str, Any], *, retry_after_s: float | None) -> None:
        code, param = error.get("code"), error.get("param")
        super().__init__(str(error.get("message")), param=param, code=code, retry_after_s=retry_after_s)
        self.status = status
        self.type = str(error.get("type"))


class ToolsApi:
    """
    Raises (from everything here):
        RelayedError: the tools API refused.
        Unavailable: it cannot be reached, or did not answer in time.
    """

    def __init__(self, http: aiohttp.ClientSession, base_url: str, make_token: TokenMaker) -> None:
        self._http = http
        self._base_url = base_url
        self._make_token = make_token

    async def send(
        self, username: str, method: str, path: str, *, json: Any = None, data: Any = None, timeout_s: float
    ) -> Any:
        """Return the JSON of the answer.

        Args:
            path: with its parts quoted already.
            data: a body that is not JSON.
        """
        async with self.open(username, method, path, json=json, data=data, timeout_s=timeout_s) as response:
            return orjson.loads(await read_body(response, MAX_BODY_BYTES))

    @asynccontextmanager
    async def open(
        self,
        username: str,
        method: str,
        path: str,
        *,
        json: Any = None,
        data: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer that is read by the caller, within the time that is left."""
        token = self._make_token(username, new_session_id(), timeout_s=timeout_s)
        sent = {"Authorization": f"Bearer {token}", **(headers or {})}
        if json is not None:
            data, sent["Content-Type"] = orjson.dumps(json), "application/json"
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_TIMEOUT_S)
        url = f"{self._base_url}{path}"
        try:
            async with self._http.request(
                method, url, data=data, headers=sent, timeout=timeout, allow_redirects=False
            ) as response:
                if response.status >= 400:
                    raise _refusal(response, await read_body(response, MAX_BODY_BYTES))
                yield response
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            raise Unavailable("The tools cannot be reached now.", code="tools_unavailable", retry_after_s=5) from None
        except (aiohttp.ClientError, TimeoutError, asyncio.IncompleteReadError, WireError, orjson.JSONDecodeError):
            raise Unavailable("The tools did not answer in time.", code="tools_unavailable", retry_after_s=5) from None


def _refusal(response: aiohttp.ClientResponse, content: bytes) -> ApiError:
    try:
        error = orjson.loads(content)["error"]
        retry_after = response.headers.get("Retry-After")
        return RelayedError(response.status, error, retry_after_s=float(retry_after) if retry_after else None)
    except (ValueError, KeyError, TypeError, AttributeError):  # from a server that is being stopped, or a proxy
        return Unavailable("The tools did not answer as they should.", code="tools_unavailable", retry_after_s=5)
