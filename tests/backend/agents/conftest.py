from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.agents import ConstrainedModel, NativeModel, RunningAgents, running_agents


@pytest.fixture
async def model() -> AsyncIterator[NativeModel]:
    async with NativeModel() as fake:
        yield fake


@pytest.fixture
async def plain() -> AsyncIterator[ConstrainedModel]:
    """A model without tool calling."""
    async with ConstrainedModel() as fake:
        yield fake


@pytest.fixture
async def server(tmp_path: Path, model: NativeModel) -> AsyncIterator[RunningAgents]:
    async with running_agents(tmp_path, model) as running:
        yield running


@pytest.fixture
async def plain_server(tmp_path: Path, plain: ConstrainedModel) -> AsyncIterator[RunningAgents]:
    async with running_agents(tmp_path, plain) as running:
        yield running
