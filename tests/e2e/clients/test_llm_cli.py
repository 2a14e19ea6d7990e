"""simonw's `llm`, the command, with models of its own list that point here."""

import json
import re
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.e2e.clients.conformance import Client
from tests.e2e.clients.installed import LLM_VERSION, llm_program
from tests.e2e.clients.model import LLAMACPP_MODEL, OLLAMA_MODEL, Models

CLIENT = Client("llm (command line)", LLM_VERSION, "prompts, streams, system prompts, conversations, schemas, errors")
TIMEOUT_S = 60


@pytest.fixture(scope="session")
def program() -> Path:
    return llm_program()


class Llm:
    """The command with a folder of its own."""

    def __init__(self, program: Path, folder: Path, server: httpx.Client, models: tuple[str, ...]) -> None:
        self._program, self.folder = program, folder
        key = server.headers["Authorization"].removeprefix("Bearer ")
        self._env = {"LLM_USER_PATH": str(folder), "LLM_LOAD_PLUGINS": "", "HOME": str(folder)}
        known = [
            {
                "model_id": model,
                "model_name": model,
                "api_base": f"{server.base_url}/v1",
                "api_key_name": "here",
                "can_stream": True,
                "supports_schema": True,
            }
            for model in models
        ]
        (folder / "extra-openai-models.yaml").write_text(json.dumps(known))  # JSON is YAML
        (folder / "keys.json").write_text(json.dumps({"here": key}))

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [self._program, *arguments]
        return subprocess.run(
            command, env=self._env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S
        )

    def ask(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture
def llm(program: Path, tmp_path: Path, server: httpx.Client) -> Llm:
    return Llm(program, tmp_path, server, (OLLAMA_MODEL, LLAMACPP_MODEL, "no-such-model"))


@pytest.mark.parametrize("model", [OLLAMA_MODEL, LLAMACPP_MODEL])
def test_a_prompt_streams(llm: Llm, model: str) -> None:
    assert llm.ask("-m", model, "Hello") == "Echo: Hello"


def test_a_prompt_is_answered_whole(llm: Llm) -> None:
    assert llm.ask("-m", OLLAMA_MODEL, "--no-stream", "-s", "Be brief.", "-o", "temperature", "0", "Hi") == "Echo: Hi"


def test_a_conversation_goes_on_and_tokens_are_counted(llm: Llm, models: Models) -> None:
    llm.ask("-m", OLLAMA_MODEL, "Hello")
    done = llm.run("-c", "-u", "And now?")
    assert done.stdout.strip() == "Echo: And now?"
    assert re.search(r"[1-9]\d* input, [1-9]\d* output", done.stderr), done.stderr
    assert len(models.ollama.chats[-1].body["messages"]) == 3


def test_an_answer_follows_a_schema(llm: Llm) -> None:
    given = json.loads(llm.ask("-m", OLLAMA_MODEL, "--schema", "name, people int", "Paris, 3"))
    assert given == {"name": "Paris, 3", "people": 3}


def test_an_error_is_told(llm: Llm) -> None:
    done = llm.run("-m", "no-such-model", "Hello")
    assert done.returncode == 1
    assert "no-such-model" in done.stderr


def test_the_real_engine(program: Path, tmp_path: Path, engine: httpx.Client) -> None:
    llm = Llm(program, tmp_path, engine, ("default",))
    assert llm.ask("-m", "default", "-o", "max_tokens", "8", "Hello")
