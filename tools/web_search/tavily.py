"""Tavily, through its own client. What its wire says is read here, status by status: its client drops half of it."""

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx
import orjson
from pydantic import BaseModel, ValidationError
from tavily import AsyncTavilyClient
from tavily.errors import TimeoutError as TavilyTimeout

from backend.core.llm.wire import quotable

from .search import (
    CONNECT_TIMEOUT_S,
    SEARCH_TIMEOUT_S,
    FailureKind,
    SearchFailed,
    SearchRequest,
    SearchResult,
    make_result,
    pick,
    read_retry_after,
)

MAX_CONNECTIONS = 16

KINDS: Mapping[int, FailureKind] = {
    400: "query",
    401: "key",
    403: "plan",
    422: "query",
    429: "rate",
    432: "quota",
    433: "quota",
}
SENTENCES: Mapping[int, str] = {
    401: "Tavily refuses the API key. Set a valid TAVILY_API_KEY and start the tools API again.",
    403: "Tavily does not allow this to the API key's plan.",
    429: "Tavily has been asked too often in a short time.",
    432: "The searches of the Tavily plan are used up. They come back when the plan renews, or with a larger plan.",
    433: "The pay-as-you-go limit of the Tavily account is reached. Raise it in Tavily's settings.",
}


class _Item(BaseModel):
    url: str
    title: str | None = None
    content: str | None = None
    score: float | None = None
    published_date: str | None = None


class _Answer(BaseModel):
    results: list[_Item]


class Tavily:
    name = "tavily"

    def __init__(self, api_key: str, base_url: str, depth: str) -> None:
        self._http = httpx.AsyncClient(
            base_url=base_url,
            timeout=httpx.Timeout(SEARCH_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            limits=httpx.Limits(max_connections=MAX_CONNECTIONS),
            event_hooks={"response": [_check]},
        )
        self._client = AsyncTavilyClient(api_key, client=self._http)
        self._depth: Any = depth

    async def search(self, request: SearchRequest) -> list[SearchResult]:
        try:
            async with asyncio.timeout(SEARCH_TIMEOUT_S):  # the client's own is for each read
                found = await self._client.search(
                    request.query,
                    search_depth=self._depth,
                    topic=request.topic,
                    time_range=request.time_range,
                    max_results=request.max_results,
                    include_domains=request.include_domains or None,
                    exclude_domains=request.exclude_domains or None,
                    timeout=SEARCH_TIMEOUT_S,
                )
            items = _Answer.model_validate(found).results
        except (TimeoutError, TavilyTimeout):
            raise SearchFailed("network", "Tavily did not answer in time.") from None
        except (httpx.HTTPError, httpx.InvalidURL):
            raise SearchFailed("network", "Tavily cannot be reached.") from None
        except (ValidationError, ValueError):
            raise SearchFailed("network", "Tavily sent something that is no answer.") from None
        results = [
            make_result(
                title=item.title, url=item.url, snippet=item.content, score=item.score, published=item.published_date
            )
            for item in items
        ]
        return pick(results, request)

    async def close(self) -> None:
        await self._http.aclose()


async def _check(response: httpx.Response) -> None:
    """Raises: SearchFailed, for everything but an answer."""
    status = response.status_code
    if status == 200:
        return
    told = quotable(_detail(await response.aread()))
    kind = KINDS.get(status, "network")
    sentence = SENTENCES.get(status)
    if kind == "query":
        sentence = f"Tavily does not accept the search: {told or 'it does not say why.'}"
    elif sentence is None:
        sentence = f"Tavily is out of order (status {status})."
    elif kind in {"plan", "quota"} and told:
        sentence = f"{sentence} It says: {told}"
    raise SearchFailed(kind, sentence, retry_after_s=read_retry_after(response.headers))


def _detail(body: bytes) -> str:
    try:
        detail = orjson.loads(body)["detail"]
        return str(detail["error"] if isinstance(detail, dict) else detail)
    except (ValueError, KeyError, TypeError):
        return ""
