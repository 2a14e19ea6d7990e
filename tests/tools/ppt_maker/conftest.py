"""The real tools API with `ppt_maker`, and a model server that writes decks as it is told to."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from pptx import Presentation
from pptx.presentation import Presentation as Pptx

from backend.core.prompts import load_prompt
from tests.support.fake_ollama import FakeModel, FakeOllama
from tests.support.llm_script import Reply, message_text
from tests.support.tools_server import RunningTools, running_tools

for name in ("", "_outline", "_page", "_changes"):
    load_prompt(f"tools/ppt_maker{name}")  # as the real server does, before it has an event loop

TOOLS = {"ppt_maker": "tests.support.ppt_maker_alone:PptMakerAlone"}
ROUTE = "/api/tools/ppt_maker"
Said = dict[str, Any] | str | Reply | None  # None: what the schema asks for, as small as it can be


@dataclass
class Author:
    """What the model writes: an outline, pages by their headline, and changes."""

    outline: Said = None
    pages: dict[str, Said] = field(default_factory=dict)
    changes: Said = None
    asked: list[tuple[str, str]] = field(default_factory=list)  # what for, and the prompt

    def write(self, system: str, prompt: str) -> Said:
        if system.startswith("You plan"):
            self.asked.append(("outline", prompt))
            return self.outline
        if system.startswith("You change"):
            self.asked.append(("changes", prompt))
            return self.changes
        headline = re.findall(r"with the headline: (.*)\n", prompt)[-1]  # the first ones may be quoted in its notes
        self.asked.append((headline, prompt))
        return self.pages.get(headline)


class AuthorServer(FakeOllama):
    def __init__(self, author: Author, context: int) -> None:
        super().__init__([FakeModel("author", context=context, capabilities=("completion", "tools"))])
        self.author = author

    def next_reply(self, messages: list[dict[str, Any]]) -> Reply:
        if len(messages) < 2 or messages[0]["role"] != "system":
            return super().next_reply(messages)
        said = self.author.write(message_text(messages[0]), message_text(messages[-1]))
        if isinstance(said, Reply):
            return said
        return Reply(text=json.dumps(said) if isinstance(said, dict) else said, burst=True)


@dataclass
class Decks:
    tools: RunningTools
    author: Author
    model: AuthorServer
    session: str
    workspace: Path

    async def call(self, client: httpx.AsyncClient | None = None, **args: Any) -> dict[str, Any]:
        headers = {"X-Session-ID": self.session}
        response = await (client or self.tools.alice).post(ROUTE, json=args, headers=headers)
        assert response.status_code == 200, response.text
        return response.json()

    async def make(self, **args: Any) -> tuple[dict[str, Any], Pptx]:
        """A call that succeeds, and the file that it made, opened again."""
        result = await self.call(**args)
        assert result["success"], result["error"]
        return result, await self.open(result)

    async def open(self, result: dict[str, Any]) -> Pptx:
        return await asyncio.to_thread(Presentation, str(self.workspace / result["data"]["files"][0]["name"]))

    async def state(self) -> dict[str, Any]:
        return (await self.tools.alice.get("/api/tools/list")).json()["tools"][0]

    async def put(self, name: str, content: str | bytes) -> None:
        data = content.encode() if isinstance(content, str) else content
        await asyncio.to_thread((self.workspace / name).write_bytes, data)

    async def stream(self, **args: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        headers = {"Accept": "text/event-stream", "X-Session-ID": self.session}
        response = await self.tools.alice.post(ROUTE, json=args, headers=headers)
        frames = [frame.split("\n") for frame in response.text.split("\n\n") if frame.startswith("event: ")]
        events = [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in frames]
        return [data for name, data in events if name == "progress"], events[-1][1]


@asynccontextmanager
async def running_decks(tmp_path: Path, *, window: int = 8192, **changes: Any) -> AsyncIterator[Decks]:
    async with AsyncExitStack() as stack:
        author = Author()
        model = await stack.enter_async_context(AuthorServer(author, window))
        settings = {"LLM_BACKEND": "ollama", "OLLAMA_BASE_URL": model.url, "OLLAMA_MODEL": "author", **changes}
        tools = await stack.enter_async_context(running_tools(tmp_path, TOOLS, **settings))
        session = await tools.new_session("alice")
        yield Decks(tools, author, model, session, await tools.context.sessions.scratch(session))


@pytest.fixture
async def decks(tmp_path: Path) -> AsyncIterator[Decks]:
    async with running_decks(tmp_path) as decks:
        yield decks


def outline(*pages: tuple[str, str], title: str = "Bees of the city") -> dict[str, Any]:
    """An outline of pages: layout and headline."""
    planned = [{"layout": layout, "headline": headline} for layout, headline in pages]
    return {"title": title, "subtitle": "What they need", "pages": planned}


def texts_of(slide: Any) -> str:
    return "\n".join(shape.text_frame.text for shape in slide.shapes if shape.has_text_frame)
