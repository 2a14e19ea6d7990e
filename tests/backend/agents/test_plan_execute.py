"""Plans carried out over real sockets."""

import json
from pathlib import Path
from typing import Any

from tests.support.agent_scripts import ANSWER, call, plan, say, step, toy
from tests.support.agents import NativeModel, RunningAgents, running_agents
from tests.support.fake_llamacpp import FakeLlamaCpp
from tests.support.fake_ollama import FakeModel
from tests.support.llm_script import Reply

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
RESULT = "This step brought what it was to bring, and nothing else besides it."


def task_of(messages: list[dict[str, Any]]) -> str:
    """The goal of the step that a model call belongs to; empty for the plan and the answer."""
    told = next((message["content"] for message in messages if message["role"] == "user"), "")
    return told.partition("This step: ")[2].partition("\n")[0]


async def test_the_plan_is_shown_its_steps_run_side_by_side_and_see_what_they_need(
    server: RunningAgents, model: NativeModel
) -> None:
    def choose(messages: list[dict[str, Any]]) -> Reply:
        goal = task_of(messages)
        if messages[-1]["role"] == "tool":
            return say(f"The {goal} is seven, as the toy has said to me just now.")
        if goal in {"left", "right"}:
            return call(toy(goal, act="sleep", seconds=0.3))
        if goal:
            return say(RESULT)
        return say(ANSWER) if "carried out" in messages[-1]["content"] else plans

    plans = plan(step(1, goal="left"), step(2, goal="right"), step(3, 1, 2, goal="both"))
    model.choose = choose
    stream = await server.stream("Add them", agent_type="plan_execute")
    stream.check()
    assert stream.text == ANSWER
    kinds = [(event["type"], event.get("index")) for event in stream.events if "step" in event["type"]]
    assert kinds[:2] == [("step_started", 1), ("step_started", 2)]
    assert kinds[-2:] == [("step_started", 3), ("step_finished", 3)]
    assert stream.events[0]["type"] == "plan_made"
    assert "1. left [toy]" in stream.reasoning
    assert {event["step"] for event in stream.events if event["type"] == "tool_started"} == {1, 2}
    third = next(chat.body["messages"] for chat in model.chats if task_of(chat.body["messages"]) == "both")
    assert "The left is seven" in third[-1]["content"]
    assert "The right is seven" in third[-1]["content"]


async def test_a_failed_step_is_tried_again_then_planned_anew_and_what_succeeded_is_not_repeated(
    server: RunningAgents, model: NativeModel
) -> None:
    def choose(messages: list[dict[str, Any]]) -> Reply:
        goal, last = task_of(messages), messages[-1]["content"]
        if goal == "by rail":
            return call(toy(f"rail {len(model.chats)}", act="fail"))
        if goal:
            return say(RESULT)
        if "Make a new plan" in last:
            return plan(step(4, 1, goal="by road"))
        return say(ANSWER) if "carried out" in last else plan(step(1, goal="pack"), step(2, 1, goal="by rail"))

    model.choose = choose
    stream = await server.stream("Travel", agent_type="plan_execute")
    assert stream.text == ANSWER
    started = [event["title"] for event in stream.events if event["type"] == "step_started"]
    assert started == ["pack", "by rail", "by rail", "by road"]
    plans = [event for event in stream.events if event["type"] == "plan_made"]
    assert [one["revision"] for one in plans] == [0, 1]
    assert [one["goal"] for one in plans[1]["steps"]] == ["by road"]


async def test_a_step_that_fails_for_good_is_named_whatever_the_model_says(
    server: RunningAgents, model: NativeModel
) -> None:
    def choose(messages: list[dict[str, Any]]) -> Reply:
        goal, last = task_of(messages), messages[-1]["content"]
        if goal:
            return call(toy(f"{len(model.chats)}", act="fail"))
        return say(ANSWER) if "carried out" in last else plan(step(1, goal="reach the moon"))

    model.choose = choose
    stream = await server.stream("Fly", agent_type="plan_execute")
    stream.check()
    assert stream.text.startswith(ANSWER)
    assert "Not done:\n- Step" in stream.text
    assert "reach the moon" in stream.text
    assert [event["revision"] for event in stream.events if event["type"] == "plan_made"] == [0, 1, 2]


async def test_the_plan_the_changes_and_the_answer_are_one_growing_conversation(
    server: RunningAgents, model: NativeModel
) -> None:
    model.script(plan(step(1)), say(RESULT), say(ANSWER))
    body = await server.ask("Do it", agent_type="plan_execute")
    first, _, last = (chat.body["messages"] for chat in model.chats)
    assert last[: len(first)] == first
    assert json.loads(last[len(first)]["content"])["steps"]
    assert body["usage"]["completion_tokens"] >= len(f"{RESULT} {ANSWER}".split())
    assert model.chats[0].body["format"]["properties"]["steps"]["maxItems"] == 10


async def test_a_tool_may_have_a_model_of_its_own_for_the_steps_that_are_meant_for_it(
    tmp_path: Path, model: NativeModel
) -> None:
    model.models.append(FakeModel("other:1b", capabilities=("completion", "tools")))
    model.script(plan(step(1)), say(RESULT), say(ANSWER))
    async with running_agents(tmp_path, model, TOOL_MODELS={"toy": "other:1b"}) as server:
        await server.ask("Do it", agent_type="plan_execute")
    assert [chat.body["model"] for chat in model.chats] == ["smollm2:135m", "other:1b", "smollm2:135m"]


async def test_the_steps_see_the_picture_that_came_with_the_question(tmp_path: Path) -> None:
    picture = f"data:image/png;base64,{PIXEL}"
    question = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": picture}}]
    async with FakeLlamaCpp(vision=True) as model, running_agents(tmp_path, model) as server:
        model.script(plan(step(1, goal="look")), say(RESULT), say(ANSWER))
        stream = await server.stream([{"role": "user", "content": question}], agent_type="plan_execute")
    assert stream.text == ANSWER
    looked = model.chats[1].body["messages"][-1]["content"]
    assert [part["type"] for part in looked] == ["image_url", "text"]
    assert "This step: look" in looked[1]["text"]


async def test_a_plan_that_is_written_again_is_no_answer(server: RunningAgents, model: NativeModel) -> None:
    plans = plan(step(1, goal="think"))
    model.script(plans, say(RESULT), plans, say(ANSWER))
    stream = await server.stream("Think", agent_type="plan_execute")
    stream.check()
    assert stream.text == ANSWER


async def test_an_answer_that_begins_with_a_brace_is_one(server: RunningAgents, model: NativeModel) -> None:
    model.script(plan(step(1, goal="think")), say(RESULT), say('{"rivers": 3} is what you asked for.'))
    stream = await server.stream("Think", agent_type="plan_execute")
    assert stream.text == '{"rivers": 3} is what you asked for.'
