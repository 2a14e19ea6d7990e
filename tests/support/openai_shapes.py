"""What OpenAI publishes of chat completions, as checks: the required fields, and the order of a stream.

    check_completion(response.json())
    answer = check_stream(response.text, include_usage=True)   # raises AssertionError with what is wrong

`answer` is what a client puts together from the chunks.
"""

import json
from dataclasses import dataclass, field
from typing import Any

from jsonschema import Draft202012Validator

FINISH_REASONS = ["stop", "length", "tool_calls", "content_filter", "function_call"]
_INTEGER = {"type": "integer", "minimum": 0}
_TEXT_OR_NULL = {"type": ["string", "null"]}
_NAME = {"type": "string", "minLength": 1}


def _object(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    return {"type": "object", "properties": required | optional, "required": list(required)}


_TOKEN = _object({"token": {"type": "string"}, "logprob": {"type": "number"}, "bytes": {"type": ["array", "null"]}})
_LOGPROBS = {
    "anyOf": [
        {"type": "null"},
        _object(
            {
                "content": {
                    "type": ["array", "null"],
                    "items": {"allOf": [_TOKEN, _object({"top_logprobs": {"type": "array", "items": _TOKEN}})]},
                },
                "refusal": {"type": ["array", "null"]},
            }
        ),
    ]
}
_USAGE = _object({"prompt_tokens": _INTEGER, "completion_tokens": _INTEGER, "total_tokens": _INTEGER})
_FUNCTION = _object({"name": _NAME, "arguments": {"type": "string"}})
_CALL = _object({"id": _NAME, "type": {"const": "function"}, "function": _FUNCTION})
_MESSAGE = _object(
    {"role": {"const": "assistant"}, "content": _TEXT_OR_NULL, "refusal": _TEXT_OR_NULL},
    tool_calls={"type": "array", "minItems": 1, "items": _CALL},
    function_call=_FUNCTION,
    annotations={"type": "array"},
)
_HEAD = {"id": _NAME, "created": _INTEGER, "model": _NAME}
_COMPLETION = _object(
    _HEAD
    | {
        "object": {"const": "chat.completion"},
        "usage": _USAGE,
        "choices": {
            "type": "array",
            "minItems": 1,
            "items": _object(
                {
                    "index": _INTEGER,
                    "finish_reason": {"enum": FINISH_REASONS},
                    "logprobs": _LOGPROBS,
                    "message": _MESSAGE,
                }
            ),
        },
    }
)
_CALL_DELTA = _object({"index": _INTEGER}, function={"type": "object"}, type={"const": "function"}, id=_NAME)
_CHUNK = _object(
    _HEAD
    | {
        "object": {"const": "chat.completion.chunk"},
        "choices": {
            "type": "array",
            "maxItems": 1,
            "items": _object(
                {
                    "index": _INTEGER,
                    "delta": _object({}, content=_TEXT_OR_NULL, tool_calls={"type": "array", "items": _CALL_DELTA}),
                    "finish_reason": {"enum": [None, *FINISH_REASONS]},
                    "logprobs": _LOGPROBS,
                }
            ),
        },
    }
)
_COMPLETION_CHECK, _CHUNK_CHECK = Draft202012Validator(_COMPLETION), Draft202012Validator(_CHUNK)


@dataclass
class Choice:
    text: str = ""
    reasoning: str = ""
    calls: list[dict[str, str]] = field(default_factory=list)  # id, name, arguments
    function: dict[str, str] = field(default_factory=dict)  # name, arguments
    finish_reason: str | None = None
    roles: int = 0


def check_completion(body: dict[str, Any]) -> None:
    _COMPLETION_CHECK.validate(body)
    usage = body["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert [choice["index"] for choice in body["choices"]] == list(range(len(body["choices"])))
    for choice in body["choices"]:
        message = choice["message"]
        called = "tool_calls" in message or "function_call" in message
        assert called or message["content"] is not None
        if choice["finish_reason"] in {"tool_calls", "function_call"}:
            assert called


def check_stream(text: str, *, include_usage: bool = False) -> list[Choice]:
    """The choices of a stream that ended well."""
    frames = [part for part in text.split("\n\n") if part and not part.startswith(":")]
    assert all(frame.startswith("data: ") for frame in frames), "data alone: no named events"
    assert frames.pop() == "data: [DONE]"
    chunks = [json.loads(frame.removeprefix("data: ")) for frame in frames]
    for chunk in chunks:
        _CHUNK_CHECK.validate(chunk)
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    if include_usage:
        last = chunks.pop()
        Draft202012Validator(_USAGE).validate(last["usage"])
        assert last["choices"] == []
        assert all(chunk["usage"] is None for chunk in chunks)
    else:
        assert all("usage" not in chunk for chunk in chunks)
    choices: dict[int, Choice] = {}
    for chunk in chunks:
        (given,) = chunk["choices"]
        _add(choices.setdefault(given["index"], Choice()), given)
    assert sorted(choices) == list(range(len(choices)))
    for choice in choices.values():
        assert choice.finish_reason, "every choice finishes"
        assert choice.roles == 1, "the role is told once"
        assert (choice.finish_reason == "tool_calls") <= bool(choice.calls)
    return [choices[index] for index in sorted(choices)]


def _add(choice: Choice, given: dict[str, Any]) -> None:
    assert choice.finish_reason is None, "nothing follows the finish reason"
    delta = given["delta"]
    assert choice.roles or "role" in delta, "the role comes first"
    choice.roles += "role" in delta
    choice.text += delta.get("content") or ""
    choice.reasoning += delta.get("reasoning_content") or ""
    for call in delta.get("tool_calls") or ():
        if call["index"] == len(choice.calls):
            function = call["function"]
            choice.calls.append({"id": call["id"], "name": function["name"], "arguments": function["arguments"]})
            assert call["type"] == "function"
        else:
            assert call["index"] < len(choice.calls), "indexes are dense"
            assert not {"id", "type"} & call.keys()
            assert call["function"].keys() == {"arguments"}, "a name is told once"
            choice.calls[call["index"]]["arguments"] += call["function"]["arguments"]
    if function := delta.get("function_call"):
        assert ("name" in function) == (not choice.function), "a name is told once"
        choice.function = {
            "name": choice.function.get("name") or function["name"],
            "arguments": choice.function.get("arguments", "") + function["arguments"],
        }
    choice.finish_reason = given["finish_reason"]
