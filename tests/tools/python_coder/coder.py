"""A started tool for tests, and calls to it in one line."""

import asyncio
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from backend.core.contracts import ToolContext, ToolResult, no_progress
from config import Settings
from tools.python_coder.args import PythonCoderArgs
from tools.python_coder.tool import WARM_LIBRARIES, PythonCoder

LIMITS = {
    "PYTHON_MEMORY_MB": 512,
    "PYTHON_DISK_MB": 48,
    "PYTHON_MAX_PROCESSES": 24,
    "PYTHON_MAX_INTERPRETERS": 4,
    "DEFAULT_TOOL_TIMEOUT": 90,
}


class Coder:
    def __init__(self, tool: PythonCoder, data_dir: Path) -> None:
        self.tool = tool
        self.data_dir = data_dir

    def context(self, session: str, **fields: Any) -> ToolContext:
        fields.setdefault("progress", no_progress)
        return ToolContext("alice", session, "request", self.folder(session), **fields)

    def folder(self, session: str) -> Path:
        return self.data_dir / "scratch" / session

    async def run(self, code: str, session: str = "session", **arguments: Any) -> ToolResult:
        return await self.tool.run(
            PythonCoderArgs.model_construct(**{"code": code, "timeout": None, "reset": False, **arguments}),
            self.context(session),
        )


@asynccontextmanager
async def started_coder(
    data_dir: Path, *, first_tier: int = 1, libraries: tuple[str, ...] = WARM_LIBRARIES, **settings: Any
):
    values = Settings(_env_file=None, DATA_DIR=data_dir, **{**LIMITS, **settings})
    tool = await asyncio.to_thread(PythonCoder, values, first_tier=first_tier, libraries=libraries)
    try:
        await tool.start()
        assert tool.status().enabled, tool.status()
        yield Coder(tool, data_dir)
    finally:
        await tool.close()


def started_cold_coder(data_dir: Path, **settings: Any) -> AbstractAsyncContextManager[Coder]:
    """Without the libraries, for tests whose code needs none: a start does not wait for them."""
    return started_coder(data_dir, libraries=(), **settings)
