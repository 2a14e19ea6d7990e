"""The stream's bytes, held against golden transcripts; and the same events collected into one object."""

import json
from pathlib import Path

import pytest

from backend.api.completions import ChunkEncoder, CompletionHead, completion_object, error_frame
from backend.core.answers import Answer
from backend.core.errors import AnswerInterrupted
from backend.core.events import (
    BackendSelected,
    Event,
    HistoryTrimmed,
    ReasoningDelta,
    RunFinished,
    StepStarted,
    TextDelta,
    ToolCallDelta,
    ToolFinished,
    ToolProgress,
    ToolStarted,
    Usage,
)
from tests.support.openai_shapes import check_stream

GOLDEN = Path(__file__).parents[2] / "golden"
HEAD = CompletionHead("chatcmpl-1", 1700000000, "asked-for", "sess_1")
SELECTED = BackendSelected("ollama", "qwen2.5:14b")
USAGE = Usage(7, 3, cached_tokens=5, reasoning_tokens=1)

PLAIN: list[Event] = [
    SELECTED,
    TextDelta("Hi"),
    TextDelta(' "you"\n'),
    TextDelta("안녕 🙂"),
    RunFinished("stop", USAGE),
]
THINKING: list[Event] = [SELECTED, ReasoningDelta("Hm."), TextDelta("4"), RunFinished("length", USAGE)]
CLIENT_TOOLS: list[Event] = [
    SELECTED,
    ToolCallDelta(0, id="call_1", name="f"),
    ToolCallDelta(0, '{"a":'),
    ToolCallDelta(0, "1}"),
    ToolCallDelta(1, "{}", id="call_2", name="g"),
    RunFinished("tool_calls", USAGE),
]
AGENT: list[Event] = [
    StepStarted(1, "compute"),
    SELECTED,
    ReasoningDelta("I should compute."),
    ToolStarted("call_1", "python_coder", {"code": "6*7"}),
    ToolProgress("call_1", "python_coder", "running"),
    ToolFinished("call_1", "python_coder", True, "42", 0.25),
    TextDelta("42"),
    RunFinished("stop", USAGE),
]
LOGPROBS: list[Event] = [
    SELECTED,
    TextDelta("Hi", [{"token": "Hi", "logprob": -0.5, "bytes": [72, 105], "top_logprobs": []}]),
    RunFinished("stop", USAGE),
]
TRIMMED: list[Event] = [HistoryTrimmed(4), SELECTED, TextDelta("Hi"), RunFinished("stop", USAGE)]
TOOK_OVER: list[Event] = [
    SELECTED,
    TextDelta("a"),
    BackendSelected("llamacpp", "other"),
    TextDelta("b"),
    RunFinished("stop", USAGE),
]
EMPTY: list[Event] = [SELECTED, RunFinished("stop", USAGE)]


def encode(events: list[Event], *, include_usage: bool = False, functions: bool = False) -> bytes:
    encoder = ChunkEncoder(HEAD, include_usage=include_usage, functions=functions)
    return b"".join(encoder.encode(event) for event in events) + encoder.end()


def chunks(stream: bytes) -> list[dict]:
    frames = [frame.removeprefix("data: ") for frame in stream.decode().split("\n\n") if frame]
    return [json.loads(frame) for frame in frames if frame != "[DONE]"]


@pytest.mark.parametrize(
    ("name", "events", "include_usage"),
    [
        ("plain", PLAIN, False),
        ("plain_with_usage", PLAIN, True),
        ("thinking", THINKING, False),
        ("client_tools", CLIENT_TOOLS, True),
        ("agent", AGENT, False),
        ("logprobs", LOGPROBS, False),
        ("trimmed", TRIMMED, False),
        ("another_backend_took_over", TOOK_OVER, False),
        ("empty_answer", EMPTY, False),
    ],
)
def test_the_stream_is_byte_for_byte_the_golden_transcript(name: str, events: list[Event], include_usage: bool) -> None:
    assert encode(events, include_usage=include_usage) == (GOLDEN / f"{name}.sse").read_bytes()


def test_a_call_of_the_old_form_is_byte_for_byte_the_golden_transcript() -> None:
    called = [*CLIENT_TOOLS[:4], CLIENT_TOOLS[-1]]
    assert encode(called, functions=True) == (GOLDEN / "function_call.sse").read_bytes()


@pytest.mark.parametrize("transcript", sorted(GOLDEN.glob("*.sse")), ids=lambda path: path.stem)
def test_every_golden_transcript_has_the_shape_that_openai_publishes(transcript: Path) -> None:
    if b'"chat.completion.chunk"' in (text := transcript.read_bytes()):
        check_stream(text.decode(), include_usage=b'"usage"' in text)


@pytest.mark.parametrize("events", [PLAIN, THINKING, CLIENT_TOOLS, AGENT, LOGPROBS, TRIMMED, TOOK_OVER, EMPTY])
@pytest.mark.parametrize("include_usage", [False, True])
def test_every_stream_keeps_the_rules_that_clients_depend_on(events: list[Event], include_usage: bool) -> None:
    stream = encode(events, include_usage=include_usage)
    parsed = chunks(stream)
    with_choices = [chunk for chunk in parsed if chunk["choices"]]
    assert stream.endswith(b"data: [DONE]\n\n")
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in parsed}) == 1
    assert ["role" in chunk["choices"][0]["delta"] for chunk in with_choices] == [True] + [False] * (
        len(with_choices) - 1
    )
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in with_choices]
    assert reasons[:-1] == [None] * (len(reasons) - 1)
    assert reasons[-1] in {"stop", "length", "tool_calls", "content_filter"}
    assert all(("usage" in chunk) == include_usage for chunk in parsed)
    assert [bool(chunk.get("usage")) for chunk in parsed] == [False] * (len(parsed) - 1) + [include_usage]


def test_the_usage_chunk_comes_only_when_asked_for() -> None:
    assert all(chunk["choices"] for chunk in chunks(encode(PLAIN)))
    assert [chunk["usage"]["total_tokens"] for chunk in chunks(encode(PLAIN, include_usage=True))[-1:]] == [10]


def test_a_tool_call_names_itself_once_and_then_only_adds_arguments() -> None:
    all_deltas = [chunk["choices"][0]["delta"] for chunk in chunks(encode(CLIENT_TOOLS))]
    deltas = [delta["tool_calls"][0] for delta in all_deltas if "tool_calls" in delta]
    assert [("id" in delta, delta["index"]) for delta in deltas] == [(True, 0), (False, 0), (False, 0), (True, 1)]


def test_a_broken_stream_ends_with_one_error_frame_and_without_done() -> None:
    encoder = ChunkEncoder(HEAD)
    stream = encoder.encode(SELECTED) + encoder.encode(TextDelta("Hal")) + encoder.end()
    assert b"[DONE]" not in stream
    frame = json.loads(error_frame(AnswerInterrupted("The answer was cut.")).removeprefix(b"data: "))
    assert set(frame["error"]) == {"message", "type", "param", "code"}


def test_choices_of_one_stream_are_told_apart_by_their_index_and_share_one_usage() -> None:
    encoder = ChunkEncoder(HEAD, include_usage=True, choices=2)
    stream = b"".join(
        encoder.encode(event, choice)
        for choice, event in [
            (0, SELECTED),
            (0, TextDelta("a")),
            (1, SELECTED),
            (1, TextDelta("b")),
            (1, RunFinished("stop", USAGE)),
            (0, RunFinished("stop", USAGE)),
        ]
    )
    parsed = chunks(stream + encoder.end())
    assert [c["choices"][0]["index"] for c in parsed if c["choices"]] == [0, 0, 1, 1, 1, 0]
    assert parsed[-1]["usage"]["completion_tokens"] == 6


def test_a_lone_surrogate_in_the_text_does_not_break_the_stream() -> None:
    parsed = chunks(encode([SELECTED, TextDelta("a\ud800b"), RunFinished("stop", USAGE)]))
    assert parsed[1]["choices"][0]["delta"]["content"] == "a\ufffdb"


@pytest.mark.parametrize("events", [PLAIN, THINKING, CLIENT_TOOLS, AGENT, LOGPROBS])
def test_collected_events_say_the_same_as_the_stream(events: list[Event]) -> None:
    answer = Answer()
    for event in events:
        answer.add(event)
    choice = completion_object(HEAD, [answer])["choices"][0]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks(encode(events))]
    assert (choice["message"]["content"] or "") == "".join(delta.get("content") or "" for delta in deltas)
    assert choice["message"].get("reasoning_content", "") == "".join(d.get("reasoning_content", "") for d in deltas)
    assert choice["finish_reason"] == chunks(encode(events))[-1]["choices"][0]["finish_reason"]
    streamed = [d["tool_calls"][0] for d in deltas if "tool_calls" in d]
    for index, call in enumerate(choice["message"].get("tool_calls", [])):
        mine = [delta["function"] for delta in streamed if delta["index"] == index]
        assert call["function"]["arguments"] == "".join(function["arguments"] for function in mine)
