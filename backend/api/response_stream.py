"""A response in OpenAI's shape: as one object, and as the stream of named events in which it grows.

    created, in_progress, (changes of the output; see `response_output`)*, (completed | incomplete | failed)

Events are numbered from 0, and each is `event: TYPE` and `data: {"type": TYPE, ...}`. Nothing is written before an
event of the run shows something, so that what fails until then gets an HTTP status. There is no `[DONE]`.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from backend.api.response_output import ResponseOutput
from backend.core.errors import ApiError
from backend.core.events import BackendSelected, Event, FinishReason, HistoryTrimmed, RunFinished, TextDelta, Usage
from backend.utils.clean_text import clean_value

_STATUSES: dict[FinishReason, tuple[str, str | None]] = {
    "stop": ("completed", None),
    "tool_calls": ("completed", None),
    "length": ("incomplete", "max_output_tokens"),
    "content_filter": ("incomplete", "content_filter"),
}


@dataclass(slots=True)
class OpenResponse:
    """A response while it is made.

    Args:
        id: `resp_` and a key.
        created_at: Unix seconds.
        model: what the client asked for; in its place stands the model that answers, as soon as that is known.
        echoed: the fields of the request that the object repeats.
        extensions: our own fields beside OpenAI's.
    """

    id: str
    created_at: int
    model: str
    echoed: Mapping[str, Any]
    extensions: Mapping[str, Any]
    output: ResponseOutput
    status: str = "in_progress"
    incomplete_reason: str | None = None
    error: dict[str, Any] | None = None
    usage: Usage | None = None
    dropped_messages: int = 0
    completed_at: int | None = None
    _backend: BackendSelected | None = field(default=None)

    def add(self, event: Event) -> Iterator[tuple[str, dict[str, Any]]]:
        """Take an event of the run in, and tell what it changes in the output. To be read to its end."""
        match event:
            case BackendSelected():
                self._backend = self._backend or event
            case HistoryTrimmed(dropped):
                self.dropped_messages = max(self.dropped_messages, dropped)
            case RunFinished(reason, usage):
                self.status, self.incomplete_reason = _STATUSES[reason]
                self.usage = usage
                self.completed_at = int(time.time()) if self.status == "completed" else None
                yield from self.output.end(whole=self.status == "completed")
            case _:
                yield from self.output.add(event)

    def take(self, event: Event) -> None:
        """Take an event in, with nobody to tell."""
        for _ in self.add(event):
            pass

    def fail(self, error: ApiError) -> Iterator[tuple[str, dict[str, Any]]]:
        self.status = "failed"
        code = {400: "invalid_prompt", 429: "rate_limit_exceeded"}.get(error.status, "server_error")  # all that it has
        self.error = {"code": code, "message": error.message}
        yield from self.output.end(whole=False)

    def cancel(self) -> None:
        """The client went away."""
        self.status = "cancelled"
        for _ in self.output.end(whole=False):
            pass

    def to_object(self) -> dict[str, Any]:
        reason = self.incomplete_reason
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created_at,
            "completed_at": self.completed_at,
            "status": self.status,
            "error": self.error,
            "incomplete_details": {"reason": reason} if reason else None,
            "model": self._backend.model if self._backend else self.model,
            "output": self.output.items,
            "usage": None if self.usage is None else _usage_object(self.usage),
            **self.echoed,
            **self.extensions,
            **({"dropped_messages": self.dropped_messages} if self.dropped_messages else {}),
        }


class ResponseEncoder:
    """Events in, bytes of `text/event-stream` out. One for a stream; it has no I/O and never waits."""

    def __init__(self, response: OpenResponse) -> None:
        self._response = response
        self._sequence_number = 0
        self._delta_start: tuple[dict[str, Any], bytes] | None = None  # the message's place, and the template with it

    @property
    def begun(self) -> bool:
        """The client has seen something of the response."""
        return self._sequence_number > 0

    def encode(self, event: Event) -> bytes:
        """The bytes for one event; none for an event that shows nothing."""
        response = self._response
        if type(event) is TextDelta and event.logprobs is None and (message := response.output.message):
            message.pieces.append(event.text)  # nearly all events are like this one: no dict is built for it
            return self._encode_delta(message.place, event.text)
        begins = not self.begun and not isinstance(event, BackendSelected | HistoryTrimmed)
        lead = self._begin() if begins else b""
        return lead + b"".join(self._frame(kind, fields) for kind, fields in response.add(event))

    def end(self) -> bytes:
        """What follows the run's last event: how it ended, and the whole response."""
        return self._frame(f"response.{self._response.status}", {"response": self._response.to_object()})

    def fail(self, error: ApiError) -> bytes:
        """The last frames of a stream that broke after its first byte."""
        lead = b"" if self.begun else self._begin()
        told = b"".join(self._frame(kind, fields) for kind, fields in self._response.fail(error))
        return lead + told + self.end()

    def _begin(self) -> bytes:
        begun = {"response": self._response.to_object()}
        return self._frame("response.created", begun) + self._frame("response.in_progress", begun)

    def _frame(self, kind: str, fields: Mapping[str, Any]) -> bytes:
        data = _json({"type": kind, **fields, "sequence_number": self._sequence_number})
        self._sequence_number += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)

    def _encode_delta(self, place: dict[str, Any], text: str) -> bytes:
        if self._delta_start is None or self._delta_start[0] is not place:
            kind = "response.output_text.delta"
            head = _json({"type": kind, **place, "logprobs": []})[:-1]
            self._delta_start = place, b"event: %b\ndata: %b" % (kind.encode(), head)
        number = self._sequence_number
        self._sequence_number += 1
        return b'%b,"delta":%b,"sequence_number":%d}\n\n' % (self._delta_start[1], _json(text), number)


def _usage_object(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def _json(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:  # a lone surrogate in a model's text, which UTF-8 cannot carry
        return orjson.dumps(clean_value(value))
