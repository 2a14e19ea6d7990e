"""OpenAI's own package for JavaScript, on Node: `scripts/openai_node.mjs` says what is tried."""

import asyncio
import re
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.e2e.clients.conformance import Client
from tests.e2e.clients.installed import OPENAI_NODE, OPENAI_NODE_VERSION, node_with_openai
from tests.e2e.clients.model import MODELS, OLLAMA_MODEL, Models
from tests.support.llm_script import Reply

CLIENT = Client(
    "openai (Node)",
    OPENAI_NODE_VERSION,
    "chat, streams, tools by hand and with `runTools`, formats, responses, completions, embeddings, files, models, "
    "error classes, abort",
)
SCRIPT = Path(__file__).parent / "scripts" / "openai_node.mjs"
CHECKS = re.findall(r"^  async (\w+)\(", SCRIPT.read_text(), re.MULTILINE)
TIMEOUT_S = 60


@pytest.fixture(scope="session")
def node() -> Path:
    return node_with_openai()


def run(node: Path, server: httpx.Client, check: str, *models: str) -> None:
    env = {
        "BASE_URL": f"{server.base_url}/v1",
        "API_KEY": server.headers["Authorization"].removeprefix("Bearer "),
    }
    command = [node, SCRIPT, check, *models]
    done = subprocess.run(command, cwd=OPENAI_NODE, env=env, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("check", [name for name in CHECKS if name not in {"embeddings", "abort", "engine"}])
def test_each_model(node: Path, server: httpx.Client, check: str) -> None:
    run(node, server, check, *MODELS)


def test_embeddings(node: Path, server: httpx.Client, tools_url: str) -> None:
    run(node, server, "embeddings", "any")


def test_an_abort_ends_the_work_of_the_model(node: Path, server: httpx.Client, models: Models) -> None:
    models.ollama.script(Reply(pace_s=0.05))
    run(node, server, "abort", OLLAMA_MODEL)
    asyncio.run(models.ollama.chats[-1].gone())


def test_the_real_engine(node: Path, engine: httpx.Client) -> None:
    run(node, engine, "engine", "default")
