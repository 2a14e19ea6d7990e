"""Open WebUI's status line: it changes with what an agent does, and is always told to be done."""

from pathlib import Path
from typing import Any

import pytest

from backend.api.completions import ChunkEncoder, CompletionHead
from backend.api.status_lines import StatusLines
from backend.core.errors import ApiError
from backend.core.events import (
    BackendSelected,
    Event,
    PlanMade,
    ReasoningDelta,
    RunFinished,
    StepStarted,
    TextDelta,
    ToolFinished,
    ToolProgress,
    ToolStarted,
    Usage,
)
from tests.support.agents import NativeModel, running_agents
from tests.support.chat_server import frames_of
from tests.support.llm_script import Reply

HEADER = {"X-OpenWebUI-Chat-Id": "chat-1"}
FINISHED = RunFinished("stop", Usage())
TOOL = ToolStarted("call_1", "websearch", {"query": "cats"})


def statuses(frames: list[Any]) -> list[tuple[str, bool]]:
    data = [frame["event"]["data"] for frame in frames if isinstance(frame, dict) and "event" in frame]
    return [(entry["description"], entry["done"]) for entry in data]


def encode(*events: Event, error: ApiError | None = None) -> list[Any]:
    lines = StatusLines(ChunkEncoder(CompletionHead("chatcmpl-1", 1, "qwen", "sess_1")))
    written = b"".join(lines.encode(event) for event in (BackendSelected("ollama", "qwen"), *events))
    return frames_of((written + (lines.encode_error(error) if error else lines.end())).decode())


def test_each_step_changes_the_line_and_the_answers_first_word_ends_it() -> None:
    frames = encode(
        PlanMade(({"id": 1, "goal": "look"}, {"id": 2, "goal": "tell"})),
        StepStarted(1, "look"),
        TOOL,
        ToolProgress("call_1", "websearch", "reading 3 pages"),
        ToolFinished("call_1", "websearch", True, "3 pages", 0.1),
        TextDelta("Cats"),
        TextDelta(" purr."),
        FINISHED,
    )
    assert statuses(frames) == [
        ("Plan with 2 steps", False),
        ("look", False),
        ("→ websearch cats", False),
        ("reading 3 pages", False),
        ("reading 3 pages", True),
    ]
    done = next(place for place, frame in enumerate(frames) if "event" in frame and frame["event"]["data"]["done"])
    assert frames[done + 1]["choices"][0]["delta"] == {"content": "Cats"}
    for frame in frames[:-1]:
        assert frame["object"] == "chat.completion.chunk"
        assert frame["choices"][0]["index"] == 0


def test_a_run_without_words_or_with_an_error_ends_the_line_too() -> None:
    for frames in (encode(TOOL, FINISHED), encode(TOOL, error=ApiError("It broke."))):
        assert statuses(frames) == [("→ websearch cats", False), ("→ websearch cats", True)]
    assert frames[-1]["error"]["message"] == "It broke."


def test_a_plain_answer_has_no_line() -> None:
    frames = encode(ReasoningDelta("Hm."), TextDelta("Hi"), FINISHED)
    assert statuses(frames) == []
    assert not [frame for frame in frames if isinstance(frame, dict) and not frame["choices"][0]["delta"]][:-1]


async def test_an_agent_that_is_chosen_in_open_webui_works_although_the_ui_sends_tools_of_its_own(
    tmp_path: Path,
) -> None:
    tools = [{"type": "function", "function": {"name": "get_current_timestamp", "parameters": {}}}]
    async with NativeModel() as model, running_agents(tmp_path, model) as server:
        model.script(Reply(tool_calls=(("toy", {"text": "a"}),)), Reply(text="All done here."))
        server.alice.headers.update(HEADER)
        answer = await server.ask("Use the toy", model="react/smollm2:135m", tools=tools, tool_choice="auto")
        assert answer["choices"][0]["message"]["content"] == "All done here."
        del server.alice.headers["X-OpenWebUI-Chat-Id"]
        model.script(Reply(tool_calls=(("get_current_timestamp", {}),)))
        answer = await server.ask("What time is it?", model="react/smollm2:135m", tools=tools)
        assert answer["choices"][0]["finish_reason"] == "tool_calls", "anybody else's tools are their own"


@pytest.mark.parametrize("headers", [HEADER, {}])
async def test_only_open_webui_gets_the_line(tmp_path: Path, headers: dict[str, str]) -> None:
    async with NativeModel() as model, running_agents(tmp_path, model) as server:
        model.script(Reply(tool_calls=(("toy", {"text": "a"}),)), Reply(text="All done here."))
        server.alice.headers.update(headers)
        stream = await server.stream("Use the toy", agent_type="react")
        stream.check()
        assert stream.text == "All done here."
        shown = statuses(stream.frames)
        assert bool(shown) == bool(headers)
        if shown:
            assert [done for _, done in shown] == [False] * (len(shown) - 1) + [True]
            assert "toy" in shown[0][0]
