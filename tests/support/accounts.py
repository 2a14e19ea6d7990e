"""Accounts and sign-in over a database of the test's own, without a server around them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.core.identity import Accounts, Authenticator, open_accounts, open_authenticator
from backend.core.storage.api_keys import ApiKeys
from backend.core.storage.database import Database
from backend.core.storage.users import Users
from config import Settings

SECRET = "the secret of these tests, long enough"


@dataclass
class OpenedAccounts:
    settings: Settings
    database: Database
    accounts: Accounts
    authenticator: Authenticator

    @property
    def users(self) -> Users:
        return self.accounts.users

    @property
    def api_keys(self) -> ApiKeys:
        return self.accounts.api_keys


@asynccontextmanager
async def opened_accounts(data_dir: Path, secret: str = SECRET, **changes: Any) -> AsyncIterator[OpenedAccounts]:
    settings = Settings(_env_file=None, **{"DATA_DIR": data_dir, "BCRYPT_ROUNDS": 4, **changes})
    database = await asyncio.to_thread(Database, settings.database_url)
    await database.open()
    try:
        async with (
            open_accounts(settings, database) as accounts,
            open_authenticator(settings, database, accounts, secret) as authenticator,
        ):
            yield OpenedAccounts(settings, database, accounts, authenticator)
    finally:
        await database.close()
