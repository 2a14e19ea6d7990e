"""Ollama's wire: what is asked, what the recorded answers mean, and what its errors become."""

from typing import Any

import orjson
import pytest

from backend.core.errors import ApiError, BackendUnavailable, BadRequest, ContextOverflow, ModelNotFound
from backend.core.events import BackendEvent, Completed, ReasoningDelta, TextDelta, ToolCallDelta, Usage
from backend.core.llm.base import LLMRequest, NamedTool, ResponseFormat, Sampling
from backend.core.llm.ollama_wire import ChatDecoder, chat_body, refusal
from backend.core.messages import ImagePart, Message, TextPart, ToolCall
from tests.support.llm_calls import NEWS, WEATHER, ask

MODEL = "smollm2:135m"

# --- Decoding what a real one sent ------------------------------------------------------------------------------------

HEAD = '{"model":"m","created_at":"2026-11-22T14:50:00.580766758Z","message":{"role":"assistant","content":'
END = (
    HEAD + '""},"done":true,"done_reason":"stop","total_duration":3526983628,"load_duration":2577321053,'
    '"prompt_eval_count":104,"prompt_eval_duration":727972000,"eval_count":11,"eval_duration":215790000}\n'
)
RECORDED: dict[str, tuple[str, list[BackendEvent]]] = {
    "thinking": (
        HEAD + '"","thinking":"France"},"done":false}\n'
        + HEAD + '"","thinking":" has"},"done":false}\n'
        + HEAD + '"Paris \\u003c größer 🎉"},"done":false}\n'
        + END,
        [
            ReasoningDelta("France"),
            ReasoningDelta(" has"),
            TextDelta("Paris < größer 🎉"),
            Completed("stop", Usage(104, 11)),
        ],
    ),
    "thoughts left in the text": (
        HEAD + '"\\u003cthink\\u003e\\nFrance"},"done":false}\n'
        + HEAD + '"\\u003c/think\\u003e\\nParis"},"done":false}\n'
        + END,
        [ReasoningDelta("France"), TextDelta("Paris"), Completed("stop", Usage(104, 11))],
    ),
    "tool calls": (
        HEAD + '"","tool_calls":[{"id":"call_2jszea0q","function":{"index":0,"name":"websearch",'
        '"arguments":{"query":"weather in Paris"}}}]},"done":false}\n'
        + HEAD + '"","tool_calls":[{"id":"call_7","function":{"index":0,"name":"time",'
        '"arguments":{}}}]},"done":false}\n'
        + END,
        [
            ToolCallDelta(0, '{"query":"weather in Paris"}', "call_2jszea0q", "websearch"),
            ToolCallDelta(1, "{}", "call_7", "time"),
            Completed("tool_calls", Usage(104, 11)),
        ],
    ),
    "cut by the token limit": (
        HEAD + '"Once"},"done":false}\n' + HEAD + '""},"done":true,"done_reason":"length"}\n',
        [TextDelta("Once"), Completed("length", Usage())],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_answers_mean_the_same_wherever_the_bytes_are_split(name: str) -> None:
    text, expected = RECORDED[name]
    data = text.encode()
    for at in range(len(data) + 1):
        decoder = ChatDecoder(ask())
        events: list[BackendEvent] = [*decoder.feed(data[:at]), *decoder.feed(data[at:])]
        assert decoder.completed is not None
        assert [*events, decoder.completed] == expected


def test_an_error_line_comes_after_the_text_before_it() -> None:
    decoder = ChatDecoder(ask())
    error = b'{"error":"an error was encountered while running the model: unexpected EOF"}\n'
    events = decoder.feed((HEAD + '"Once"},"done":false}\n').encode() + error)
    assert next(events) == TextDelta("Once")
    with pytest.raises(BackendUnavailable):
        next(events)


def test_logprobs_stay_with_their_text() -> None:
    line = (
        HEAD + '"<think>"},"done":false,"logprobs":[{"token":"<think>","logprob":-2.04,"bytes":[60],'
        '"top_logprobs":[{"token":"x","logprob":-3.0,"bytes":[120]}]}]}\n'
    )
    decoder = ChatDecoder(ask(sampling=Sampling(logprobs=True, top_logprobs=1)))
    alternatives = [{"token": "x", "logprob": -3.0, "bytes": [120]}]
    entry = {"token": "<think>", "logprob": -2.04, "bytes": [60], "top_logprobs": alternatives}
    assert list(decoder.feed(line.encode())) == [TextDelta("<think>", [entry])]


def test_calls_without_ids_get_some() -> None:
    line = HEAD + '"","tool_calls":[{"function":{"name":"f","arguments":{}}}]},"done":false}\n'
    (call,) = ChatDecoder(ask()).feed(line.encode())
    assert isinstance(call, ToolCallDelta)
    assert str(call.id).startswith("call_")


# --- Errors, as recorded ----------------------------------------------------------------------------------------------

OVERFLOW = (
    '{"error":{"code":400,"message":"request (3010 tokens) exceeds the available context size (512 tokens), try '
    'increasing it","type":"exceed_context_size_error","n_prompt_tokens":3010,"n_ctx":512}}'
)
NO_IMAGES = (
    '{"error":{"code":400,"message":"Multimodal data provided, but model does not support multimodal requests.",'
    '"type":"invalid_request_error"}}'
)
GO = "json: cannot unmarshal string into Go struct field ChatRequest.messages of type []api.Message"


@pytest.mark.parametrize(
    ("status", "error", "kind", "param"),
    [
        (404, "model 'nope' not found", ModelNotFound, "model"),
        (400, "invalid model name", ModelNotFound, "model"),
        (400, OVERFLOW, ContextOverflow, "messages"),
        (500, "the input length exceeds the context length", ContextOverflow, "messages"),
        (400, NO_IMAGES, BadRequest, "messages"),
        (400, "registry.ollama.ai/library/smollm2:135m does not support tools", BadRequest, "tools"),
        (400, '"smollm2:135m" does not support thinking', BadRequest, "reasoning_effort"),
        (400, 'invalid think value: "huge" (must be "high", …)', BadRequest, "reasoning_effort"),
        (400, 'think value "medium" is not supported for this model', BadRequest, "reasoning_effort"),
        (400, '"all-minilm" does not support chat', BadRequest, "model"),
        (400, "model is required", BadRequest, "model"),
        (
            500,
            'invalid format: "\\"xml\\""; expected "json" or a valid JSON Schema object',
            BadRequest,
            "response_format",
        ),
        (500, 'option "temperature" must be of type float32', BadRequest, "temperature"),
        (500, 'option "num_predict" must be of type integer', BadRequest, "max_tokens"),
        (400, GO, BadRequest, "messages"),
        (400, "illegal base64 data at input byte 0", BadRequest, "messages"),
        (400, "missing request body", BadRequest, None),
        (503, "server busy, please try again.  maximum pending requests exceeded", BackendUnavailable, None),
        (500, "llama runner process has terminated: signal: killed", BackendUnavailable, None),
        (500, "model requires more system memory (9.1 GiB) than is available", BackendUnavailable, None),
        (499, "request canceled", BackendUnavailable, None),
        (401, "unauthorized", BackendUnavailable, None),
    ],
)
def test_an_error_of_ollama_becomes_ours(status: int, error: str, kind: type[ApiError], param: str | None) -> None:
    caught = refusal(status, orjson.dumps({"error": error}), model="nope")
    assert type(caught) is kind
    assert caught.param == param


@pytest.mark.parametrize(
    ("status", "body"),
    [(404, b"404 page not found"), (405, b"405 method not allowed"), (502, b"<html>"), (400, b""), (400, b"[]")],
)
def test_an_error_that_is_not_ollamas_means_another_backend(status: int, body: bytes) -> None:
    assert type(refusal(status, body, model="m")) is BackendUnavailable


def test_an_overflow_carries_ollamas_own_counts() -> None:
    error = refusal(400, orjson.dumps({"error": OVERFLOW}), model="m")
    assert isinstance(error, ContextOverflow)
    assert (error.prompt_tokens, error.context_tokens) == (3010, 512)


def test_a_busy_server_says_when_to_come_back() -> None:
    assert refusal(503, b'{"error":"server busy"}', model="m").headers == {"Retry-After": "2"}


# --- What is asked ----------------------------------------------------------------------------------------------------


def body_of(request: LLMRequest, *, thinks: bool = False) -> dict[str, Any]:
    return chat_body(request, num_ctx=4096, thinks=thinks, keep_alive="5m")


def test_nothing_is_cut_silently_and_nothing_is_asked_that_was_not_given() -> None:
    assert body_of(ask()) == {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Hi there"}],
        "stream": True,
        "options": {"num_ctx": 4096},
        "truncate": False,
        "shift": False,
        "keep_alive": "5m",
    }


def test_sampling_goes_into_the_options() -> None:
    sampling = Sampling(
        temperature=0.0,
        top_p=0.5,
        max_tokens=0,
        stop=("a", "b"),
        seed=-7,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        logprobs=True,
        top_logprobs=3,
    )
    body = body_of(ask(sampling=sampling))
    assert body["options"] == {
        "num_ctx": 4096,
        "temperature": 0.0,
        "top_p": 0.5,
        "num_predict": 1,  # 0 would mean without limit
        "stop": ["a", "b"],
        "seed": 2147483641,  # 31 bits of -7
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
    }
    assert (body["logprobs"], body["top_logprobs"]) == (True, 3)


def test_logit_bias_is_refused_by_name() -> None:
    with pytest.raises(BadRequest) as refusal:
        body_of(ask(sampling=Sampling(logit_bias={"5": -100.0})))
    assert refusal.value.param == "logit_bias"


@pytest.mark.parametrize(
    ("effort", "think"),
    [("none", False), ("minimal", "low"), ("low", "low"), ("medium", "medium"), ("high", "high"), ("max", "max")],
)
def test_reasoning_effort_is_asked_only_of_models_that_think(effort: str, think: object) -> None:
    assert body_of(ask(reasoning_effort=effort), thinks=True)["think"] == think
    assert "think" not in body_of(ask(reasoning_effort=effort))
    assert "think" not in body_of(ask(), thinks=True)


def test_an_answer_that_goes_on_is_past_its_thoughts() -> None:
    request = ask(Message("user", "a"), Message("assistant", "b"), reasoning_effort="high")
    assert body_of(request, thinks=True)["think"] is False


def test_the_response_format_is_json_or_the_schema() -> None:
    assert body_of(ask(response_format=ResponseFormat()))["format"] == "json"
    assert body_of(ask(response_format=ResponseFormat({"type": "object"})))["format"] == {"type": "object"}


def test_tool_choice_is_emulated() -> None:
    tools = (WEATHER, NEWS)
    assert "tools" not in body_of(ask(tools=tools, tool_choice="none"))
    assert len(body_of(ask(tools=tools, tool_choice="auto"))["tools"]) == 2
    named = body_of(
        ask(Message("system", "Be kind."), Message("user", "x"), tools=tools, tool_choice=NamedTool("news"))
    )
    assert [tool["function"]["name"] for tool in named["tools"]] == ["news"]
    assert named["messages"][0]["content"].startswith("Be kind.\n\n")
    assert "`news`" in named["messages"][0]["content"]
    required = body_of(ask(tools=tools, tool_choice="required"))
    assert [message["role"] for message in required["messages"]] == ["system", "user"]


def test_the_history_is_told_in_ollamas_words() -> None:
    picture = ImagePart("data:image/png;base64,YWJj")
    history = (
        Message("user", (TextPart("Look:"), picture, TextPart("what is it?"))),
        Message("assistant", "", (ToolCall("c1", "weather", '{"place":"Rome"}'), ToolCall("c2", "news", "{broken"))),
        Message("tool", "sunny", tool_call_id="c1"),
        Message("assistant", "Sunny.", reasoning="I was told"),
    )
    assert body_of(ask(*history))["messages"] == [
        {"role": "user", "content": "Look:\nwhat is it?", "images": ["YWJj"]},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": "c1", "function": {"name": "weather", "arguments": {"place": "Rome"}}},
                {"id": "c2", "function": {"name": "news", "arguments": {"_raw": "{broken"}}},
            ],
        },
        {"role": "tool", "content": "sunny", "tool_name": "weather", "tool_call_id": "c1"},
        {"role": "assistant", "content": "Sunny.", "thinking": "I was told"},
    ]


@pytest.mark.parametrize("url", ["https://example.org/a.png", "data:image/png,abc", "YWJj"])
def test_a_picture_that_is_not_a_data_url_is_refused(url: str) -> None:
    with pytest.raises(BadRequest) as caught:
        body_of(ask(Message("user", (ImagePart(url),))))
    assert caught.value.param == "messages"
