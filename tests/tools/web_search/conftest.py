"""The real tools API with `websearch`, a fake Tavily, and a fake Ollama that writes the answers."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from backend.core.prompts import load_prompt
from tests.support.fake_ollama import FakeModel, FakeOllama
from tests.support.fake_tavily import KEY, FakeTavily
from tests.support.tools_server import RunningTools, running_tools

for prompt in ("tools/websearch", "tools/websearch_answer"):
    load_prompt(prompt)  # as the real server does, before it has an event loop

TOOLS = {"websearch": "tests.support.loopback_web_search:LoopbackWebSearch"}
MODEL = "smollm2:135m"
ROUTE = "/api/tools/websearch"


@dataclass
class Web:
    tools: RunningTools
    tavily: FakeTavily
    ollama: FakeOllama

    async def call(self, client: httpx.AsyncClient | None = None, **args: Any) -> dict[str, Any]:
        response = await (client or self.tools.alice).post(ROUTE, json=args)
        assert response.status_code == 200, response.text
        return response.json()

    async def search(self, query: str = "how long is the forth bridge", **args: Any) -> dict[str, Any]:
        return await self.call(query=query, **args)

    async def stream(self, **args: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """The progress of a call, and its result."""
        headers = {"Accept": "text/event-stream"}
        response = await self.tools.alice.post(ROUTE, json=args, headers=headers)
        frames = [frame.split("\n") for frame in response.text.split("\n\n") if frame.startswith("event: ")]
        events = [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in frames]
        assert events[-1][0] == "result"
        return [data for name, data in events if name == "progress"], events[-1][1]

    async def state(self) -> dict[str, Any]:
        return (await self.tools.alice.get("/api/tools/list")).json()["tools"][0]


@asynccontextmanager
async def running_web(tmp_path: Path, *, models: list[FakeModel] | None = None, **changes: Any) -> AsyncIterator[Web]:
    async with AsyncExitStack() as stack:
        tavily = await stack.enter_async_context(FakeTavily())
        ollama = await stack.enter_async_context(FakeOllama(models))
        settings = {
            "TAVILY_API_KEY": KEY,
            "TAVILY_BASE_URL": tavily.url,
            "LLM_BACKEND": "ollama",
            "OLLAMA_BASE_URL": ollama.url,
            "OLLAMA_MODEL": MODEL,
            **changes,
        }
        tools = await stack.enter_async_context(running_tools(tmp_path, TOOLS, **settings))
        yield Web(tools, tavily, ollama)


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[Web]:
    async with running_web(tmp_path) as web:
        yield web
