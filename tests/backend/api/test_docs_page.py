"""The page of the routes works where there is no internet."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest

from backend.api.app import create_app
from backend.api.tools_app import create_tools_app
from tests.support.server import make_settings
from tests.support.serving import running


@pytest.fixture(params=[create_app, lambda settings: create_tools_app(settings, {})], ids=["main", "tools"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    app = await asyncio.to_thread(request.param, make_settings(tmp_path))
    async with running(app) as address:
        yield address


async def test_all_that_the_page_loads_is_ours(url: str) -> None:
    async with httpx.AsyncClient() as client:
        page = await client.get(f"{url}/docs")
        loaded = re.findall(r"""(?:src|href)="([^"]+)"|url: '([^']+)'""", page.text)
        addresses = [urljoin(str(page.url), one or other) for one, other in loaded]
        assert len(addresses) == 4, page.text
        for address in addresses:
            assert address.startswith(f"{url}/"), address
            assert (await client.get(address)).status_code == 200, address
        assert (await client.get(f"{url}/docs/assets/../../../main.py")).status_code == 404
    assert "https://" not in page.text
