"""Both servers on real sockets, with tools that are played and a fake model server that is scripted.

async with running_agents(tmp_path, fake) as server:
    response = await server.ask("What is 6 x 7?", agent_type="react")
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx

from backend.api.app import create_app
from backend.api.tools_app import create_tools_app
from tests.support.fake_llamacpp import FakeLlamaCpp
from tests.support.fake_ollama import FakeModel, FakeOllama
from tests.support.llm_script import Reply
from tests.support.server import make_settings
from tests.support.serving import running
from tests.support.toy_tool.tool import ToyTool

SECRET = "the secret of both servers in these tests"
PLACE = "tests.support.toy_tool.tool"
TOYS = {"toy": f"{PLACE}:ToyTool"}
CHAT = "/v1/chat/completions"
Choice = Callable[[list[dict[str, Any]]], Reply]


class NativeModel(FakeOllama):
    """A model server whose model calls tools as its template has it. `choose` answers from the messages of a call."""

    choose: Choice | None = None

    def __init__(self, **fields: Any) -> None:
        super().__init__([FakeModel(capabilities=("completion", "tools"), **fields)])

    def next_reply(self, messages: list[dict[str, Any]]) -> Reply:
        return self.choose(messages) if self.choose else super().next_reply(messages)


class ConstrainedModel(FakeLlamaCpp):
    """A model server whose template knows no tools."""

    choose: Choice | None = None

    def __init__(self, **fields: Any) -> None:
        super().__init__(supports_tools=False, **fields)

    def next_reply(self, messages: list[dict[str, Any]]) -> Reply:
        return self.choose(messages) if self.choose else super().next_reply(messages)


@dataclass
class Stream:
    """A stream as a client reads it."""

    frames: list[Any]
    response: httpx.Response

    @property
    def chunks(self) -> list[dict[str, Any]]:
        return [frame for frame in self.frames if isinstance(frame, dict)]

    @property
    def deltas(self) -> list[dict[str, Any]]:
        return [chunk["choices"][0]["delta"] for chunk in self.chunks if chunk.get("choices")]

    @property
    def text(self) -> str:
        return "".join(delta.get("content") or "" for delta in self.deltas)

    @property
    def reasoning(self) -> str:
        return "".join(delta.get("reasoning_content") or "" for delta in self.deltas)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [chunk["agent_event"] for chunk in self.chunks if "agent_event" in chunk]

    @property
    def finish_reason(self) -> str | None:
        reasons = [chunk["choices"][0]["finish_reason"] for chunk in self.chunks if chunk.get("choices")]
        return next((reason for reason in reasons if reason), None)

    def check(self) -> None:
        """Hold the stream to the grammar that clients rely on."""
        assert self.frames[-1] == "[DONE]", self.frames[-3:]
        assert not [chunk for chunk in self.chunks if "error" in chunk]
        assert self.deltas[0].get("role") == "assistant"
        assert not [delta for delta in self.deltas[1:] if "role" in delta]
        assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in self.chunks}) == 1
        finals = [
            at for at, chunk in enumerate(self.chunks) if chunk["choices"] and chunk["choices"][0]["finish_reason"]
        ]
        assert len(finals) == 1
        assert self.finish_reason in {"stop", "length", "content_filter"}


@dataclass
class RunningAgents:
    url: str
    alice: httpx.AsyncClient
    bob: httpx.AsyncClient
    toy: ToyTool
    data_dir: Path
    main: Any
    tools: Any

    async def ask(self, question: str | list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
        """The whole answer of a request that does not stream."""
        response = await self.alice.post(CHAT, json=_body(question, fields))
        assert response.status_code == 200, response.text
        return cast(dict[str, Any], response.json()) | {"headers": response.headers}

    async def stream(self, question: str | list[dict[str, Any]], **fields: Any) -> Stream:
        response = await self.alice.post(CHAT, json=_body(question, fields) | {"stream": True})
        assert response.status_code == 200, response.text
        lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line.startswith("data: ")]
        return Stream([line if line == "[DONE]" else json.loads(line) for line in lines], response)


def _body(question: str | list[dict[str, Any]], fields: dict[str, Any]) -> dict[str, Any]:
    messages = [{"role": "user", "content": question}] if isinstance(question, str) else question
    return {"messages": messages, **fields}


@asynccontextmanager
async def running_agents(
    data_dir: Path, *fakes: FakeOllama | FakeLlamaCpp, tools: Mapping[str, str] = TOYS, **changes: Any
) -> AsyncIterator[RunningAgents]:
    kinds = {"ollama": FakeOllama, "llamacpp": FakeLlamaCpp}
    chain = {name: ",".join(fake.url for fake in fakes if isinstance(fake, kind)) for name, kind in kinds.items()}
    backends: dict[str, Any] = {f"{name.upper()}_BASE_URL": urls for name, urls in chain.items() if urls}
    backends |= {"LLM_BACKEND": ",".join(name for name, urls in chain.items() if urls), "OLLAMA_MODEL": "smollm2:135m"}
    common = {"JWT_SECRET_KEY": SECRET, "DEFAULT_AGENT": "react", **backends, **changes}
    # In a thread, since it reads prompts and loads tools: a server does so before its loop runs.
    tools_app = await asyncio.to_thread(create_tools_app, make_settings(data_dir, **common), tools)
    async with running(tools_app) as tools_url:
        port = int(tools_url.rpartition(":")[2])
        app = create_app(make_settings(data_dir, **{**common, "TOOLS_PORT": port}))
        async with running(app) as url, httpx.AsyncClient(base_url=url, timeout=30) as nobody:
            clients = []
            for name in ("alice", "bob"):
                answer = await nobody.post("/api/auth/signup", json={"username": name, "password": "correct horse"})
                headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
                clients.append(httpx.AsyncClient(base_url=url, headers=headers, timeout=30))
            async with clients[0], clients[1]:
                toy = tools_app.state.context.toolbox.find("toy").tool if "toy" in tools else None
                yield RunningAgents(
                    url,
                    clients[0],
                    clients[1],
                    cast(ToyTool, toy),
                    data_dir,
                    app.state.context,
                    tools_app.state.context,
                )
