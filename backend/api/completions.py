"""The answer in OpenAI's shape: events written out as the chunks of a stream, or a finished answer as one object.

A chunk is a byte template around one `orjson.dumps`: no model is built per token. The grammar of a stream, which every
known client accepts:

    role, (content | reasoning_content | tool_calls | agent_event)*, annotations?, finish, usage if asked for, [DONE]

The role appears once; `id`, `created` and `model` never change; `finish_reason` is there and null until the last.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from backend.core.answers import Answer
from backend.core.errors import ApiError
from backend.core.events import (
    AnswerCited,
    BackendSelected,
    Citation,
    Event,
    HistoryTrimmed,
    ReasoningDelta,
    RunFinished,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from backend.core.messages import ToolCall
from backend.core.narration import narrate
from backend.core.runs import kind_of
from backend.utils.clean_text import clean_value

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"


@dataclass(frozen=True, slots=True)
class CompletionHead:
    """What is the same in every chunk. `model` is what the client asked for, until it is known who answers."""

    id: str
    created: int  # Unix seconds
    model: str
    session_id: str | None
    run_id: str | None = None  # of an agent's trace

    def fields(self, kind: str, backend: BackendSelected | None) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": backend.model if backend else self.model,
            "system_fingerprint": _fingerprint(backend) if backend else None,
        }

    def extensions(self, dropped_messages: int) -> dict[str, Any]:
        """Our own fields beside OpenAI's."""
        fields = {"session_id": self.session_id, "run_id": self.run_id, "dropped_messages": dropped_messages or None}
        return {name: value for name, value in fields.items() if value is not None}


class ChunkEncoder:
    """Events in, bytes of `text/event-stream` out. One for a stream; it has no I/O and never waits.

    With several choices each has its own events, told apart by `choice`. With `functions` a call has the old form,
    `delta.function_call`, which has room for one.
    """

    def __init__(
        self, head: CompletionHead, *, include_usage: bool = False, choices: int = 1, functions: bool = False
    ) -> None:
        self._head = head
        self._functions = functions
        self._include_usage = include_usage
        self._usage_null = b',"usage":null' if include_usage else b""
        self._close = b'},"logprobs":null,"finish_reason":null}]' + self._usage_null
        self._starts: dict[int, bytes] = {}
        self._backend: BackendSelected | None = None
        self._dropped_messages = 0
        self._unfinished = choices
        self._usage = Usage()

    def encode(self, event: Event, choice: int = 0) -> bytes:
        """The bytes for one event; none for an event that shows nothing."""
        start = self._starts.get(choice)
        if start and type(event) is TextDelta and event.logprobs is None:  # nearly all events are
            return b'%b"content":%b%b}\n\n' % (start, _json(event.text), self._close)
        lead = b""
        if start is None:
            if isinstance(event, BackendSelected):
                self._backend = self._backend or event
                return b""
            if isinstance(event, HistoryTrimmed):
                self._dropped_messages = max(self._dropped_messages, event.dropped_messages)
                return b""
            lead, start = self._begin(choice)
        match event:
            case TextDelta(text, None):
                return b"".join((lead, start, b'"content":', _json(text), self._close, b"}\n\n"))
            case TextDelta(text, logprobs):
                content = b'"content":' + _json(text) + b'},"logprobs":' + _json({"content": logprobs, "refusal": None})
                return lead + start + content + b',"finish_reason":null}]' + self._usage_null + b"}\n\n"
            case ReasoningDelta(text):
                return b"".join((lead, start, b'"reasoning_content":', _json(text), self._close, b"}\n\n"))
            case ToolCallDelta() if self._functions:
                return lead + start + b'"function_call":' + _json(_function_delta(event)) + self._close + b"}\n\n"
            case ToolCallDelta():
                return lead + start + b'"tool_calls":' + _json([_tool_call_delta(event)]) + self._close + b"}\n\n"
            case AnswerCited(citations):
                return (
                    lead
                    + start
                    + b'"annotations":'
                    + _json(list(map(annotation_object, citations)))
                    + self._close
                    + b"}\n\n"
                )
            case RunFinished(reason, usage):
                self._unfinished -= 1
                self._usage += usage
                shown = "function_call" if self._functions and reason == "tool_calls" else reason
                finish = b'},"logprobs":null,"finish_reason":"%s"}]' % shown.encode()
                return lead + start + finish + self._usage_null + b"}\n\n"
            case BackendSelected() | HistoryTrimmed():  # another backend took over: the model's name stays
                return lead
            case _:
                told = narrate(event)
                line = b'"reasoning_content":' + _json(told) if told else b""
                return lead + start + line + self._close + b',"agent_event":' + _json(agent_event(event)) + b"}\n\n"

    def aside(self, fields: Mapping[str, Any], choice: int = 0) -> bytes:
        """A chunk that says nothing but these fields of its own; none before the first chunk of the choice."""
        start = self._starts.get(choice)
        return start + self._close + b"," + _json(fields)[1:] + b"\n\n" if start else b""

    def encode_error(self, error: ApiError) -> bytes:
        return error_frame(error)

    def end(self) -> bytes:
        """What follows the last event of the last choice; nothing where a choice did not finish."""
        if self._unfinished:
            return b""
        if not self._include_usage:
            return DONE
        chunk = self._head.fields("chat.completion.chunk", self._backend)
        return b"data: " + _json(chunk | {"choices": [], "usage": usage_object(self._usage)}) + b"\n\n" + DONE

    def _begin(self, choice: int) -> tuple[bytes, bytes]:
        """The role chunk of a choice, and the template of all its further chunks."""
        fields = self._head.fields("chat.completion.chunk", self._backend)
        delta = {"role": "assistant", "content": ""}
        role = fields | {"choices": [{"index": choice, "delta": delta, "logprobs": None, "finish_reason": None}]}
        if self._include_usage:
            role["usage"] = None
        lead = b"data: " + _json(role | self._head.extensions(self._dropped_messages)) + b"\n\n"
        start = b"data: " + _json(fields)[:-1] + b',"choices":[{"index":%d,"delta":{' % choice
        self._starts[choice] = start
        return lead, start


def error_frame(error: ApiError) -> bytes:
    """The last frame of a stream that broke after its first byte."""
    return b"data: " + _json(error.body()) + b"\n\n"


def completion_object(head: CompletionHead, answers: Sequence[Answer], *, functions: bool = False) -> dict[str, Any]:
    """The whole answer to a request that does not stream, a choice for each of `answers`.

    Args:
        functions: a call has the old form.
    """
    first = answers[0]
    return {
        **head.fields("chat.completion", first.backend),
        "choices": [_choice(index, answer, functions) for index, answer in enumerate(answers)],
        "usage": usage_object(sum((answer.usage for answer in answers), Usage())),
        **head.extensions(max(answer.dropped_messages for answer in answers)),
    }


def usage_object(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def tool_call_object(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def annotation_object(citation: Citation) -> dict[str, Any]:
    place = {"start_index": citation.start, "end_index": citation.end}
    return {"type": "url_citation", "url_citation": {"url": citation.url, "title": citation.title, **place}}


def agent_event(event: Event) -> dict[str, Any]:
    """A step of an agent as clients see it: its fields, and its name as `type` (`tool_started`, ...)."""
    fields = {name: getattr(event, name) for name in event.__slots__ if name != "result"}
    return {"type": kind_of(event), **{name: value for name, value in fields.items() if value is not None}}


def _choice(index: int, answer: Answer, functions: bool) -> dict[str, Any]:
    calls = answer.tool_calls
    message: dict[str, Any] = {"role": "assistant", "content": answer.text or (None if calls else ""), "refusal": None}
    if answer.narration:
        message["reasoning_content"] = answer.narration
    if answer.citations:
        message["annotations"] = list(map(annotation_object, answer.citations))
    finish: str | None = answer.finish_reason
    if calls and functions:
        message["function_call"] = tool_call_object(calls[0])["function"]
        finish = "function_call" if finish == "tool_calls" else finish
    elif calls:
        message["tool_calls"] = [tool_call_object(call) for call in calls]
    choice: dict[str, Any] = {"index": index, "message": message, "finish_reason": finish}
    choice["logprobs"] = {"content": answer.logprobs, "refusal": None} if answer.logprobs else None
    if answer.steps:
        choice["agent_steps"] = [agent_event(step) for step in answer.steps]
    return choice


def _function_delta(event: ToolCallDelta) -> dict[str, Any]:
    return {"arguments": event.arguments} if event.name is None else {"name": event.name, "arguments": event.arguments}


def _tool_call_delta(event: ToolCallDelta) -> dict[str, Any]:
    if event.id is None:
        return {"index": event.index, "function": {"arguments": event.arguments}}
    function = {"name": event.name, "arguments": event.arguments}
    return {"index": event.index, "id": event.id, "type": "function", "function": function}


def _fingerprint(backend: BackendSelected) -> str:
    """A word that changes when another model or backend answers."""
    return "fp_" + hashlib.blake2b(f"{backend.backend}/{backend.model}".encode(), digest_size=5).hexdigest()


def _json(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:  # a lone surrogate in a model's text, which UTF-8 cannot carry
        return orjson.dumps(clean_value(value))
