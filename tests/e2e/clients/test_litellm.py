"""LiteLLM's library: `scripts/litellm_checks.py` says what is tried, and runs where LiteLLM is installed."""

import json
import re
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.e2e.clients.conformance import Client
from tests.e2e.clients.installed import LITELLM_VERSION, python_with_litellm
from tests.e2e.clients.model import MODELS

CLIENT = Client(
    "LiteLLM",
    LITELLM_VERSION,
    "`completion` and `acompletion`, streams, tools, formats, `responses`, `embedding`, error classes",
)
SCRIPT = Path(__file__).parent / "scripts" / "litellm_checks.py"
CHECKS = re.findall(r"^def check_(\w+)", SCRIPT.read_text(), re.MULTILINE)
TIMEOUT_S = 150
ENGINE = "the_engine"


def run(server: httpx.Client, checks: list[str], *models: str) -> dict[tuple[str, str], str]:
    """What went wrong with each check and model; LiteLLM takes seconds to import, so all are made in one process."""
    env = {
        "BASE_URL": f"{server.base_url}/v1",
        "API_KEY": server.headers["Authorization"].removeprefix("Bearer "),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # no call to the network at start
        "LITELLM_LOG": "ERROR",
        "NO_PROXY": "127.0.0.1",
    }
    command = [python_with_litellm(), SCRIPT, ",".join(checks), *models]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=TIMEOUT_S)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('["')]
    assert len(found) == len(checks) * len(models), done.stderr
    return {(check, model): problem for check, model, problem in found}


@pytest.fixture(scope="module")
def problems(server: httpx.Client, tools_url: str) -> dict[tuple[str, str], str]:
    return run(server, [check for check in CHECKS if check != ENGINE], *MODELS)


@pytest.mark.parametrize("check", [check for check in CHECKS if check != ENGINE])
def test_each_model(problems: dict[tuple[str, str], str], check: str) -> None:
    for model in MODELS:
        assert not problems[check, model], f"{model}: {problems[check, model]}"


def test_the_real_engine(engine: httpx.Client) -> None:
    ((_, problem),) = run(engine, [ENGINE], "default").items()
    assert not problem, problem
