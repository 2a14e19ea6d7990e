"""The stream of a response, held against golden transcripts, OpenAI's types, and what OpenAI's client makes of it."""

import json
from pathlib import Path
from typing import Any

import pytest
from openai import omit
from openai.lib.streaming.responses._responses import ResponseStreamState

from backend.api.response_output import ResponseOutput
from backend.api.response_stream import OpenResponse, ResponseEncoder
from backend.core.errors import AnswerInterrupted, ApiError, ContextOverflow, TooManyRequests
from backend.core.events import (
    AgentSelected,
    AnswerCited,
    BackendSelected,
    Citation,
    Event,
    HistoryTrimmed,
    PlanMade,
    ReasoningDelta,
    RunFinished,
    StepFinished,
    StepStarted,
    TextDelta,
    ToolCallDelta,
    ToolFinished,
    ToolProgress,
    ToolStarted,
    Usage,
)
from tests.support.openai_events import EVENT_TYPES, check_events, check_response, read_events

GOLDEN = Path(__file__).parents[2] / "golden"
KEY = "0123456789abcdef0123456789abcdef"
INCLUDE = frozenset({"web_search_call.action.sources", "file_search_call.results", "code_interpreter_call.outputs"})
ECHOED: dict[str, Any] = {"parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "metadata": {}}
SELECTED = BackendSelected("ollama", "qwen2.5:14b")
USAGE = Usage(7, 3, cached_tokens=5, reasoning_tokens=1)
DONE = RunFinished("stop", USAGE)


def tool_result(answer: str = "", **data: Any) -> dict[str, Any]:
    return {"success": True, "answer": answer, "data": data, "metadata": {}, "error": None}


PLAIN: list[Event] = [SELECTED, TextDelta("Hi"), TextDelta(' "you"\n'), TextDelta("안녕 🙂"), DONE]
THINKING: list[Event] = [SELECTED, ReasoningDelta("Hm"), ReasoningDelta("."), TextDelta("4"), DONE]
CUT: list[Event] = [SELECTED, TextDelta("It is"), RunFinished("length", USAGE)]
FILTERED: list[Event] = [SELECTED, RunFinished("content_filter", USAGE)]
EMPTY: list[Event] = [SELECTED, DONE]
CLIENT_TOOLS: list[Event] = [
    HistoryTrimmed(2),
    SELECTED,
    TextDelta("Let me see."),
    ToolCallDelta(0, id="call_1", name="f"),
    ToolCallDelta(0, '{"a":'),
    ToolCallDelta(0, "1}"),
    ToolCallDelta(1, id="call_2", name="g"),
    RunFinished("tool_calls", USAGE),
]
LOGPROBS: list[Event] = [
    SELECTED,
    TextDelta("Hi", [{"token": "Hi", "logprob": -0.5, "bytes": None, "top_logprobs": []}]),
    TextDelta("!", [{"token": "!", "logprob": -0.25, "bytes": [33], "top_logprobs": [{"token": "!", "logprob": -1}]}]),
    DONE,
]
AGENT: list[Event] = [
    AgentSelected("react", "it needs tools"),
    SELECTED,
    ReasoningDelta("I search and compute."),
    ToolStarted("call_1", "websearch", {"query": "six times seven"}),
    ToolStarted("call_2", "python_coder", {"code": "print(6*7)"}),
    ToolProgress("call_1", "websearch", "Found 1 result"),
    ToolFinished(
        "call_2",
        "python_coder",
        True,
        "42",
        0.2,
        tool_result(stdout="42\n", files=[{"name": "a.png", "url": "/api/a.png"}]),
    ),
    ToolFinished("call_1", "websearch", True, "42", 0.3, tool_result("42 [1]", results=[{"url": "https://e.org"}])),
    TextDelta("It is 42 [1]."),
    AnswerCited((Citation("https://e.org", "E", 9, 12),)),
    DONE,
]
MORE_TOOLS: list[Event] = [
    PlanMade(({"id": 1, "goal": "find", "tool": "rag", "depends_on": []},)),
    StepStarted(1, "find"),
    SELECTED,
    ToolStarted("call_1", "rag", {"query": "leave"}),
    ToolFinished(
        "call_1",
        "rag",
        True,
        "25 days",
        0.2,
        tool_result(sources=[{"document": "leave.pdf", "page": 3, "score": 0.9, "text": "25 days"}]),
    ),
    ToolStarted("call_2", "ppt_maker", {"instruction": "leave"}),
    ToolFinished("call_2", "ppt_maker", True, "made", 0.2, tool_result("Made deck.pptx")),
    ToolStarted("call_3", "ppt_maker", {}),
    ToolFinished("call_3", "ppt_maker", False, "It broke.", 0.2, None),
    ToolStarted("call_4", "websearch", {"fetch_url": "https://e.org"}),
    ToolFinished("call_4", "websearch", False, "Nobody answers.", 0.2, None),
    ToolStarted("call_5", "python_coder", {"task": "draw"}),
    ToolFinished("call_5", "python_coder", False, "It was stopped.", 0.2, {"data": "rubbish"}),
    StepFinished(1, True, "found"),
    TextDelta("See the deck."),
    DONE,
]
STREAMS = {
    "plain": PLAIN,
    "thinking": THINKING,
    "cut": CUT,
    "filtered": FILTERED,
    "empty": EMPTY,
    "client_tools": CLIENT_TOOLS,
    "logprobs": LOGPROBS,
    "agent": AGENT,
    "more_tools": MORE_TOOLS,
}


def open_response() -> OpenResponse:
    output = ResponseOutput(KEY, include=INCLUDE, container_id="cntr_1")
    return OpenResponse(f"resp_{KEY}", 1700000000, "asked-for", ECHOED, {"session_id": "sess_1"}, output)


def encode(events: list[Event], error: ApiError | None = None) -> bytes:
    encoder = ResponseEncoder(open_response())
    stream = b"".join(encoder.encode(event) for event in events)
    return stream + (encoder.fail(error) if error else encoder.end())


def events_of(events: list[Event], error: ApiError | None = None) -> list[dict[str, Any]]:
    return read_events(encode(events, error).decode())


@pytest.fixture(autouse=True)
def _at_one_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.api.response_stream.time.time", lambda: 1700000009.5)


@pytest.mark.parametrize("name", ["plain", "client_tools", "agent"])
def test_the_stream_is_byte_for_byte_the_golden_transcript(name: str) -> None:
    assert encode(STREAMS[name]) == (GOLDEN / f"response_{name}.sse").read_bytes()


@pytest.mark.parametrize("name", STREAMS)
def test_every_event_is_of_openais_types_and_in_its_place(name: str) -> None:
    check_events(events_of(STREAMS[name]))


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("cut_after", [1, 3, 5, 8])
def test_a_stream_that_breaks_anywhere_is_still_whole_in_its_form(name: str, cut_after: int) -> None:
    events = [event for event in STREAMS[name] if not isinstance(event, RunFinished)][:cut_after]
    told = events_of(events, AnswerInterrupted("The answer was cut."))
    check_events(told)
    assert told[-1]["type"] == "response.failed"
    assert told[-1]["response"]["error"] == {"code": "server_error", "message": "The answer was cut."}


@pytest.mark.parametrize("name", STREAMS)
def test_openais_client_puts_the_same_response_together(name: str) -> None:
    state = ResponseStreamState(input_tools=omit, text_format=omit)
    told = events_of(STREAMS[name])
    for event in told:
        state.handle_event(EVENT_TYPES[event["type"]].construct(**event))
    if told[-1]["type"] == "response.completed":
        assert state._completed_response is not None
        text = "".join(event.text for event in STREAMS[name] if isinstance(event, TextDelta))
        assert state._completed_response.output_text == text


@pytest.mark.parametrize("name", STREAMS)
def test_the_object_is_the_one_that_the_stream_ends_with(name: str) -> None:
    response = open_response()
    for event in STREAMS[name]:
        response.take(event)
    body = json.loads(json.dumps(response.to_object()))
    check_response(body)
    assert body == events_of(STREAMS[name])[-1]["response"]


def test_nothing_is_sent_before_the_run_shows_something() -> None:
    encoder = ResponseEncoder(open_response())
    assert encoder.encode(HistoryTrimmed(3)) == encoder.encode(SELECTED) == b""
    assert encoder.encode(TextDelta("a")).startswith(b"event: response.created\n")


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [
        ("plain", "completed", None),
        ("cut", "incomplete", "max_output_tokens"),
        ("filtered", "incomplete", "content_filter"),
    ],
)
def test_how_the_run_ended_is_told_in_openais_words(name: str, status: str, reason: str | None) -> None:
    last = events_of(STREAMS[name])[-1]
    assert last["type"] == f"response.{status}"
    assert last["response"]["status"] == status
    assert (last["response"]["incomplete_details"] or {}).get("reason") == reason
    assert last["response"]["usage"]["total_tokens"] == 10


@pytest.mark.parametrize(
    ("error", "code"),
    [(ContextOverflow("Too long."), "invalid_prompt"), (TooManyRequests("Wait."), "rate_limit_exceeded")],
)
def test_an_error_has_one_of_the_codes_that_clients_know(error: ApiError, code: str) -> None:
    assert events_of(PLAIN[:2], error)[-1]["response"]["error"]["code"] == code


def test_a_run_that_fails_before_it_showed_anything_is_a_whole_stream_too() -> None:
    check_events(events_of([], AnswerInterrupted("Nobody answers.")))


def test_results_of_tools_are_told_only_to_those_who_ask_for_them() -> None:
    response = OpenResponse("resp_1", 1, "m", ECHOED, {}, ResponseOutput(KEY))
    for event in [*AGENT, *MORE_TOOLS]:
        response.take(event)
    items = {item["type"]: item for item in response.to_object()["output"]}
    assert "sources" not in items["web_search_call"]["action"]
    assert items["code_interpreter_call"]["outputs"] is items["file_search_call"]["results"] is None


def test_what_tools_brought_is_in_their_items() -> None:
    items = events_of(AGENT)[-1]["response"]["output"]
    by_type = {item["type"]: item for item in items}
    assert by_type["web_search_call"]["action"]["sources"] == [{"type": "url", "url": "https://e.org"}]
    assert by_type["code_interpreter_call"]["outputs"] == [
        {"type": "logs", "logs": "42"},
        {"type": "image", "url": "/api/a.png"},
    ]
    items = events_of(MORE_TOOLS)[-1]["response"]["output"]
    calls = [item for item in items if item["type"] == "mcp_call"]
    assert [(call["status"], call["output"], bool(call["error"])) for call in calls] == [
        ("completed", "Made deck.pptx", False),
        ("failed", None, True),
    ]
    assert [item["results"][0]["text"] for item in items if item["type"] == "file_search_call"] == ["25 days"]
    assert "function_call" not in {item["type"] for item in items}


def test_citations_are_counted_from_the_beginning_of_their_message() -> None:
    events: list[Event] = [
        TextDelta("First. "),
        ToolStarted("call_1", "toy", {}),
        ToolFinished("call_1", "toy", True, "", 0.1),
        TextDelta("It is so [1]."),
        AnswerCited((Citation("https://a.org", "A", 0, 5), Citation("https://b.org", "B", 16, 19))),
        DONE,
    ]
    message = events_of(events)[-1]["response"]["output"][-1]["content"][0]
    assert [
        (note["url"], message["text"][note["start_index"] : note["end_index"]]) for note in message["annotations"]
    ] == [("https://b.org", "[1]")]


def test_a_lone_surrogate_in_the_text_does_not_break_the_stream() -> None:
    told = events_of([SELECTED, TextDelta("a\ud800b"), TextDelta("\ud800"), DONE])
    assert told[-1]["response"]["output"][0]["content"][0]["text"] == "a\ufffdb\ufffd"
