"""The real application on a real socket, inside the test's own event loop: `async with running_server(settings)`."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from backend.api.app import create_app
from config import Settings


@dataclass
class RunningServer:
    url: str
    app: FastAPI
    client: httpx.AsyncClient  # without credentials

    async def signed_in(self, username: str = "alice", password: str = "correct horse") -> httpx.AsyncClient:
        """A client with a fresh API key of a (new) user."""
        answer = await self.client.post("/api/auth/signup", json={"username": username, "password": password})
        if answer.status_code == 409:
            answer = await self.client.post("/api/auth/login", json={"username": username, "password": password})
        token = answer.json()["access_token"]
        return httpx.AsyncClient(base_url=self.url, headers={"Authorization": f"Bearer {token}"}, timeout=30)


def make_settings(data_dir: Path, **changes: Any) -> Settings:
    """Settings for tests: nothing from this machine's environment, cheap passwords, no backend but the given ones."""
    defaults: dict[str, Any] = {
        "DATA_DIR": data_dir,
        "BCRYPT_ROUNDS": 4,
        "LLM_BACKEND": "ollama",
        "OLLAMA_BASE_URL": "http://127.0.0.1:9",
        "LLAMACPP_BASE_URL": "http://127.0.0.1:9",
        "TOOLS_PORT": 9,
    }
    return Settings(_env_file=None, **{**defaults, **changes})


@asynccontextmanager
async def running(app: FastAPI) -> AsyncIterator[str]:
    """Serve an application on a free loopback port and yield its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, loop="none", lifespan="on", log_config=None, timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        if task.done():
            await task
            raise RuntimeError("the application did not start")
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def running_server(settings: Settings) -> AsyncIterator[RunningServer]:
    app = create_app(settings)
    async with running(app) as url, httpx.AsyncClient(base_url=url, timeout=30) as client:
        yield RunningServer(url, app, client)
