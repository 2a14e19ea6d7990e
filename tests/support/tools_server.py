"""The real tools API on a real socket, with the toy tools and two users: `async with running_tools(tmp_path)`."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx

from backend.api.tools_app import create_tools_app
from backend.api.tools_context import ToolsContext
from backend.core.storage.sessions import new_session_id
from tests.support.accounts import SECRET, OpenedAccounts, opened_accounts
from tests.support.serving import running
from tests.support.toy_tool.tool import ToyTool

PLACE = "tests.support.toy_tool.tool"
TOYS = {name: f"{PLACE}:{name.capitalize()}Tool" for name in ("toy", "broken", "disabled", "slow")}


@dataclass
class RunningTools:
    url: str
    context: ToolsContext
    main: OpenedAccounts  # as the main API sees them: the same database and secret
    alice: httpx.AsyncClient
    bob: httpx.AsyncClient
    nobody: httpx.AsyncClient  # without credentials

    @property
    def toy(self) -> ToyTool:
        return cast(ToyTool, self.context.toolbox.find("toy").tool)

    async def new_session(self, username: str) -> str:
        session_id = new_session_id()
        await self.context.sessions.create(username, session_id, ())
        return session_id

    async def busy(self, calls: int) -> None:
        """Return once the toy runs so many calls."""
        while self.context.toolbox.find("toy").queue.running != calls:
            await asyncio.sleep(0.01)


@asynccontextmanager
async def running_tools(data_dir: Path, tools: Mapping[str, str] = TOYS, **changes: Any) -> AsyncIterator[RunningTools]:
    async with opened_accounts(data_dir, JWT_SECRET_KEY=SECRET, **changes) as main:
        headers = []
        for name in ("alice", "bob"):
            user = await main.users.create(name, "correct horse", "user")
            headers.append({"Authorization": f"Bearer {main.authenticator.make_token(user)}"})
        # In a thread, since it reads prompts and loads tools: a server does so before its loop runs.
        app = await asyncio.to_thread(create_tools_app, main.settings, tools)
        async with (
            running(app) as url,
            httpx.AsyncClient(base_url=url, timeout=30, headers=headers[0]) as alice,
            httpx.AsyncClient(base_url=url, timeout=30, headers=headers[1]) as bob,
            httpx.AsyncClient(base_url=url, timeout=30) as nobody,
        ):
            yield RunningTools(url, app.state.context, main, alice, bob, nobody)
