"""schemathesis, which makes requests up from the descriptions of both APIs, and holds the answers to them.

Always the same requests, as an ordinary user and as nobody: no crash, and nothing that is not described.
"""

import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.clients.conformance import Client
from tests.e2e.clients.model import OLLAMA_MODEL

CLIENT = Client(
    "schemathesis",
    version("schemathesis"),
    "made-up requests to the routes of both APIs, signed in and not (three tools: only not): no 5xx, statuses, types "
    "and shapes as described",
)
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,ignored_auth"
)
ST = Path(sys.executable).parent / "st"
TIMEOUT_S = 150
# Presentations take minutes and code its time; the third is switched off without a key: strangers alone try these.
SLOW = ["/api/tools/ppt_maker", "/api/tools/python_coder", "/api/tools/websearch"]


def made_up_requests(url: str, folder: Path, *options: str, seconds: int, **parameters: str) -> int:
    """How many requests were made and answered as described.

    Args:
        parameters: what the routes are to be given for these, so that they find something.
    """
    config = folder / "schemathesis.toml"
    lines = [f"{json.dumps(name)} = {json.dumps(value)}" for name, value in parameters.items()]
    config.write_text("\n".join(["[parameters]", *lines]))
    given = ["-c", CHECKS, "-n", "3", "--max-time", str(seconds), "--request-timeout", "20", "--warnings", "off"]
    given += ["--generation-deterministic", "--phases", "examples,coverage,fuzzing", *options]
    command = [ST, "--no-color", "--config-file", config, "run", f"{url}/openapi.json", *given]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    counted = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert counted, done.stdout
    return int(counted[2])


@pytest.fixture(scope="module")
def user(server: httpx.Client) -> httpx.Client:
    """Somebody else than the other tests have, who has something of everything."""
    token = server.post("/api/auth/signup", json={"username": "sam", "password": "a password"}).json()["access_token"]
    return httpx.Client(base_url=server.base_url, headers={"Authorization": f"Bearer {token}"}, timeout=60)


@pytest.fixture(scope="module")
def things(user: httpx.Client) -> dict[str, str]:
    question: dict[str, Any] = {"model": OLLAMA_MODEL, "messages": [{"role": "user", "content": "Hello"}]}
    file = {"file": ("a.txt", b"Hello")}
    return {
        "session_id": user.post("/v1/chat/completions", json=question).json()["session_id"],
        "response_id": user.post("/v1/responses", json={"model": OLLAMA_MODEL, "input": "Hello"}).json()["id"],
        "file_id": user.post("/v1/files", data={"purpose": "user_data"}, files=file).json()["id"],
        "model_id": OLLAMA_MODEL,
    }


def signed_in(user: httpx.Client) -> list[str]:
    return ["-H", f"Authorization: {user.headers['Authorization']}"]


def test_the_main_api(user: httpx.Client, tools_url: str, things: dict[str, str], tmp_path: Path) -> None:
    options = [*signed_in(user), "--exclude-method", "DELETE"]
    assert made_up_requests(str(user.base_url).rstrip("/"), tmp_path, *options, seconds=16, **things) > 30


def test_what_deletes(user: httpx.Client, tools_url: str, tmp_path: Path) -> None:
    options = [*signed_in(user), "--include-method", "DELETE"]
    assert made_up_requests(str(user.base_url).rstrip("/"), tmp_path, *options, seconds=10) > 5


def test_the_tools_api(user: httpx.Client, tools_url: str, tmp_path: Path) -> None:
    place = f"{tools_url}/api/tools/rag/collections"
    made = httpx.post(place, json={"name": "notes"}, headers=user.headers, timeout=60).json()
    options = [option for path in SLOW for option in ("--exclude-path", path)]
    options += [*signed_in(user), "--exclude-method", "DELETE"]
    assert made_up_requests(tools_url, tmp_path, *options, seconds=12, ref=made["id"]) > 30


@pytest.mark.parametrize("api", ["main", "tools"])
def test_strangers(server: httpx.Client, tools_url: str, tmp_path: Path, api: str) -> None:
    url = tools_url if api == "tools" else str(server.base_url).rstrip("/")
    assert made_up_requests(url, tmp_path, seconds=9) > 5
