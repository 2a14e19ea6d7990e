"""What is left of a conversation when a process is killed in the middle of it."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import openai
import pytest
from openai import OpenAI

from backend.core.llm.embedded import model_file
from config import Settings
from tests.e2e.launch import PYTHON, ROOT, Copy, launch

STORY = "Write a long story about a lighthouse keeper, his dog, and the storm that came in the night."


def openai_client(copy: Copy, key: str) -> OpenAI:
    return OpenAI(base_url=f"{copy.main_url}/v1", api_key=key, max_retries=0, timeout=120)


@contextmanager
def fake_ollama(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [PYTHON, "-m", "tests.support.fake_ollama", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def history(copy: Copy, key: str, session_id: str) -> list[dict[str, str]]:
    headers = {"Authorization": f"Bearer {key}"}
    answer = httpx.get(f"{copy.main_url}/api/chat/history/{session_id}", headers=headers)
    assert answer.status_code == 200, answer.text
    messages: list[dict[str, str]] = answer.json()["messages"]
    return messages


def test_a_killed_server_comes_back_with_the_history_whole(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with launch(data) as copy:
        key = copy.make_key("alice")
        client = openai_client(copy, key)
        first = client.chat.completions.create(
            model="default", messages=[{"role": "user", "content": "My name is Ada."}], max_tokens=8
        )
        session_id = (first.model_extra or {})["session_id"]
        stream = client.chat.completions.create(
            model="default",
            messages=[{"role": "user", "content": STORY}],
            max_tokens=400,
            stream=True,
            extra_body={"session_id": session_id},
        )
        for _ in range(5):
            next(stream)
        os.kill(copy.pid("server.py"), signal.SIGKILL)
        with pytest.raises((openai.APIConnectionError, httpx.TransportError)):
            list(stream)
        assert copy.script.wait(timeout=30) == 1
    assert json.loads((data / "sessions" / f"{session_id}.json").read_text())
    with launch(data) as copy:
        messages = history(copy, key, session_id)
        assert [message["content"] for message in messages[:3]] == [
            "My name is Ada.",
            first.choices[0].message.content,
            STORY,
        ]
        answer = openai_client(copy, key).chat.completions.create(
            model="default",
            messages=[{"role": "user", "content": "What is my name?"}],
            max_tokens=8,
            extra_body={"session_id": session_id},
        )
        assert (answer.model_extra or {})["session_id"] == session_id
        assert len(history(copy, key, session_id)) == len(messages) + 2


def test_a_backend_killed_in_mid_answer_is_replaced_by_the_embedded_engine(tmp_path: Path) -> None:
    """Ollama dies while it counts; the real engine goes on counting from there, and nothing is said twice."""
    with fake_ollama("--pace", "0.1") as (ollama, url):
        own = {"LLAMACPP_MODEL_PATH": str(model_file(Settings(_env_file=None, LLAMACPP_MODEL_PATH="")))}
        with launch(tmp_path / "data", OLLAMA_BASE_URL=url, OLLAMA_MODEL="smollm2:135m", **own) as copy:
            client = openai_client(copy, copy.make_key("alice"))
            stream = client.chat.completions.create(
                model="default",
                messages=[{"role": "user", "content": "Count from 1 to 300"}],
                max_tokens=60,
                stream=True,
                temperature=0,
            )
            said = ""
            backends = set()
            for chunk in stream:
                backends.add(chunk.model)
                said += (chunk.choices[0].delta.content if chunk.choices else "") or ""
                if "9," in said and ollama.poll() is None:
                    ollama.kill()
            assert ollama.returncode == -signal.SIGKILL
            assert said.startswith("1, 2, 3, 4, 5, 6, 7, 8, 9,")
            assert len(said) > 40
            assert said.count("1, 2, 3,") == 1
            answer = client.chat.completions.with_raw_response.create(
                model="default", messages=[{"role": "user", "content": "Hello"}], max_tokens=4
            )
            assert answer.headers["X-LLM-Backend"] == "embedded"
