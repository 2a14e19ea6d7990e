"""The HTTP session that backends share."""

from collections.abc import AsyncIterator

import aiohttp
import pytest

from backend.core.llm.http import open_http_session


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_http_session(max_connections=100) as session:
        yield session
