"""Agents over the real processes: the start script, both servers, the sandbox; a scripted model and the real engine."""

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from openai import OpenAI

from tests.e2e.launch import ROOT, launch

ANSWER = "Seventeen times twenty-three is 391, and the plot shows it for all to see."
CODE = "import matplotlib.pyplot as plt\nplt.plot([17, 23])\nprint(17 * 23)"


@pytest.fixture(scope="module")
def model() -> Iterator[str]:
    """A llama.cpp server that says what it is told to."""
    command = [sys.executable, "-m", "tests.support.fake_llamacpp", "--model", "tiny"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, model: str) -> Iterator[httpx.Client]:
    data_dir = tmp_path_factory.mktemp("agents") / "data"
    with launch(data_dir, LLM_BACKEND="llamacpp", LLAMACPP_BASE_URL=model) as copy:
        headers = {"Authorization": f"Bearer {copy.make_key('alice')}"}
        with httpx.Client(base_url=copy.main_url, headers=headers, timeout=60) as client:
            tools = {"python_coder": ""}
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                listed = httpx.get(f"{copy.tools_url}/api/tools/list", headers=headers).json()["tools"]
                tools = {tool["name"]: tool.get("reason", "") for tool in listed if not tool["enabled"]}
                if "starting" not in tools.get("python_coder", ""):
                    break
                time.sleep(0.3)
            if reason := tools.get("python_coder"):
                pytest.skip(f"python_coder is off on this machine: {reason}")
            yield client


def script(model: str, *replies: dict[str, Any]) -> None:
    request = urllib.request.Request(f"{model}/_fake/script", json.dumps(replies).encode(), method="POST")
    urllib.request.urlopen(request, timeout=10).close()


def test_react_computes_and_links_the_plot_for_the_openai_client(server: httpx.Client, model: str) -> None:
    script(model, {"tool_calls": [["python_coder", {"code": CODE}]]}, {"text": ANSWER})
    token = server.headers["Authorization"].removeprefix("Bearer ")
    client = OpenAI(base_url=f"{server.base_url}/v1", api_key=token, max_retries=0, timeout=60)
    text, reasoning, events = "", "", []
    question = [{"role": "user", "content": "What is 17 * 23? Plot it."}]
    for chunk in client.chat.completions.create(model="react/tiny", messages=question, stream=True):  # type: ignore[call-overload]
        delta = chunk.choices[0].delta
        text += delta.content or ""
        reasoning += getattr(delta, "reasoning_content", None) or ""
        events += [event] if (event := getattr(chunk, "agent_event", None)) else []
    assert text.startswith(ANSWER)
    assert "391" in reasoning
    assert [event["type"] for event in events if event["type"] != "tool_progress"] == ["tool_started", "tool_finished"]
    link = text.rpartition("](")[2].rstrip(")")
    picture = server.get(link)
    assert picture.status_code == 200
    assert picture.content.startswith(b"\x89PNG")
    assert httpx.get(f"{server.base_url}{link}").status_code == 401


def test_a_plan_runs_its_steps_side_by_side(server: httpx.Client, model: str) -> None:
    steps = [{"id": n, "goal": f"compute part {n}", "tool": "python_coder", "depends_on": []} for n in (1, 2)]
    said = {"text": "This part was computed, and it is as it was expected to be."}
    script(model, {"text": json.dumps({"steps": steps})}, said, said, {"text": ANSWER})
    body = {"messages": [{"role": "user", "content": "Do both"}], "agent_type": "plan_execute"}
    answer = server.post("/v1/chat/completions", json=body).json()
    assert answer["choices"][0]["message"]["content"] == ANSWER
    kinds = [step["type"] for step in answer["choices"][0]["agent_steps"]]
    assert kinds == ["plan_made", "step_started", "step_started", "step_finished", "step_finished"]
    run = server.get(f"/api/chat/sessions/{answer['session_id']}/runs/{answer['run_id']}").json()
    assert run["events"][-1]["type"] == "run_finished"


def test_auto_says_whom_it_chose(server: httpx.Client, model: str) -> None:
    script(model, {"text": ANSWER})
    body = {"messages": [{"role": "user", "content": "What is 17 * 23?"}], "agent_type": "auto"}
    answer = server.post("/v1/chat/completions", json=body).json()
    assert answer["choices"][0]["agent_steps"][0]["agent"] == "react"


@pytest.mark.parametrize("agent", ["react", "plan_execute", "auto"])
def test_the_small_real_model_is_brought_to_an_end(client: OpenAI, agent: str) -> None:
    """What it says is its own affair; that it ends with words, in the order of a stream, is ours."""
    chunks = list(
        client.chat.completions.create(
            model="default",
            messages=[{"role": "user", "content": "What is two plus two?"}],
            stream=True,
            max_tokens=40,
            extra_body={"agent_type": agent},
        )
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices).strip()
    assert chunks[-1].choices[0].finish_reason in {"stop", "length"}
