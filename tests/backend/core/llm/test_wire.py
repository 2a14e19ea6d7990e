"""The decoders: whatever the pieces that bytes arrive in, the same units come out."""

import itertools

import pytest

from backend.core.errors import BadRequest
from backend.core.events import ReasoningDelta, TextDelta, ToolCallDelta
from backend.core.llm.base import LLMRequest, NamedTool, ToolDefinition
from backend.core.llm.wire import (
    CallIndex,
    EventStreamDecoder,
    LineDecoder,
    ThoughtSplitter,
    WireError,
    argument_object,
    context_overflow,
    finish_reason,
    logprob_entries,
    offered_tools,
    quotable,
)

LINES = '{"content":"Grüße 🎉"}\r\n\n{"content":"한국"}\n{"done":true}\n'.encode()
EVENTS = (
    ": keep-alive\n\n"
    'data: {"content":"Grüße 🎉"}\n\n'
    "event: ping\nid: 7\n: in between\ndata:first\ndata: second\ndata:  third\n\n"
    "retry: 10\n\n\n"
    "data: [DONE]\n\n"
)
PAYLOADS = ['{"content":"Grüße 🎉"}'.encode(), b"first\nsecond\n third", b"[DONE]"]


def test_lines_come_out_whole_wherever_the_bytes_are_split() -> None:
    expected = ['{"content":"Grüße 🎉"}\r'.encode(), '{"content":"한국"}'.encode(), b'{"done":true}']
    for at in range(len(LINES) + 1):
        decoder = LineDecoder()
        assert decoder.feed(LINES[:at]) + decoder.feed(LINES[at:]) == expected
    decoder = LineDecoder()
    assert list(itertools.chain(*(decoder.feed(bytes([byte])) for byte in LINES))) == expected


def test_an_unfinished_line_is_not_a_line() -> None:
    assert LineDecoder().feed(b'{"done":true}') == []


@pytest.mark.parametrize("decoder", [LineDecoder(limit=100), EventStreamDecoder(limit=100)])
def test_an_endless_unit_is_refused(decoder: LineDecoder | EventStreamDecoder) -> None:
    for _ in range(10):
        decoder.feed(b"data: ten ")
    with pytest.raises(WireError):
        decoder.feed(b"one more")


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_events_come_out_whole_wherever_the_bytes_are_split(line_end: str) -> None:
    # After a last lone CR the decoder waits for a byte that may belong to it: a comment makes it go on.
    data = EVENTS.replace("\n", line_end).encode() + b": end"
    for at in range(len(data) + 1):
        decoder = EventStreamDecoder()
        assert decoder.feed(data[:at]) + decoder.feed(data[at:]) == PAYLOADS, (line_end, at)
    decoder = EventStreamDecoder()
    assert list(itertools.chain(*(decoder.feed(bytes([byte])) for byte in data))) == PAYLOADS


def test_pings_for_hours_do_not_fill_the_buffer() -> None:
    decoder = EventStreamDecoder(limit=100)
    assert [payload for _ in range(1000) for payload in decoder.feed(b": keep-alive\n\n")] == []


THOUGHTS = [
    ("<think>\nFrance has capital Paris\n</think>\nParis", "France has capital Paris\n", "Paris"),
    ("  \n<think>a < b</think>c</think>d", "a < b", "c</think>d"),
    ("<think></think>\n\nParis", "", "Paris"),
    ("<think>never closed </thin", "never closed </thin", ""),
    ("<thin air", "", "<thin air"),
    ("\n Paris", "", "\n Paris"),
    ("Use <think> for thoughts", "", "Use <think> for thoughts"),
    ("<", "", "<"),
    ("<think>a</think>", "a", ""),
]


@pytest.mark.parametrize(("said", "thought", "answer"), THOUGHTS)
def test_thoughts_are_parted_from_the_answer_wherever_the_text_is_split(said: str, thought: str, answer: str) -> None:
    splits = [[said[:at], said[at:]] for at in range(len(said) + 1)] + [list(said)]
    for pieces in splits:
        splitter = ThoughtSplitter()
        events = [event for piece in pieces if piece for event in splitter.feed(piece)] + list(splitter.flush())
        assert "".join(event.text for event in events if isinstance(event, ReasoningDelta)) == thought, pieces
        assert "".join(event.text for event in events if isinstance(event, TextDelta)) == answer, pieces
        assert all(event.text for event in events)


def test_text_that_is_no_thought_is_not_held_back() -> None:
    splitter = ThoughtSplitter()
    assert list(splitter.feed("Hello")) == [TextDelta("Hello")]
    assert splitter.done


def test_calls_get_dense_indexes_and_their_name_once() -> None:
    calls = CallIndex(parallel=None)
    assert calls.delta(3, "a", "f", "{") == ToolCallDelta(0, "{", "a", "f")
    assert calls.delta(3, "a", "f", "}") == ToolCallDelta(0, "}")
    assert calls.delta(7, "b", "g", "") == ToolCallDelta(1, "", "b", "g")
    assert calls.delta(7, None, "", "{}") == ToolCallDelta(1, "{}")
    assert calls


def test_a_call_without_an_id_gets_one() -> None:
    calls = CallIndex(parallel=None)
    first, second = calls.delta(None, None, "f", "{}"), calls.delta(None, "", "f", "{}")
    assert first is not None
    assert second is not None
    assert (first.index, second.index) == (0, 1)
    assert first.id != second.id
    assert str(first.id).startswith("call_")


def test_only_the_first_call_passes_when_parallel_calls_are_off() -> None:
    calls = CallIndex(parallel=False)
    assert calls.delta(0, "a", "f", "{") is not None
    assert calls.delta(1, "b", "g", "{") is None
    assert calls.delta(1, None, "", "}") is None
    assert calls.delta(0, None, "", "}") == ToolCallDelta(0, "}")


@pytest.mark.parametrize(
    ("vendor", "called", "ours"),
    [
        ("stop", False, "stop"),
        ("stop", True, "tool_calls"),
        ("tool_calls", True, "tool_calls"),
        ("length", True, "length"),
        ("content_filter", False, "content_filter"),
        ("load", False, "stop"),
        (None, False, "stop"),
    ],
)
def test_finish_reasons_are_only_ours(vendor: str | None, called: bool, ours: str) -> None:
    assert finish_reason(vendor, called=called) == ours


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        ("", {}),
        (" ", {}),
        ('{"a":', {"_raw": '{"a":'}),
        ("[1]", {"_raw": "[1]"}),
        ("null", {"_raw": "null"}),
    ],
)
def test_arguments_of_earlier_calls_become_an_object(text: str, value: dict[str, object]) -> None:
    assert argument_object(text) == value


@pytest.mark.parametrize(
    ("vendor", "shown"),
    [
        ("dial tcp 127.0.0.1:11434: connect: refused", "dial tcp …: connect: refused"),
        ("open /root/.ollama/models/blobs/sha256-1: no such file", "open …: no such file"),
        ("Post http://gpu-7.internal:8080/completion: EOF", "Post … EOF"),
        ("expected and/or a/b at 3.5", "expected and/or a/b at 3.5"),
        ("x" * 400, "x" * 299 + "…"),
    ],
)
def test_what_a_vendor_says_is_shown_without_addresses_and_paths(vendor: str, shown: str) -> None:
    assert quotable(vendor) == shown


def test_logprobs_are_openais_entries_and_no_more_alternatives_than_asked_for() -> None:
    entry = {"id": 5, "token": "a", "logprob": -1.0, "bytes": [97]}
    plain = {"token": "a", "logprob": -1.0, "bytes": [97]}
    assert logprob_entries([{**entry, "top_logprobs": [entry, entry]}], 1) == [{**plain, "top_logprobs": [plain]}]
    assert logprob_entries([entry], 0) == [{**plain, "top_logprobs": []}]


def test_an_overflow_tells_both_counts_where_they_are_known() -> None:
    error = context_overflow({"n_prompt_tokens": 3010, "n_ctx": 512})
    assert (error.prompt_tokens, error.context_tokens) == (3010, 512)
    assert "3010" in error.message
    assert "512" in error.message
    assert context_overflow({}).prompt_tokens is None


def test_the_model_sees_the_tools_that_it_may_choose() -> None:
    f, g = ToolDefinition("f"), ToolDefinition("g")
    request = LLMRequest("m", (), tools=(f, g))
    assert offered_tools(request) == (f, g)
    assert offered_tools(LLMRequest("m", (), tools=(f, g), tool_choice="none")) == ()
    assert offered_tools(LLMRequest("m", (), tools=(f, g), tool_choice=NamedTool("g"))) == (g,)
    with pytest.raises(BadRequest) as caught:
        offered_tools(LLMRequest("m", (), tools=(f, g), tool_choice=NamedTool("h")))
    assert caught.value.param == "tool_choice"
