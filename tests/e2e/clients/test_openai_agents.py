"""OpenAI's Agents SDK: the server runs its tools, the SDK runs the functions that are its own."""

import asyncio
import json
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from tests.backend.api.routes.test_response_functions import NAMESAKES, SCRIPTS, step
from tests.e2e.clients.conformance import Client
from tests.e2e.clients.installed import AGENTS_SDK_VERSION, python_with_agents_sdk
from tests.support.agents import ConstrainedModel, NativeModel, running_agents
from tests.support.llm_script import Reply

CLIENT = Client(
    "openai-agents (Agents SDK)",
    AGENTS_SDK_VERSION,
    "hosted web search beside function tools, streams, turns that go on",
)
SCRIPT = Path(__file__).parent / "scripts" / "openai_agents_run.py"
TIMEOUT_S = 90
SURE = {"native": [Reply(text="Yes.")], "constrained": [step("answer"), Reply(text="Yes.")]}


@pytest.mark.parametrize("kind", ["native", "constrained"])
async def test_an_agent_uses_the_servers_tools_and_its_own_functions(tmp_path: Path, kind: str) -> None:
    python = python_with_agents_sdk()
    async with (NativeModel if kind == "native" else ConstrainedModel)() as model:
        model.script(*SCRIPTS[kind], *SURE[kind], *SCRIPTS[kind])
        async with running_agents(tmp_path, model, tools=NAMESAKES) as agents:
            key = agents.alice.headers["authorization"].removeprefix("Bearer ")
            process = await asyncio.create_subprocess_exec(
                python, SCRIPT, f"{agents.url}/v1", key, stdout=PIPE, stderr=PIPE
            )
            out, err = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    assert process.returncode == 0, err.decode()
    told = json.loads(out)
    assert told["answers"] == ["Take one.", "Yes.", "Take one."]
    assert told["called"] == ["Ghent", "Ghent"]
    assert [item for item in told["items"] if item != "reasoning_item"] == [
        "tool_call_item",
        "tool_call_item",
        "tool_call_output_item",
        "message_output_item",
    ]
    assert {"response.web_search_call.completed", "response.function_call_arguments.done"} < set(told["kinds"])
