"""A SearXNG server of one's own, through its JSON output."""

import aiohttp
from pydantic import BaseModel, ValidationError

from backend.core.llm.http import read_body
from backend.core.llm.wire import WireError

from .search import (
    CONNECT_TIMEOUT_S,
    SEARCH_TIMEOUT_S,
    SearchFailed,
    SearchRequest,
    SearchResult,
    make_result,
    pick,
    read_retry_after,
)

MAX_BYTES = 8 * 2**20
CATEGORIES = {"general": "general", "news": "news", "finance": "general"}
NO_JSON = (
    "SearXNG refuses to answer in JSON. Add json to search.formats in its settings.yml, and start the tools API again."
)


class _Item(BaseModel):
    url: str
    title: str | None = None
    content: str | None = None
    score: float | None = None
    publishedDate: str | None = None


class _Answer(BaseModel):
    results: list[_Item]
    unresponsive_engines: list[list[str]] = []


class SearXNG:
    name = "searxng"

    def __init__(self, base_url: str) -> None:
        self._url = base_url.rstrip("/") + "/search"
        self._http = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=SEARCH_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def search(self, request: SearchRequest) -> list[SearchResult]:
        query = request.query_with_domains.replace("!!", " ")  # a bang of two would send us to another search engine
        fields = {"q": query, "format": "json", "categories": CATEGORIES[request.topic]}
        if request.time_range:
            fields["time_range"] = request.time_range
        try:
            # Posted, so that no query stands in the log of a proxy between.
            async with self._http.post(self._url, data=fields, allow_redirects=False) as response:
                status, headers = response.status, response.headers
                body = await read_body(response, MAX_BYTES)
        except TimeoutError:
            raise SearchFailed("network", "SearXNG did not answer in time.") from None
        except (aiohttp.ClientError, OSError):
            raise SearchFailed("network", "SearXNG cannot be reached.") from None
        except WireError:
            raise SearchFailed("network", "SearXNG sent far too much.") from None
        if status == 403:
            raise SearchFailed("key", NO_JSON)
        if status == 429:
            words = "SearXNG has been asked too often in a short time (see its limiter)."
            raise SearchFailed("rate", words, retry_after_s=read_retry_after(headers))
        if status == 400:
            raise SearchFailed("query", "SearXNG does not accept the search.")
        if status != 200:
            raise SearchFailed("network", f"SearXNG is out of order (status {status}).")
        try:
            answer = _Answer.model_validate_json(body)
        except ValidationError:
            raise SearchFailed("network", "SearXNG sent something that is no answer.") from None
        if not answer.results and answer.unresponsive_engines:
            names = ", ".join(engine[0] for engine in answer.unresponsive_engines[:5] if engine)
            raise SearchFailed("network", f"None of SearXNG's engines answered ({names}).")
        results = [
            make_result(
                title=item.title, url=item.url, snippet=item.content, score=item.score, published=item.publishedDate
            )
            for item in answer.results
        ]
        return pick(results, request)

    async def close(self) -> None:
        await self._http.close()
