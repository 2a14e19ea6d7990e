"""The nanocoder mode over the real processes: a task through HTTP, carried out with the model that answers chats."""

import json
import time
from pathlib import Path

import httpx
import pytest

from tests.e2e.launch import launch
from tests.e2e.test_agents import model, script  # noqa: F401 (a fixture)
from tools.python_coder.nanocoder_install import HOW_TO_INSTALL, NotInstalled, find_installation


def test_a_task_streams_its_steps_and_its_files_can_be_fetched(tmp_path: Path, model: str) -> None:  # noqa: F811
    try:
        find_installation()
    except NotInstalled:
        pytest.skip(HOW_TO_INSTALL)
    settings = {"LLM_BACKEND": "llamacpp", "LLAMACPP_BASE_URL": model, "PYTHON_EXECUTOR_MODE": "nanocoder"}
    with launch(tmp_path / "data", **settings) as copy:
        headers = {"Authorization": f"Bearer {copy.make_key('alice')}"}
        with httpx.Client(headers=headers, timeout=90) as client:
            deadline = time.monotonic() + 30
            status = {"enabled": False}
            while not status["enabled"] and time.monotonic() < deadline:
                listed = client.get(f"{copy.tools_url}/api/tools/list").json()["tools"]
                status = next(tool for tool in listed if tool["name"] == "python_coder")
                time.sleep(0.2)
            if not status["enabled"]:
                pytest.skip(f"python_coder is off on this machine: {status['reason']}")
            call = ["write_file", {"path": "hello.py", "content": "print(6 * 7)\n"}]
            script(model, {"tool_calls": [call]}, {"text": "It is written."})
            place, words = f"{copy.tools_url}/api/tools/python_coder", {"Accept": "text/event-stream"}
            answer = client.post(place, json={"task": "Write hello.py."}, headers=words)
            refused = client.post(place, json={"code": "1"})
            steps = [json.loads(line[5:]) for line in answer.text.splitlines() if line.startswith("data:")][:-1]
            file = client.get(f"{copy.main_url}/api/chat/sessions/{answer.headers['X-Session-ID']}/files/hello.py")

    assert "step 1: write_file" in answer.text, answer.text
    assert "It is written." in answer.text
    assert len(steps) >= 2
    assert file.text == "print(6 * 7)\n"
    assert refused.status_code in {400, 422}
