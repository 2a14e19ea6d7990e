"""Functions of the client beside the server's tools in one request to `/v1/responses`."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI

from tests.support.agents import ConstrainedModel, NativeModel, RunningAgents, running_agents
from tests.support.llm_script import Reply
from tests.support.openai_events import check_events, check_response, read_events

SEARCH = ("websearch", {"query": "rain in Ghent"})
LOOK = ("weather", {"city": "Ghent"})
QUESTION = "Do I need an umbrella in Ghent?"
WEATHER: dict[str, Any] = {
    "type": "function",
    "name": "weather",
    "description": "Tells the weather.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"$ref": "#/$defs/city"}},
        "required": ["city"],
        "$defs": {"city": {"type": "string"}},
    },
}
TOOLS = [WEATHER, {"type": "web_search"}]
NAMESAKES = {"websearch": "tests.support.toy_tool.namesakes:WebSearch"}
Model = NativeModel | ConstrainedModel


def step(action: str, **given: Any) -> Reply:
    return Reply(text=json.dumps({"thought": "Let me see.", "action": action, **given}))


# What each kind of model says: it searches, looks, and, when it is told of rain, answers.
SCRIPTS = {
    "native": (Reply(text="", tool_calls=(SEARCH,)), Reply(text="", tool_calls=(LOOK,)), Reply(text="Take one.")),
    "constrained": (
        step("websearch", input=SEARCH[1]),
        step("weather", input=LOOK[1]),
        step("answer"),
        Reply(text="Take one."),
    ),
}


@pytest.fixture(params=[NativeModel, ConstrainedModel], ids=["native", "constrained"])
async def model(request: pytest.FixtureRequest) -> AsyncIterator[Model]:
    async with request.param() as model:
        yield model


@pytest.fixture
async def agents(tmp_path: Path, model: Model) -> AsyncIterator[RunningAgents]:
    async with running_agents(tmp_path, model, tools=NAMESAKES) as running:
        yield running


@pytest.fixture
async def alice(agents: RunningAgents) -> AsyncIterator[AsyncOpenAI]:
    key = agents.alice.headers["authorization"].removeprefix("Bearer ")
    async with AsyncOpenAI(base_url=f"{agents.url}/v1", api_key=key, max_retries=0, timeout=20) as client:
        yield client


def script(model: Model) -> None:
    model.script(*SCRIPTS["native" if isinstance(model, NativeModel) else "constrained"])


def read(model: Model) -> str:
    """What the model read last."""
    return json.dumps(model.chats[-1].body["messages"])


@pytest.mark.parametrize("goes_on", ["by its id", "by its items"])
async def test_a_tool_runs_here_and_a_function_is_handed_out(alice: AsyncOpenAI, model: Model, goes_on: str) -> None:
    script(model)
    first = await alice.responses.create(model="default", input=QUESTION, tools=TOOLS)
    kinds = [item.type for item in first.output if item.type != "reasoning"]
    assert (kinds, first.status) == (["web_search_call", "function_call"], "completed")
    call = first.output[-1]
    assert (call.name, json.loads(call.arguments)) == LOOK
    assert first.usage
    assert first.usage.total_tokens

    result = {"type": "function_call_output", "call_id": call.call_id, "output": "It pours."}
    if goes_on == "by its id":
        fields: dict[str, Any] = {"previous_response_id": first.id, "input": [result]}
    else:
        asked = {"role": "user", "content": QUESTION}
        fields = {"input": [asked, *(item.model_dump(exclude_none=True) for item in first.output), result]}
    second = await alice.responses.create(model="default", tools=TOOLS, **fields)
    assert second.output_text == "Take one."
    assert "It pours." in read(model)
    assert "bridges.example.org" in read(model) or "rain in Ghent" in read(model), "what was found is known"


async def test_the_stream_has_both_kinds_of_calls(agents: RunningAgents, model: Model) -> None:
    script(model)
    body = {"input": QUESTION, "tools": TOOLS, "stream": True}
    answer = await agents.alice.post("/v1/responses", json=body)
    events = read_events(answer.text)
    check_events(events)
    kinds = [event["type"] for event in events]
    assert kinds.index("response.web_search_call.completed") < kinds.index("response.function_call_arguments.delta")
    (done,) = [event for event in events if event["type"] == "response.function_call_arguments.done"]
    assert json.loads(done["arguments"]) == LOOK[1]
    final = events[-1]["response"]
    kept = await agents.alice.get(f"/v1/responses/{final['id']}")
    assert check_response(kept.json()).output[-1].type == "function_call"
    trace = await agents.alice.get(f"/api/chat/sessions/{final['session_id']}/runs/{final['run_id']}")
    assert "websearch" in trace.text


async def test_a_call_that_does_not_fit_the_functions_schema_is_told_to_the_model(tmp_path: Path) -> None:
    async with NativeModel() as model, running_agents(tmp_path, model, tools=NAMESAKES) as agents:
        model.script(
            Reply(text="", tool_calls=(("weather", {"town": "Ghent"}),)),
            Reply(text="", tool_calls=(LOOK, ("weather", {"city": "Bruges"}))),
        )
        body = {"input": QUESTION, "tools": TOOLS}
        output = (await agents.alice.post("/v1/responses", json=body)).json()["output"]
        calls = [item for item in output if item["type"] == "function_call"]
        assert [json.loads(call["arguments"]) for call in calls] == [{"city": "Ghent"}, {"city": "Bruges"}]
        assert "'city' is a required property" in read(model)

        model.script(Reply(text="", tool_calls=(LOOK, ("weather", {"city": "Bruges"}))))
        one = await agents.alice.post("/v1/responses", json=body | {"parallel_tool_calls": False})
        assert [item["type"] for item in one.json()["output"]].count("function_call") == 1

        named = {"type": "function", "name": "weather"}
        model.script(Reply(text=json.dumps({"tool": "weather", "arguments": LOOK[1]})))
        forced = await agents.alice.post("/v1/responses", json=body | {"tool_choice": named})
        assert [item["type"] for item in forced.json()["output"]] == ["function_call"]
        assert "websearch" not in json.dumps(model.chats[-1].body), "only that call may come"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"tools": [{**WEATHER, "name": "websearch"}, {"type": "web_search"}]}, "another name"),
        ({"agent_type": "plan_execute"}, "agent react"),
        ({"tool_choice": "required"}, "cannot be forced"),
    ],
)
async def test_what_cannot_be_mixed_is_said(agents: RunningAgents, fields: dict[str, Any], says: str) -> None:
    answer = await agents.alice.post("/v1/responses", json={"input": "x", "tools": TOOLS, **fields})
    assert answer.status_code == 400, answer.text
    assert says in answer.json()["error"]["message"]
    assert answer.json()["error"]["param"] in {"tools", "tool_choice"}
