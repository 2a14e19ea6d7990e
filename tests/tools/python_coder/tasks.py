"""The nanocoder mode for tests: a started tool, and what a scripted model says to steer it."""

import asyncio
import json
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from backend.core.contracts import ToolContext, no_progress
from backend.core.messages import ToolCall
from config import Settings
from tests.support.scripted import ScriptedLLM
from tools.python_coder.nanocoder_install import HOW_TO_INSTALL, NotInstalled, find_installation
from tools.python_coder.tool import make_python_coder


def is_installed() -> bool:
    try:
        return bool(find_installation())
    except NotInstalled:
        return False


installed = pytest.mark.skipif(not is_installed(), reason=HOW_TO_INSTALL)


def settings(data_dir: Path, **values) -> Settings:
    values = {"PYTHON_MEMORY_MB": 512, "PYTHON_DISK_MB": 48, "NANOCODER_TIMEOUT": 60, **values}
    return Settings(_env_file=None, DATA_DIR=data_dir, PYTHON_EXECUTOR_MODE="nanocoder", **values)


@asynccontextmanager
async def started(data_dir: Path, **values):
    tool = await asyncio.to_thread(make_python_coder, settings(data_dir, **values))
    try:
        await tool.start()
        assert tool.status().enabled, tool.status()
        yield tool
    finally:
        await tool.close()


def context(data_dir: Path, llm: ScriptedLLM, session: str = "session", progress=no_progress) -> ToolContext:
    return ToolContext("alice", session, "request", data_dir / "scratch" / session, progress, llm=llm, model="chosen")


def write(path: str, content: str) -> list[ToolCall]:
    return [ToolCall(f"write_{path}", "write_file", json.dumps({"path": path, "content": content}))]


def bash(command: str) -> list[ToolCall]:
    return [ToolCall(f"bash_{abs(hash(command))}", "execute_bash", json.dumps({"command": command}))]
