"""The real application on a real socket, inside the test's own event loop: `async with running_server(settings)`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from backend.api.app import create_app
from config import Settings
from tests.support.serving import running

__all__ = ["RunningServer", "make_settings", "running", "running_server"]


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
async def running_server(settings: Settings) -> AsyncIterator[RunningServer]:
    app = create_app(settings)
    async with running(app) as url, httpx.AsyncClient(base_url=url, timeout=30) as client:
        yield RunningServer(url, app, client)
