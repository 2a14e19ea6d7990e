"""The guide in CLAUDE.md, done word by word on a copy of the project."""

import asyncio
import os
import re
import shutil
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from textwrap import dedent

import httpx

from tests.support.accounts import SECRET, opened_accounts

ROOT = Path(__file__).parents[1]
COPIED = ("backend", "prompts", "tools", "config.py", "tools_config.py", "tools_server.py", "pyproject.toml")
BLOCK = re.compile(r"^ *```python\n *# (\S+)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)


def follow_the_guide(project: Path) -> None:
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, project / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, project / name)
    blocks = {path: dedent(body) for path, body in BLOCK.findall((ROOT / "CLAUDE.md").read_text())}
    assert set(blocks) == {"tools/dice/args.py", "tools/dice/tool.py", "tools_config.py", "config.py"}
    for name in ("tools/dice/args.py", "tools/dice/tool.py"):
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text(blocks[name])
    head, line, _ = blocks["tools_config.py"].splitlines()
    insert_after(project / "tools_config.py", head, line)
    insert_after(project / "config.py", "    # --- Tools ---", f"    {blocks['config.py'].strip()}")


def insert_after(file: Path, start: str, line: str) -> None:
    """Put a line after the one that begins so."""
    lines = file.read_text().splitlines(keepends=True)
    (place,) = (number for number, text in enumerate(lines, 1) if text.startswith(start))
    file.write_text("".join([*lines[:place], f"{line}\n", *lines[place:]]))


@asynccontextmanager
async def tools_server(project: Path, **environment: str) -> AsyncIterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    process = await asyncio.create_subprocess_exec(
        sys.executable, "tools_server.py", cwd=project, env=os.environ | environment | {"TOOLS_PORT": port}
    )
    url = f"http://127.0.0.1:{port}"
    try:
        async with asyncio.timeout(30), httpx.AsyncClient() as client:
            while True:
                try:
                    await client.get(f"{url}/health")
                    break
                except httpx.ConnectError:
                    assert process.returncode is None
                    await asyncio.sleep(0.1)
        yield url
    finally:
        process.terminate()
        await process.wait()


async def run(*command: str, cwd: Path) -> int:
    return await (await asyncio.create_subprocess_exec(*command, cwd=cwd)).wait()


async def test_the_guide_leads_to_a_tool_that_works(tmp_path: Path) -> None:
    project, data = tmp_path / "project", tmp_path / "data"
    project.mkdir()
    follow_the_guide(project)
    async with opened_accounts(data) as accounts:
        user = await accounts.users.create("alice", "correct horse", "user")
        headers = {"Authorization": f"Bearer {accounts.authenticator.make_token(user)}"}
    settings = {"DATA_DIR": str(data), "JWT_SECRET_KEY": SECRET, "DICE_MAX_SIDES": "20"}
    async with (
        tools_server(project, **settings) as url,
        httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as client,
    ):
        listed = {tool["name"]: tool for tool in (await client.get("/api/tools/list")).json()["tools"]}
        assert listed["dice"]["enabled"]
        assert listed["dice"]["parameters"]["properties"]["sides"]["description"] == "sides of each die"
        assert "/api/tools/dice" in (await client.get("/openapi.json")).json()["paths"]
        assert (await client.get("/health")).json()["tools"]["dice"]["state"] == "on"

        result = (await client.post("/api/tools/dice", json={"sides": 6, "count": 3})).json()
        assert result["success"]
        assert len(result["data"]["rolls"]) == 3
        assert set(result["data"]["rolls"]) <= {1, 2, 3, 4, 5, 6}
        streamed = await client.post("/api/tools/dice", json={"count": 2}, headers={"Accept": "text/event-stream"})
        assert streamed.text.count("event: progress") == 2
        assert (await client.post("/api/tools/dice", json={"sides": 1})).json()["error"]["param"] == "sides"
        assert "20 sides" in (await client.post("/api/tools/dice", json={"sides": 21})).json()["error"]


async def test_the_guide_keeps_the_projects_own_rules(tmp_path: Path) -> None:
    follow_the_guide(tmp_path)
    ruff = (sys.executable, "-m", "ruff")
    files = ("tools/dice", "tools_config.py", "config.py")
    assert await run(*ruff, "check", *files, cwd=tmp_path) == 0
    assert await run(*ruff, "format", "--check", *files, cwd=tmp_path) == 0
