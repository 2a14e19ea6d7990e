"""A full disk: a real server process whose data folder is a file system of two megabytes."""

import asyncio
import contextlib
import os
import shlex
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.support.fake_ollama import FakeOllama

ROOT = Path(__file__).parents[2]
SIZE = "2m"
START_S = 30


@contextlib.asynccontextmanager
async def on_a_small_disk(folder: Path, ollama_url: str) -> AsyncIterator[tuple[httpx.AsyncClient, Path]]:
    """The server, and its data folder as the server sees it: the mount is in a namespace of its own."""
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    run = f"mount -t tmpfs -o size={SIZE} none {shlex.quote(str(folder))} && exec {sys.executable} server.py"
    env = {
        **os.environ,
        "MAIN_API_PORT": str(port),
        "DATA_DIR": str(folder),
        "LLM_BACKEND": "ollama",
        "OLLAMA_BASE_URL": ollama_url,
        "OLLAMA_MODEL": "smollm2:135m",
        "BCRYPT_ROUNDS": "4",
        "LOG_LEVEL": "ERROR",
    }
    server = await asyncio.create_subprocess_exec(
        *("unshare", "--mount", "--map-root-user", "sh", "-c", run), cwd=ROOT, env=env, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            async with asyncio.timeout(START_S):
                while True:
                    with contextlib.suppress(httpx.HTTPError):
                        if (await client.get("/health")).status_code == 200:
                            break
                    assert server.returncode is None, (await server.stderr.read()).decode() if server.stderr else ""
                    await asyncio.sleep(0.1)
            yield client, Path(f"/proc/{server.pid}/root{folder}")
    finally:
        with contextlib.suppress(ProcessLookupError):
            server.terminate()
        await asyncio.wait_for(server.wait(), 20)


def fill(data: Path) -> Path:
    """Leave no free byte."""
    filler = data / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    return filler


@pytest.mark.timeout(120)
async def test_a_full_disk_loses_nothing_and_is_over_when_there_is_room_again(tmp_path: Path) -> None:
    async with FakeOllama() as ollama, on_a_small_disk(tmp_path / "small", ollama.url) as (client, data):
        signed_up = await client.post("/api/auth/signup", json={"username": "alice", "password": "correct horse"})
        client.headers["Authorization"] = f"Bearer {signed_up.json()['access_token']}"

        async def ask(text: str, **fields: object) -> httpx.Response:
            body = {"messages": [{"role": "user", "content": text}], **fields}
            return await client.post("/v1/chat/completions", json=body)

        session = (await ask("before")).json()["session_id"]
        filler = fill(data)

        refused = await ask("x" * 20_000)
        assert refused.status_code == 500
        assert refused.json()["error"]["code"] == "storage_failed"
        refused = await ask("y" * 20_000, session_id=session)
        assert refused.json()["error"]["code"] == "storage_failed"
        streamed = await ask("z" * 20_000, stream=True)
        assert '"code":"storage_failed"' in streamed.text
        assert "[DONE]" not in streamed.text
        assert (await client.get("/health")).status_code == 200
        assert (await ask("kept nowhere", store=False)).status_code == 200
        kept = (await client.get(f"/api/chat/history/{session}")).json()["messages"]
        assert [message["content"] for message in kept] == ["before", "Echo: before"]

        filler.unlink()
        assert (await ask("after", session_id=session)).status_code == 200
        kept = (await client.get(f"/api/chat/history/{session}")).json()["messages"]
        assert [message["content"] for message in kept] == ["before", "Echo: before", "after", "Echo: after"]
        assert len((await client.get("/api/chat/sessions")).json()["sessions"]) == 1
