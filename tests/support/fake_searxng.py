"""A SearXNG without engines: its JSON as version 2025.8 writes it, and how it refuses.

async with FakeSearXNG() as searxng:
    searxng.reply = SearXNGReply(status=403)
    ... searxng.url, searxng.searches[-1]
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web

TOWERS: tuple[dict[str, Any], ...] = (
    {
        "url": "https://towers.example.org/eiffel",
        "title": "Eiffel Tower",
        "content": "The tower is 330 m tall.",
        "engine": "wikipedia",
        "engines": ["wikipedia", "mojeek"],
        "positions": [1, 2],
        "score": 3.0,
        "category": "general",
        "publishedDate": None,
        "template": "default.html",
        "parsed_url": ["https", "towers.example.org", "/eiffel", "", "", ""],
    },
    {
        "url": "https://www.towers.example.com/news",
        "title": "It was painted again",
        "content": "",
        "engine": "mojeek",
        "engines": ["mojeek"],
        "positions": [2],
        "score": 0.5,
        "category": "general",
        "publishedDate": "2024-05-01T00:00:00",
    },
)


@dataclass(frozen=True, slots=True)
class SearXNGReply:
    results: Sequence[Mapping[str, Any]] = TOWERS
    unresponsive: Sequence[tuple[str, str]] = ()
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None  # the whole answer, as it is


class FakeSearXNG:
    def __init__(self) -> None:
        self.port = 0
        self.searches: list[dict[str, str]] = []
        self.reply = SearXNGReply()
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/search", self._search)
        app.router.add_get("/search", self._search)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner
        await self._runner.cleanup()

    async def _search(self, request: web.Request) -> web.Response:
        fields = {**request.query, **{name: str(value) for name, value in (await request.post()).items()}}
        self.searches.append(fields)
        reply = self.reply
        if reply.body is not None:
            return web.Response(body=reply.body, content_type="application/json")
        if reply.status == 403 or fields.get("format") != "json":
            return web.Response(
                status=403, text="<!doctype html><title>403 Forbidden</title>", content_type="text/html"
            )
        if not fields.get("q"):
            return web.json_response({"error": "No query"}, status=400)
        if reply.status != 200:
            return web.json_response({"error": "search error"}, status=reply.status, headers=reply.headers)
        if fields["q"].startswith("!!"):
            raise web.HTTPFound("https://elsewhere.example.org/")
        answer = {
            "query": fields["q"],
            "number_of_results": 0,
            "results": list(reply.results),
            "answers": [],
            "corrections": [],
            "infoboxes": [],
            "suggestions": [],
            "unresponsive_engines": [list(engine) for engine in reply.unresponsive],
        }
        return web.json_response(answer)
