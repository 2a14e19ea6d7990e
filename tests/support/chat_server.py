"""The main API with a fake Ollama behind it, and what tests of its routes ask of it again and again."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.support.fake_ollama import FakeOllama
from tests.support.server import RunningServer, make_settings, running_server

MODEL = "smollm2:135m"
CHAT = "/v1/chat/completions"


@asynccontextmanager
async def chat_server(data_dir: Path, ollama: FakeOllama, **changes: Any) -> AsyncIterator[RunningServer]:
    chain = {"LLM_BACKEND": "ollama", "OLLAMA_BASE_URL": ollama.url, "OLLAMA_MODEL": MODEL}
    async with running_server(make_settings(data_dir, **{**chain, **changes})) as server:
        yield server


async def admin_of(server: RunningServer) -> httpx.AsyncClient:
    """A client of an admin."""
    context = server.app.state.context
    user = await context.users.create("root", "correct horse", "admin")
    token = context.authenticator.make_token(user)
    return httpx.AsyncClient(base_url=server.url, headers={"Authorization": f"Bearer {token}"}, timeout=30)


def with_key(server: RunningServer, key: str, **headers: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=server.url, headers={"Authorization": f"Bearer {key}", **headers}, timeout=30)


async def ask(client: httpx.AsyncClient, question: str = "Hi", **fields: Any) -> httpx.Response:
    headers = fields.pop("headers", {})
    messages = fields.pop("messages", [{"role": "user", "content": question}])
    return await client.post(CHAT, json={"messages": messages, **fields}, headers=headers)


def frames_of(text: str) -> list[Any]:
    frames = [line.removeprefix("data: ") for line in text.split("\n\n") if line.startswith("data: ")]
    return [frame if frame == "[DONE]" else json.loads(frame) for frame in frames]


def streamed_text(text: str) -> str:
    chunks = [frame for frame in frames_of(text) if isinstance(frame, dict) and frame.get("choices")]
    return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)


def code_of(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]
