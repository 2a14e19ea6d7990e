"""The `websearch` tool: what the web says, and where."""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib import import_module
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from backend.core.contracts import ToolContext, ToolFailure, ToolResult, ToolSpec, ToolStatus
from backend.core.prompts import load_prompt
from backend.core.untrusted import mark_as_data
from backend.utils.children import Children
from backend.utils.guarded_fetch import WEB_PORTS, AddressCheck, is_public_address
from config import Settings
from tools.cited_answers import Source, answer_from, list_all

from .args import WebSearchArgs
from .cached import RecentSearches
from .chain import Failure, Found, NothingFound, SearchChain
from .keyless import Keyless
from .page import PageReader
from .rates import UserRates
from .search import SearchProvider, SearchRequest, SearchResult
from .searxng import SearXNG

NAME = "websearch"
ANSWER_SHARE = 0.9  # of the call's time: then the results are returned without an answer
SOURCE_CHARS = 300  # of a snippet, where sources are listed
CHILDREN_AT_ONCE = 4
CHILD_ENVIRONMENT = ("HTTP_PROXY", "HTTPS_PROXY", "DDGS_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")
HOW_TO_ENABLE = (
    "Set TAVILY_API_KEY (a key from https://tavily.com), or SEARXNG_URL (a SearXNG server of yours), or "
    "WEBSEARCH_KEYLESS=true (public search engines), and start the tools API again."
)


class WebSearch:
    """
    Args:
        allowed: the addresses that pages may be fetched from.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        allowed: AddressCheck = is_public_address,
        ports: Collection[int] = WEB_PORTS,
    ) -> None:
        self.spec = ToolSpec(
            name=NAME,
            description=load_prompt("tools/websearch").text,
            args=WebSearchArgs,
            timeout_s=settings.DEFAULT_TOOL_TIMEOUT,
            concurrency=16,
            queue=64,
        )
        self._settings = settings
        self._answer_prompt = load_prompt("tools/websearch_answer")
        self._children = Children(CHILDREN_AT_ONCE, environment=CHILD_ENVIRONMENT)
        self._pages = PageReader(self._children, allowed=allowed, ports=ports)
        self._rates = UserRates(settings.WEBSEARCH_PER_MINUTE)
        self._recent = RecentSearches()
        self._chain = SearchChain([])
        self._missing: list[str] = []  # what could not be set up, and why

    async def start(self) -> None:
        settings, providers = self._settings, list[SearchProvider]()
        if settings.TAVILY_API_KEY:
            try:
                tavily = await asyncio.to_thread(import_module, f"{__package__}.tavily")  # its packages take a while
                key, url = settings.TAVILY_API_KEY, settings.TAVILY_BASE_URL
                providers.append(tavily.Tavily(key, url, settings.TAVILY_SEARCH_DEPTH))
            except ModuleNotFoundError as error:
                self._missing.append(_missing("Tavily", error.name))
        if settings.SEARXNG_URL:
            providers.append(SearXNG(settings.SEARXNG_URL))
        if settings.WEBSEARCH_KEYLESS:
            if await asyncio.to_thread(find_spec, "ddgs"):
                providers.append(Keyless(self._children))
            else:
                self._missing.append(_missing("Searching without a key", "ddgs"))
        if providers and not await asyncio.to_thread(find_spec, "trafilatura"):
            self._missing.append(_missing("Reading pages", "trafilatura"))
        self._chain = SearchChain(providers)

    async def close(self) -> None:
        await self._chain.close()

    def status(self) -> ToolStatus:
        states = self._chain.states()
        if self._chain.is_usable:
            return ToolStatus(True, details={"providers": states, "missing": self._missing})
        reasons = [*(state["reason"] for state in states), *self._missing] or ["No search provider is set up."]
        return ToolStatus(False, " ".join(reasons), HOW_TO_ENABLE)

    async def run(self, args: WebSearchArgs, context: ToolContext) -> ToolResult:
        until = asyncio.get_running_loop().time() + self._settings.DEFAULT_TOOL_TIMEOUT * ANSWER_SHARE
        if wait_s := self._rates.take(context.username):
            raise ToolFailure(
                f"You may search {self._settings.WEBSEARCH_PER_MINUTE} times a minute. Try again {_in(wait_s)}, or "
                "work with what you have found."
            )
        if args.fetch_url:
            return await self._read_page(args.fetch_url, context)
        found, cached = await self._search(self._request(args), context)
        data = _describe(found, cached)
        if not found.results:
            words = "Nothing was found. Search with other or fewer words, or without limits to domains and time."
            return ToolResult(True, words, data)
        sources = [_as_source(result) for result in found.results]
        if args.raw:
            return ToolResult(True, list_all(sources), data)
        system = self._answer_prompt.fill(today=datetime.now(UTC).strftime("%A, %d %B %Y"))
        within_s = max(0.0, until - asyncio.get_running_loop().time())
        return await answer_from(sources, args.query, system, data, context, tool=NAME, within_s=within_s)

    async def _search(self, request: SearchRequest, context: ToolContext) -> tuple[Found, bool]:
        if found := self._recent.get(request):
            return found, True
        await context.progress("Searching the web", {})
        try:
            found = await self._chain.search(request)
        except NothingFound as nothing:
            raise _failure(nothing.failures) from None
        sources = [{"title": result.title, "url": result.url} for result in found.results]
        await context.progress(f"Found {len(sources)} results", {"provider": found.provider, "results": sources})
        self._recent.put(request, replace(found, failures=()))  # they are of that moment
        return found, False

    async def _read_page(self, url: str, context: ToolContext) -> ToolResult:
        await context.progress("Reading the page", {})
        page = await self._pages.read(url)
        if not page.text:
            raise ToolFailure("The page has no text: it may need a browser. Try another address, or search instead.")
        head = "\n".join(part for part in (page.title, page.published) if part)
        text = mark_as_data(f"{head}\n\n{page.text}".strip(), f"the page at {urlsplit(page.url).hostname}")
        return ToolResult(True, text, {"page": asdict(page)})

    def _request(self, args: WebSearchArgs) -> SearchRequest:
        return SearchRequest(
            query=args.query,
            max_results=args.max_results or self._settings.WEBSEARCH_MAX_RESULTS,
            include_domains=tuple(args.include_domains),
            exclude_domains=tuple(args.exclude_domains),
            topic=args.topic,
            time_range=None if args.time_range == "any" else args.time_range,
        )


def _as_source(result: SearchResult) -> Source:
    date = f"\nPublished: {result.published}" if result.published else ""
    return Source(f"{result.title}: {result.url}", f"{result.title}\n{result.url}{date}", result.snippet)


def _missing(what: str, package: str | None) -> str:
    return f"{what} needs the Python package {package}: pip install -r requirements-tools.txt."


def _describe(found: Found, cached: bool) -> dict[str, Any]:
    return {
        "provider": found.provider,
        "cached": cached,
        "results": [asdict(result) for result in found.results],
        "sources": [
            {"number": number, "title": result.title, "url": result.url, "snippet": result.snippet[:SOURCE_CHARS]}
            for number, result in enumerate(found.results, 1)
        ],
        "failures": [failure.as_data() for failure in found.failures],
    }


def _failure(failures: Sequence[Failure]) -> ToolFailure:
    words = ["The web cannot be searched now.", *(failure.message for failure in failures)]
    waits = [failure.retry_after_s for failure in failures if failure.retry_after_s is not None]
    if any(failure.kind == "query" for failure in failures):
        words.append("Put the search in other words.")
    elif waits:
        words.append(f"Try again {_in(min(waits))}, or answer without the web and say so.")
    return ToolFailure(" ".join(words), {"failures": [failure.as_data() for failure in failures]})


def _in(wait_s: float) -> str:
    if wait_s < 100:
        return f"in {max(1, round(wait_s))} s"
    return f"in {round(wait_s / 60)} minutes" if wait_s < 5400 else f"in {round(wait_s / 3600)} hours"
