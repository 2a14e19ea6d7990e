"""A Tavily without a web: `POST /search` as the real one was recorded to speak it, with its errors.

async with FakeTavily() as tavily:
    tavily.script(TAVILY_ERRORS["rate"], TavilyReply(results=[...]))  # for the next searches; then as `results`
    ... tavily.url, tavily.searches[-1]
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web

KEY = "tvly-a-key-of-these-tests"

BRIDGES: tuple[dict[str, Any], ...] = (
    {
        "url": "https://bridges.example.org/forth",
        "title": "Forth Bridge",
        "content": "The Forth Bridge is a cantilever railway bridge, 2467 m long, opened on 4 March 1890.",
        "score": 0.97,
        "raw_content": None,
    },
    {
        "url": "https://news.example.com/paint",
        "title": "Paint job is finished",
        "content": "The painting of the Forth Bridge ended in 2011.",
        "score": 0.81,
        "published_date": "Fri, 09 Dec 2011 08:00:00 GMT",
        "raw_content": None,
    },
)


@dataclass(frozen=True, slots=True)
class TavilyReply:
    results: Sequence[Mapping[str, Any]] = BRIDGES
    status: int = 200
    error: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None  # the whole answer, as it is
    delay_s: float = 0.0
    hangs_up: bool = False


TAVILY_ERRORS = {
    "key": TavilyReply(status=401, error="Unauthorized: missing or invalid API key."),
    "plan": TavilyReply(status=403, error="This URL is not supported on your plan."),
    "rate": TavilyReply(
        status=429, error="Your request has been blocked due to excessive requests.", headers={"Retry-After": "7"}
    ),
    "quota": TavilyReply(status=432, error="This request exceeds your plan's set usage limit."),
    "pay_go": TavilyReply(status=433, error="This request exceeds the pay-as-you-go limit."),
    "query": TavilyReply(status=400, error="Query is too long. Max query length is 400 characters."),
    "broken": TavilyReply(status=500, error="Internal Server Error"),
    "garbage": TavilyReply(body=b"<html>502 Bad Gateway</html>"),
    "other_shape": TavilyReply(body=b'{"results": [{"title": 1}]}'),
    "hangs_up": TavilyReply(hangs_up=True),
}


class FakeTavily:
    def __init__(self) -> None:
        self.port = 0
        self.searches: list[dict[str, Any]] = []
        self.left_early = asyncio.Event()  # a client hung up before it had its answer
        self._script: list[TavilyReply] = []
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def script(self, *replies: TavilyReply) -> None:
        self._script.extend(replies)

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/search", self._search)
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner
        await self._runner.cleanup()

    async def _search(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.searches.append(body)
        reply = self._script.pop(0) if self._script else TavilyReply()
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            reply = TAVILY_ERRORS["key"]
        try:
            await asyncio.sleep(reply.delay_s)
        except asyncio.CancelledError:
            self.left_early.set()
            raise
        if reply.hangs_up:
            assert request.transport
            request.transport.abort()
        if reply.body is not None:
            return web.Response(body=reply.body, content_type="application/json")
        if reply.status != 200:
            return web.json_response({"detail": {"error": reply.error}}, status=reply.status, headers=reply.headers)
        answer = {
            "query": body["query"],
            "follow_up_questions": None,
            "answer": None,
            "images": [],
            "results": list(reply.results)[: body.get("max_results", 5)],
            "response_time": 0.4,
            "request_id": "2f1c2a8e-0000-0000-0000-000000000000",
        }
        return web.json_response(answer)
