"""The choice among the agents, over real sockets."""

import json

import pytest

from tests.support.agent_scripts import ANSWER, call, say, toy
from tests.support.agents import CHAT, NativeModel, RunningAgents


@pytest.mark.parametrize("question", ["Hi!", "Thanks a lot!", "안녕하세요"])
async def test_small_talk_needs_no_decision(server: RunningAgents, model: NativeModel, question: str) -> None:
    model.script(say(ANSWER))
    stream = await server.stream(question, agent_type="auto")
    assert stream.events[0] == {"type": "agent_selected", "agent": "chat", "reason": "small talk"}
    assert stream.text == ANSWER
    assert len(model.chats) == 1


async def test_without_tools_it_is_a_chat(server: RunningAgents, model: NativeModel) -> None:
    body = await server.ask("Compare three things for me", agent_type="auto", available_tools=[])
    assert body["choices"][0]["agent_steps"][0]["agent"] == "chat"


@pytest.mark.parametrize("agent", ["chat", "react"])
async def test_otherwise_the_model_decides_in_a_few_tokens_and_the_choice_is_told(
    server: RunningAgents, model: NativeModel, agent: str
) -> None:
    replies = [say(json.dumps({"agent": agent})), *([call(toy("a"))] if agent == "react" else []), say(ANSWER)]
    model.script(*replies)
    body = await server.ask("Tell me about the sea", model="auto/smollm2:135m")
    assert body["choices"][0]["agent_steps"][0] == {
        "type": "agent_selected",
        "agent": agent,
        "reason": "chosen by the model",
    }
    assert body["choices"][0]["message"]["content"] == ANSWER
    decision = model.chats[0].body
    assert decision["options"]["num_predict"] <= 32
    assert decision["format"]["properties"]["agent"]["enum"] == ["chat", "react", "plan_execute"]
    assert body["usage"]["prompt_tokens"] > 80  # the decision is counted, too


async def test_a_data_file_goes_to_the_agent_with_the_tools(server: RunningAgents, model: NativeModel) -> None:
    model.script(say('{"agent": "chat"}'), say(ANSWER))
    form = {"messages": json.dumps([{"role": "user", "content": "Hm"}]), "agent_type": "auto"}
    answer = await server.alice.post(CHAT, data=form, files={"files": ("a.csv", b"a,b\n1,2\n", "text/csv")})
    assert answer.json()["choices"][0]["agent_steps"][0]["agent"] == "chat"  # there is no python_coder here
