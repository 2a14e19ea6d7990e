"""The sign-in and admin routes on a real socket, over real accounts, without the rest of the main API."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
from fastapi import FastAPI

from backend.api.deps import Caller, Context
from backend.api.errors import install_error_handlers
from backend.api.routes import admin, auth
from backend.core.storage.drafts import Drafts
from backend.core.storage.files import Files
from backend.core.storage.sessions import Sessions
from backend.core.storage.user_data import UserData
from tests.support.accounts import OpenedAccounts, opened_accounts
from tests.support.serving import running


@dataclass
class SignInServer:
    opened: OpenedAccounts
    client: httpx.AsyncClient
    sessions: Sessions

    async def add(self, username: str, role: str = "user", password: str = "correct horse") -> dict[str, str]:
        """Make an account and return the headers that sign it in."""
        user = await self.opened.users.create(username, password, role)
        return {"Authorization": f"Bearer {self.opened.authenticator.make_token(user)}"}


@asynccontextmanager
async def sign_in_server(data_dir: Path, **changes: Any) -> AsyncIterator[SignInServer]:
    app = FastAPI()
    install_error_handlers(app)
    app.include_router(auth.router)
    app.include_router(admin.router)

    @app.get("/who")
    async def who(caller: Caller, context: Context) -> dict[str, Any]:
        return {"username": caller.username, "role": caller.role, "key_id": caller.key_id, "same": bool(context.users)}

    async with opened_accounts(data_dir, **changes) as opened:
        sessions = Sessions(opened.database, data_dir)
        files = Files(opened.database, Drafts(data_dir), data_dir, quota_bytes=2**20)
        app.state.context = SimpleNamespace(
            user_data=UserData(sessions, files, data_dir),
            settings=opened.settings,
            database=opened.database,
            users=opened.users,
            api_keys=opened.api_keys,
            authenticator=opened.authenticator,
            sessions=sessions,
        )
        async with running(app) as url, httpx.AsyncClient(base_url=url, timeout=30) as client:
            yield SignInServer(opened, client, sessions)
        await sessions.close()
