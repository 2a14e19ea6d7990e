"""llama.cpp's wire: what is asked, what the recorded answers mean, and what its errors become."""

from typing import Any

import orjson
import pytest

from backend.core.errors import ApiError, BackendUnavailable, BadRequest, ContextOverflow
from backend.core.events import BackendEvent, Completed, ReasoningDelta, TextDelta, ToolCallDelta, Usage
from backend.core.llm.base import LLMRequest, NamedTool, ResponseFormat, Sampling
from backend.core.llm.healing import find_healing
from backend.core.llm.llamacpp_wire import ChatDecoder, chat_body, refusal
from backend.core.llm.wire import WireError
from backend.core.messages import ImagePart, Message, TextPart, ToolCall
from tests.support.llm_calls import NEWS, WEATHER, ask

# --- Decoding what a real one sent ------------------------------------------------------------------------------------

TAIL = '"created":1795373847,"id":"chatcmpl-EB","model":"smollm2","object":"chat.completion.chunk"}\n\n'


def chunk(delta: str, finish: str = "null", more: str = "") -> str:
    return f'data: {{"choices":[{{"finish_reason":{finish},"index":0,"delta":{delta}{more}}}],{TAIL}'


OPENING = chunk('{"role":"assistant","content":null}')
USAGE = (
    'data: {"choices":[],"usage":{"completion_tokens":5,"prompt_tokens":33,"total_tokens":38,'
    f'"prompt_tokens_details":{{"cached_tokens":24}}}},"timings":{{"cache_n":24}},{TAIL}'
)
DONE = "data: [DONE]\n\n"
RECORDED: dict[str, tuple[str, list[BackendEvent]]] = {
    "text": (
        OPENING
        + chunk('{"content":"Grüße"}')
        + ":\n\n"
        + chunk('{"content":" 🎉"}')
        + chunk("{}", '"stop"')
        + USAGE
        + DONE,
        [TextDelta("Grüße"), TextDelta(" 🎉"), Completed("stop", Usage(33, 5, 24))],
    ),
    "thoughts": (
        OPENING + chunk('{"reasoning_content":"Hm"}') + chunk('{"content":"Hi"}') + chunk("{}", '"length"') + DONE,
        [ReasoningDelta("Hm"), TextDelta("Hi"), Completed("length", Usage())],
    ),
    "thoughts left in the text": (
        OPENING
        + chunk('{"content":"<think>\\nHm"}')
        + chunk('{"content":"</think>\\n\\nHi"}')
        + chunk("{}", '"stop"')
        + DONE,
        [ReasoningDelta("Hm"), TextDelta("Hi"), Completed("stop", Usage())],
    ),
    "tool calls": (
        OPENING
        + chunk('{"tool_calls":[{"index":0,"id":"t8PY","type":"function","function":{"name":"f","arguments":"{"}}]}')
        + chunk('{"tool_calls":[{"index":0,"function":{"arguments":"\\"q\\": 1}"}}]}')
        + chunk('{"tool_calls":[{"index":1,"id":"u9QZ","type":"function","function":{"name":"g","arguments":"{}"}}]}')
        + chunk("{}", '"tool_calls"')
        + USAGE
        + DONE,
        [
            ToolCallDelta(0, "{", "t8PY", "f"),
            ToolCallDelta(0, '"q": 1}'),
            ToolCallDelta(1, "{}", "u9QZ", "g"),
            Completed("tool_calls", Usage(33, 5, 24)),
        ],
    ),
}


@pytest.mark.parametrize("name", RECORDED)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_recorded_answers_mean_the_same_wherever_the_bytes_are_split(name: str, line_end: str) -> None:
    text, expected = RECORDED[name]
    data = text.replace("\n", line_end).encode()
    step = 1 if line_end == "\n" else 7
    for at in range(0, len(data) + 1, step):
        decoder = ChatDecoder(ask(), None)
        events: list[BackendEvent] = []
        for piece in (data[:at], data[at:]):
            events += decoder.feed(piece)
        if decoder.completed is None:  # a last lone CR was waited for
            events += decoder.end()
        assert [*events, decoder.completed] == expected


def test_an_answer_without_done_is_whole_when_it_has_a_finish_reason() -> None:
    decoder = ChatDecoder(ask(), None)
    list(decoder.feed((chunk('{"content":"Hi"}') + chunk("{}", '"stop"')).encode()))
    assert list(decoder.end()) == []
    assert decoder.completed == Completed("stop", Usage())


@pytest.mark.parametrize("data", [OPENING + chunk('{"content":"Hi"}'), OPENING + DONE, "", "<html>\n\n</html>"])
def test_an_answer_without_a_finish_reason_is_not_whole(data: str) -> None:
    decoder = ChatDecoder(ask(), None)
    with pytest.raises(WireError):
        [*decoder.feed(data.encode()), *decoder.end()]


def test_an_error_in_the_stream_comes_after_the_text_before_it() -> None:
    decoder = ChatDecoder(ask(), None)
    error = 'data: {"error":{"code":500,"message":"Context size has been exceeded.","type":"server_error"}}\n\n'
    events = decoder.feed((chunk('{"content":"Hi"}') + error).encode())
    assert next(events) == TextDelta("Hi")
    with pytest.raises(BackendUnavailable):
        next(events)


def test_logprobs_stay_with_their_text() -> None:
    entry = (
        '{"id":19556,"token":"Hello","bytes":[72],"logprob":-2.08,"top_logprobs":[{"id":1,"token":"x","logprob":-3}]}'
    )
    data = chunk('{"content":"Hello"}', more=f',"logprobs":{{"content":[{entry}]}}')
    decoder = ChatDecoder(ask(sampling=Sampling(logprobs=True)), None)
    shown = {"token": "Hello", "logprob": -2.08, "bytes": [72], "top_logprobs": []}
    assert list(decoder.feed(data.encode())) == [TextDelta("Hello", [shown])]


# --- Errors, as recorded ----------------------------------------------------------------------------------------------

TOO_LONG = {
    "code": 400,
    "message": "request (3031 tokens) exceeds the available context size (2048 tokens), try increasing it",
    "type": "exceed_context_size_error",
    "n_prompt_tokens": 3031,
    "n_ctx": 2048,
}
NO_REF = (
    "Unable to generate parser for this template. Automatic parser generation failed: "
    "JSON schema error at #: cannot resolve $ref #/nope, nope not found"
)


@pytest.mark.parametrize(
    ("status", "message", "kind", "param"),
    [
        (400, NO_REF, BadRequest, "response_format"),
        (400, "Failed to initialize samplers: failed to parse grammar", BadRequest, "response_format"),
        (400, "Invalid tool_choice: foo", BadRequest, "tool_choice"),
        (500, "Failed to parse tool call arguments as JSON", BadRequest, "messages"),
        (500, "image input is not supported - hint: if this is unexpected, …", BadRequest, "messages"),
        (400, "Cannot have 2 or more assistant messages at the end of the list.", BadRequest, "messages"),
        (400, "Expected 'messages' to be an array", BadRequest, "messages"),
        (400, "Field 'temperature': [json.exception.type_error.302] type must be number", BadRequest, "temperature"),
        (400, "something else", BadRequest, None),
        (401, "Invalid API Key", BackendUnavailable, None),
        (404, "File Not Found", BackendUnavailable, None),
        (500, "out of memory at /home/me/llama.cpp/ggml.c:7", BackendUnavailable, None),
        (503, "Loading model", BackendUnavailable, None),
    ],
)
def test_an_error_of_llama_cpp_becomes_ours(status: int, message: str, kind: type[ApiError], param: str | None) -> None:
    caught = refusal(status, orjson.dumps({"error": {"code": status, "message": message}}), model="m")
    assert type(caught) is kind
    assert caught.param == param
    assert "/home" not in caught.message


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"error":null}', b'{"error":"plain"}'])
def test_an_error_of_another_shape_means_another_backend(body: bytes) -> None:
    assert type(refusal(502, body, model="m")) is BackendUnavailable


def test_an_overflow_carries_llama_cpps_own_counts() -> None:
    error = refusal(400, orjson.dumps({"error": TOO_LONG}), model="m")
    assert isinstance(error, ContextOverflow)
    assert (error.prompt_tokens, error.context_tokens) == (3031, 2048)


def test_a_model_that_is_being_loaded_says_when_to_come_back() -> None:
    assert refusal(503, b'{"error":{"message":"Loading model"}}', model="m").headers == {"Retry-After": "2"}


# --- What is asked ----------------------------------------------------------------------------------------------------


def body_of(request: LLMRequest) -> dict[str, Any]:
    return chat_body(request, find_healing(request))


def test_nothing_is_asked_that_was_not_given() -> None:
    assert body_of(ask(model="tiny")) == {
        "model": "tiny",
        "messages": [{"role": "user", "content": "Hi there"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "reasoning_format": "auto",
    }


def test_sampling_goes_as_it_is_but_the_seed() -> None:
    sampling = Sampling(0.0, 0.5, 0, ("a", "b"), -7, 0.1, 0.2, {"5": -100.0}, logprobs=True)
    body = body_of(ask(sampling=sampling))
    assert {name: body[name] for name in body.keys() - body_of(ask()).keys()} == {
        "temperature": 0.0,
        "top_p": 0.5,
        "max_tokens": 1,
        "stop": ["a", "b"],
        "seed": 2147483641,  # 31 bits of -7
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "logit_bias": {"5": -100.0},
        "logprobs": True,
        "top_logprobs": 1,  # with 0 llama.cpp would send none at all
    }


def test_top_logprobs_alone_is_not_sent() -> None:
    assert "top_logprobs" not in body_of(ask(sampling=Sampling(top_logprobs=3)))


@pytest.mark.parametrize(("effort", "thinking"), [("none", False), ("minimal", True), ("high", True)])
def test_reasoning_effort_also_tells_the_template(effort: str, thinking: bool) -> None:
    body = body_of(ask(reasoning_effort=effort))
    assert body["reasoning_effort"] == effort
    assert body["chat_template_kwargs"] == {"enable_thinking": thinking}


def test_an_answer_that_goes_on_is_past_its_thoughts() -> None:
    body = body_of(ask(Message("user", "a"), Message("assistant", "b."), reasoning_effort="high"))
    assert body["chat_template_kwargs"] == {"enable_thinking": False}


def test_the_response_format_is_openais() -> None:
    assert body_of(ask(response_format=ResponseFormat()))["response_format"] == {"type": "json_object"}
    schema = {"type": "object"}
    assert body_of(ask(response_format=ResponseFormat(schema, "plan")))["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "plan", "schema": schema, "strict": True},
    }


def test_a_named_tool_is_the_only_one_and_required() -> None:
    body = body_of(ask(tools=(WEATHER, NEWS), tool_choice=NamedTool("news"), parallel_tool_calls=False))
    assert [tool["function"]["name"] for tool in body["tools"]] == ["news"]
    assert body["tool_choice"] == "required"
    assert body["parallel_tool_calls"] is False
    assert "tools" not in body_of(ask(tools=(WEATHER,), tool_choice="none"))


def test_the_history_is_told_so_that_no_template_stumbles() -> None:
    picture = ImagePart("data:image/png;base64,YWJj")
    history = (
        Message("system", "Be kind."),
        Message("system", "Be brief."),
        Message("user", (TextPart("a"), TextPart("b"))),
        Message("assistant", "", (ToolCall("c1", "weather", '{"place": "Rome"}'), ToolCall("c2", "news", "{broken"))),
        Message("tool", "sunny", tool_call_id="c1"),
        Message("system", "Late."),
        Message("user", (TextPart("Look:"), picture)),
    )
    messages = body_of(ask(*history))["messages"]
    assert messages[0] == {"role": "system", "content": "Be kind.\n\nBe brief."}
    assert messages[1] == {"role": "user", "content": "a\nb"}
    arguments = [call["function"]["arguments"] for call in messages[2]["tool_calls"]]
    assert arguments == ['{"place": "Rome"}', '{"_raw":"{broken"}']
    assert messages[3] == {"role": "tool", "content": "sunny", "tool_call_id": "c1"}
    assert messages[4]["role"] == "system"
    assert messages[5]["content"][1] == {"type": "image_url", "image_url": {"url": "data:image/png;base64,YWJj"}}
