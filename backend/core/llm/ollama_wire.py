"""Ollama's native `/api/chat`: our request in its words, its NDJSON as our events, its errors as ours.

The native route and not `/v1`, since only this one takes `num_ctx`, `truncate` and `think`, leaves the model's own
sampling defaults alone, and says when a stream was cut. Refused, because Ollama has no such thing: `logit_bias`.
"""

import logging
import re
from collections.abc import Iterator
from typing import Any

import orjson

from backend.core.errors import ApiError, BackendUnavailable, BadRequest, ModelNotFound
from backend.core.events import BackendEvent, Completed, ReasoningDelta, TextDelta, Usage
from backend.core.llm.base import LLMRequest, NamedTool, Sampling
from backend.core.llm.wire import (
    MALFORMED,
    CallIndex,
    LineDecoder,
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
from backend.core.messages import ImagePart, Message

# `think` knows three levels and the highest; what OpenAI has besides goes to its neighbour.
_THINK = {"none": False, "minimal": "low", "low": "low", "medium": "medium", "high": "high", "max": "max"}

_log = logging.getLogger(__name__)


def chat_body(request: LLMRequest, *, num_ctx: int, thinks: bool, keep_alive: str | int) -> dict[str, Any]:
    """The body of `/api/chat`.

    Args:
        num_ctx: the same for every call to a model: another value makes Ollama load it again.
        thinks: the model can think; the others refuse a request that mentions it.
    """
    tools = offered_tools(request)
    body: dict[str, Any] = {
        "model": request.model,
        "messages": _messages(request.messages, _instruction(request) if tools else ""),
        "stream": True,
        "options": {"num_ctx": num_ctx, **sampling_options(request.sampling)},
        "truncate": False,  # too long is an error: by default the prompt is cut and the answer is 200
        "shift": False,  # and when the window is full the answer ends, instead of forgetting its beginning
        "keep_alive": keep_alive,
    }
    if tools:
        body["tools"] = [tool_definition(tool) for tool in tools]
    if request.response_format is not None:
        body["format"] = "json" if request.response_format.schema is None else request.response_format.schema
    if thinks and request.messages[-1].role == "assistant":
        body["think"] = False  # it is past its thoughts: the answer goes on
    elif thinks and request.reasoning_effort is not None:
        body["think"] = _THINK.get(request.reasoning_effort, "max")
    if request.sampling.logprobs:
        body["logprobs"] = True
        body["top_logprobs"] = request.sampling.top_logprobs or 0
    return body


def sampling_options(sampling: Sampling) -> dict[str, Any]:
    if sampling.logit_bias:
        raise BadRequest("Ollama has no logit_bias: leave it out, or choose a model on llama.cpp.", param="logit_bias")
    options = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "num_predict": None if sampling.max_tokens is None else max(1, sampling.max_tokens),  # 0 would be no limit
        "stop": list(sampling.stop) or None,
        "seed": None if sampling.seed is None else sampling.seed & 0x7FFFFFFF,  # -1 would be chance
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
    }
    return {name: value for name, value in options.items() if value is not None}


def _instruction(request: LLMRequest) -> str:
    """What to tell the model, since Ollama has no `tool_choice`."""
    if isinstance(request.tool_choice, NamedTool):
        return f"Answer by calling the tool `{request.tool_choice.name}`, not in words."
    if request.tool_choice == "required":
        return "Answer by calling one of the tools, not in words."
    return ""


def _messages(messages: tuple[Message, ...], instruction: str) -> list[dict[str, Any]]:
    names = {call.id: call.name for message in messages for call in message.tool_calls}
    wire = [_message(message, names) for message in messages]
    if instruction and wire[0]["role"] == "system":
        wire[0]["content"] += f"\n\n{instruction}"
    elif instruction:
        wire.insert(0, {"role": "system", "content": instruction})
    return wire


def _message(message: Message, names: dict[str, str]) -> dict[str, Any]:
    wire: dict[str, Any] = {"role": message.role, "content": message.text}
    if not isinstance(message.content, str):
        images = [_image(part) for part in message.content if isinstance(part, ImagePart)]
        if images:
            wire["images"] = images
    if message.reasoning:
        wire["thinking"] = message.reasoning
    if message.tool_calls:
        wire["tool_calls"] = [
            {"id": call.id, "function": {"name": call.name, "arguments": argument_object(call.arguments)}}
            for call in message.tool_calls
        ]
    if message.role == "tool":
        wire["tool_name"] = message.name or names.get(message.tool_call_id or "", "")
        wire["tool_call_id"] = message.tool_call_id or ""
    return wire


def _image(part: ImagePart) -> str:
    head, comma, data = part.url.partition(",")
    if not comma or not head.startswith("data:") or not head.endswith(";base64"):
        raise BadRequest("An image must be a data URL in base64: `data:image/png;base64,…`.", param="messages")
    return data


class ChatDecoder:
    """Lines of `/api/chat` become events. An answer without `done: true` never completes."""

    def __init__(self, request: LLMRequest) -> None:
        self.completed: Completed | None = None
        self._model = request.model
        self._alternatives = request.sampling.top_logprobs or 0
        self._lines = LineDecoder()
        self._thoughts = ThoughtSplitter()
        self._thoughts.done = request.sampling.logprobs  # tokens and their probabilities stay together
        self._calls = CallIndex(parallel=request.parallel_tool_calls)

    def feed(self, data: bytes) -> Iterator[BackendEvent]:
        try:
            for line in self._lines.feed(data):
                record = orjson.loads(line)
                if "error" in record:
                    raise refusal(int(record.get("status") or 500), line, model=self._model)
                message = record["message"]
                if thinking := message.get("thinking"):
                    yield ReasoningDelta(thinking)
                if content := message.get("content"):
                    if not self._thoughts.done:
                        yield from self._thoughts.feed(content)
                    elif logprobs := record.get("logprobs"):
                        yield TextDelta(content, logprob_entries(logprobs, self._alternatives))
                    else:
                        yield TextDelta(content)
                for call in message.get("tool_calls") or ():
                    yield from self._call(call)
                if record["done"]:
                    yield from self._thoughts.flush()
                    self.completed = self._completion(record)
                    return
        except MALFORMED as error:
            raise WireError(f"not a line of /api/chat: {error!r}") from error

    def end(self) -> tuple[()]:
        raise WireError("the stream ended without `done`")

    def _call(self, call: dict[str, Any]) -> Iterator[BackendEvent]:
        """A call comes whole. Its index is not to be trusted: old servers number each 0, or not at all."""
        function = call["function"]
        arguments = orjson.dumps(function.get("arguments") or {}).decode()
        delta = self._calls.delta(None, call.get("id"), function["name"], arguments)
        if delta is not None:
            yield delta

    def _completion(self, record: dict[str, Any]) -> Completed:
        usage = Usage(record.get("prompt_eval_count") or 0, record.get("eval_count") or 0)
        return Completed(finish_reason(record.get("done_reason"), called=bool(self._calls)), usage)


# Refusals that a caller can do something about, whatever the status: (words of Ollama, our sentence, the field)
_REFUSALS = (
    (
        "does not support embeddings",
        "This model makes no vectors. Leave `model` out, or choose an embedding model.",
        "model",
    ),
    (
        "does not support tools",
        "This model cannot call tools. Leave `tools` out or choose a model that has them.",
        "tools",
    ),
    (
        "does not support thinking",
        "This model cannot think. Leave `reasoning_effort` out or choose a model that can.",
        "reasoning_effort",
    ),
    (
        "think value",
        "This model server does not know that `reasoning_effort` for this model. Use none, or leave it out.",
        "reasoning_effort",
    ),
    (
        "does not support insert",
        "This model cannot fill a gap. Leave `suffix` out or choose a model that can.",
        "suffix",
    ),
    ("does not support chat", "This model only makes embeddings. Choose a chat model.", "model"),
    ("invalid format", "The JSON schema in `response_format` is not valid.", "response_format"),
    ("invalid json schema", "The JSON schema in `response_format` is not valid.", "response_format"),
    ("parse grammar", "The JSON schema in `response_format` is not supported by the model server.", "response_format"),
    ("multimodal", "This model cannot see images. Leave them out or choose a model with vision.", "messages"),
    ("image input", "This model cannot see images. Leave them out or choose a model with vision.", "messages"),
    ("illegal base64", "An image is not valid base64.", "messages"),
    ("failed to process image", "An image could not be read. Send PNG, JPEG or WebP.", "messages"),
    ("invalid tool call arguments", "A tool call in `messages` has arguments that are not JSON.", "messages"),
    ("model is required", "Name a model.", "model"),
)
_OPTION_PARAMS = {"num_predict": "max_tokens"}


def refusal(status: int, body: bytes, *, model: str) -> ApiError:
    """What an error of Ollama means. The one place that knows its words."""
    text, detail = _error_text(body)
    lowered = text.lower()
    if detail.get("type") == "exceed_context_size_error":
        return context_overflow(detail)
    if re.search(r"(input|prompt).*exceeds.*context", lowered):
        return context_overflow({})
    if (status == 404 and "not found" in lowered) or "invalid model name" in lowered:
        return ModelNotFound(model)
    for words, message, param in _REFUSALS:
        if words in lowered:
            return BadRequest(message, param=param)
    if option := re.search(r'option "(\w+)" must be of type', text):
        return BadRequest(quotable(text), param=_OPTION_PARAMS.get(option[1], option[1]))
    if field := re.search(r"Go struct field ChatRequest\.([\w.]+)", text):
        return BadRequest(f"The model server refused `{field[1]}`: {quotable(text)}", param=field[1])
    _log.warning("ollama answered %d: %s", status, text[:500] or body[:200])
    if status in {401, 403}:
        return BackendUnavailable("The model server wants credentials that this server was not given.")
    if status in {429, 503}:
        return BackendUnavailable("The model server is busy. Try again in a moment.", retry_after_s=2)
    if 400 <= status < 500 and status not in {404, 405, 499} and text:
        return BadRequest(f"The model server refused the request: {quotable(text)}")
    return BackendUnavailable("The model server failed to answer.")


def _error_text(body: bytes) -> tuple[str, dict[str, Any]]:
    """The message, and the inner error object where Ollama passes on, as a string, what its runner said in JSON."""
    try:
        error = orjson.loads(body)["error"]
        if isinstance(error, str) and error.startswith("{"):
            error = orjson.loads(error)["error"]
        if isinstance(error, dict):
            return str(error.get("message", "")), error
        return str(error), {}
    except MALFORMED:
        return "", {}
