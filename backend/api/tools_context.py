"""Puts the tools API's parts together, in one place, and takes them apart in reverse."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from backend.api.metrics import Metrics
from config import Settings


@dataclass(frozen=True, slots=True)
class ToolsContext:
    """What routes work with. One for the life of the process, at `app.state.context`."""

    settings: Settings
    metrics: Metrics
    started_at: float  # time.monotonic() seconds


@asynccontextmanager
async def open_tools_context(settings: Settings, metrics: Metrics) -> AsyncIterator[ToolsContext]:
    yield ToolsContext(settings=settings, metrics=metrics, started_at=time.monotonic())
