"""llama.cpp's `/v1/chat/completions`: our request in its words, its server-sent events as ours, its errors as ours.

Always streamed: a call that is not runs on to its end after the caller has gone.
"""

import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import orjson

from backend.core.errors import ApiError, BackendUnavailable, BadRequest
from backend.core.events import BackendEvent, Completed, ReasoningDelta, TextDelta, Usage
from backend.core.llm.base import LLMRequest, NamedTool, Sampling, ToolChoice
from backend.core.llm.grammar import write_grammar
from backend.core.llm.healing import Healing
from backend.core.llm.wire import (
    MALFORMED,
    CallIndex,
    EventStreamDecoder,
    ThoughtSplitter,
    WireError,
    argument_object,
    context_overflow,
    finish_reason,
    logprob_entries,
    offered_tools,
    quotable,
    tool_definition,
)
from backend.core.messages import Content, Message, TextPart

_log = logging.getLogger(__name__)


def chat_body(request: LLMRequest, healing: Healing | None, *, thinks: bool = True) -> dict[str, Any]:
    """The body of `/v1/chat/completions`.

    Args:
        thinks: the model may begin with thoughts, which a grammar of ours would forbid it.
    """
    messages = request.messages
    continued = messages[-1].role == "assistant"
    if healing is not None:
        messages = (*messages[:-1], replace(messages[-1], content=healing.text))
    if messages[-1].role == "assistant" and not messages[-1].content and not messages[-1].tool_calls:
        messages = messages[:-1]  # an empty beginning confuses the template, and none is the same
    body: dict[str, Any] = {
        "model": request.model,
        "messages": [_message(message) for message in _merge_system(messages)],
        "stream": True,
        "stream_options": {"include_usage": True},
        "reasoning_format": "auto",  # thoughts as `reasoning_content`, whatever the server was started with
        **sampling_fields(request.sampling),
    }
    if tools := offered_tools(request):
        body["tools"] = [tool_definition(tool) for tool in tools]
        if request.tool_choice is not None:
            body["tool_choice"] = _tool_choice(request.tool_choice)
        if request.parallel_tool_calls is not None:
            body["parallel_tool_calls"] = request.parallel_tool_calls
    if request.response_format is not None:
        schema = request.response_format.schema
        if schema is not None and not thinks and not tools and (grammar := write_grammar(schema)):
            body["grammar"] = grammar
        else:
            body["response_format"] = _response_format(request)
    if request.reasoning_effort is not None:
        body["reasoning_effort"] = request.reasoning_effort
    if continued:
        body["chat_template_kwargs"] = {"enable_thinking": False}  # it is past its thoughts: the answer goes on
    elif request.reasoning_effort is not None:
        body["chat_template_kwargs"] = {"enable_thinking": request.reasoning_effort != "none"}
    if healing is not None:
        body["grammar"] = healing.grammar
    return body


def sampling_fields(sampling: Sampling) -> dict[str, Any]:
    fields = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": None if sampling.max_tokens is None else max(1, sampling.max_tokens),
        "stop": list(sampling.stop) or None,
        "seed": None if sampling.seed is None else sampling.seed & 0x7FFFFFFF,  # 32 bits, and -1 would be chance
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "logit_bias": sampling.logit_bias or None,
    }
    if sampling.logprobs:
        # With 0 alternatives llama.cpp sends no probabilities at all: one is asked for, and taken off the answer.
        fields |= {"logprobs": True, "top_logprobs": max(1, sampling.top_logprobs or 0)}
    return {name: value for name, value in fields.items() if value is not None}


def _tool_choice(choice: ToolChoice) -> str:
    """A named tool is the only one that is sent: to require it is to name it."""
    return "required" if isinstance(choice, NamedTool) else choice


def _response_format(request: LLMRequest) -> dict[str, Any]:
    wanted = request.response_format
    if wanted is None or wanted.schema is None:
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": wanted.name, "schema": wanted.schema, "strict": True}}


def _merge_system(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """One system message where several stand at the start: many templates allow just one."""
    count = next((place for place, message in enumerate(messages) if message.role != "system"), len(messages))
    if count < 2:
        return messages
    merged = Message("system", "\n\n".join(message.text for message in messages[:count]))
    return (merged, *messages[count:])


def _message(message: Message) -> dict[str, Any]:
    wire: dict[str, Any] = {"role": message.role, "content": _content(message.content)}
    if message.name:
        wire["name"] = message.name
    if message.reasoning:
        wire["reasoning_content"] = message.reasoning
    if message.tool_calls:
        wire["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": _arguments(call.arguments)},
            }
            for call in message.tool_calls
        ]
    if message.role == "tool":
        wire["tool_call_id"] = message.tool_call_id or ""
    return wire


def _arguments(text: str) -> str:
    """The text as the model wrote it where it is an object, so that the prompt stays the same byte for byte."""
    arguments = argument_object(text)
    return orjson.dumps(arguments).decode() if not arguments or "_raw" in arguments else text


def _content(content: Content) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        return content
    if all(isinstance(part, TextPart) for part in content):
        return "\n".join(part.text for part in content if isinstance(part, TextPart))
    return [
        {"type": "text", "text": part.text}
        if isinstance(part, TextPart)
        else {"type": "image_url", "image_url": {"url": part.url}}
        for part in content
    ]


class ChatDecoder:
    """Events of `/v1/chat/completions` become ours. An answer without a finish reason never completes."""

    def __init__(self, request: LLMRequest, healing: Healing | None) -> None:
        self.completed: Completed | None = None
        self._model = request.model
        self._alternatives = request.sampling.top_logprobs or 0
        self._events = EventStreamDecoder()
        self._piece = healing.piece if healing else ""  # what is still to be taken off the answer
        self._thoughts = ThoughtSplitter()
        self._thoughts.done = request.sampling.logprobs or healing is not None
        self._calls = CallIndex(parallel=request.parallel_tool_calls)
        self._finish: str | None = None
        self._usage = Usage()

    def feed(self, data: bytes) -> Iterator[BackendEvent]:
        try:
            for payload in self._events.feed(data):
                if payload == b"[DONE]":
                    yield from self.end()
                    return
                chunk = orjson.loads(payload)
                if "error" in chunk:
                    raise refusal(500, payload, model=self._model)
                if usage := chunk.get("usage"):
                    self._usage = read_usage(usage)
                for choice in chunk["choices"]:
                    delta = choice["delta"]
                    if thought := delta.get("reasoning_content"):
                        yield ReasoningDelta(thought)
                    if text := delta.get("content"):
                        if self._thoughts.done and not self._piece:
                            yield TextDelta(text, self._logprobs(choice) if "logprobs" in choice else None)
                        else:
                            yield from self._beginning(text)
                    if calls := delta.get("tool_calls"):
                        yield from self._call_deltas(calls)
                    self._finish = choice.get("finish_reason") or self._finish
        except MALFORMED as error:
            raise WireError(f"not a chunk of /v1/chat/completions: {error!r}") from error

    def _beginning(self, text: str) -> Iterator[BackendEvent]:
        """The start of an answer may hold a thought, or the piece that it was healed with."""
        if not self._piece:
            yield from self._thoughts.feed(text)
        elif self._piece.startswith(text):
            self._piece = self._piece[len(text) :]
        elif text.startswith(self._piece):
            text, self._piece = text[len(self._piece) :], ""
            yield TextDelta(text)
        else:
            raise WireError("the answer does not go on with the word that it was cut in")

    def _logprobs(self, choice: dict[str, Any]) -> list[dict[str, Any]] | None:
        logprobs = choice["logprobs"]
        return logprob_entries(logprobs.get("content") or [], self._alternatives) if logprobs else None

    def _call_deltas(self, calls: list[dict[str, Any]]) -> Iterator[BackendEvent]:
        for call in calls:
            function = call.get("function") or {}
            delta = self._calls.delta(
                call.get("index"), call.get("id"), function.get("name") or "", function.get("arguments") or ""
            )
            if delta is not None:
                yield delta

    def end(self) -> Iterator[BackendEvent]:
        """Complete the answer. `[DONE]` may be missing, the finish reason may not."""
        if self._finish is None:
            raise WireError("the stream ended without a finish reason")
        yield from self._thoughts.flush()
        self.completed = Completed(finish_reason(self._finish, called=bool(self._calls)), self._usage)


def read_usage(usage: dict[str, Any]) -> Usage:
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    thought = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
    return Usage(usage["prompt_tokens"], usage["completion_tokens"], cached, thought)


# Refusals that a caller can do something about, whatever the status: (words of llama.cpp, our sentence, the field)
_REFUSALS = (
    (
        "does not support embeddings",
        "This model makes no vectors. Leave `model` out, or choose an embedding model.",
        "model",
    ),
    (
        "is too large to process",
        "A text is longer than the model reads at once. Send shorter ones.",
        "input",
    ),
    (
        "image input is not supported",
        "This model cannot see images. Leave them out or choose a model with vision.",
        "messages",
    ),
    (
        "cannot resolve $ref",
        "The JSON schema in `response_format` refers to something that it lacks.",
        "response_format",
    ),
    ("json schema error", "The JSON schema in `response_format` or `tools` is not supported.", "response_format"),
    ("failed to parse grammar", "The JSON schema in `response_format` is not supported.", "response_format"),
    ("tool_choice", "This model server does not know that `tool_choice`.", "tool_choice"),
    ("tool call arguments", "A tool call in `messages` has arguments that are not JSON.", "messages"),
    ("assistant message", "The assistant messages at the end of `messages` cannot be continued.", "messages"),
    ("failed to load image", "An image could not be read. Send PNG, JPEG or WebP.", "messages"),
)


def refusal(status: int, body: bytes, *, model: str) -> ApiError:
    """What an error of llama.cpp means. The one place that knows its words."""
    error = _error_object(body)
    text = str(error.get("message", ""))
    lowered = text.lower()
    if error.get("type") == "exceed_context_size_error":
        return context_overflow(error)
    for words, message, param in _REFUSALS:
        if words in lowered:
            return BadRequest(message, param=param)
    _log.warning("llama.cpp answered %d: %s", status, text[:500] or body[:200])
    if status in {401, 403}:
        return BackendUnavailable("The model server refuses the key of this server: an admin has to set its API key.")
    if status == 503:
        return BackendUnavailable("The model is still being loaded. Try again in a moment.", retry_after_s=2)
    if status == 429:
        return BackendUnavailable("The model server is busy. Try again in a moment.", retry_after_s=2)
    if 400 <= status < 500 and status not in {404, 405} and text:
        field = re.match(r"(?:Field|Expected) '(\w+)'", text)
        return BadRequest(f"The model server refused the request: {quotable(text)}", param=field[1] if field else None)
    return BackendUnavailable("The model server failed to answer.")


def _error_object(body: bytes) -> dict[str, Any]:
    try:
        error = orjson.loads(body)["error"]
    except MALFORMED:
        return {}
    return error if isinstance(error, dict) else {"message": error}
