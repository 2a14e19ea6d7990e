"""A text that is gone on with, without a chat template: Ollama's `/api/generate` and llama.cpp's `/v1/completions`.

Ollama is told `raw`, or it would wrap the text in the model's template; only to fill a gap (`suffix`) it needs that
template, which knows the model's marks for it. llama.cpp drops a suffix silently, so it is refused here.
"""

from collections.abc import Iterator
from typing import Any

import orjson

from backend.core.errors import BadRequest
from backend.core.events import BackendEvent, Completed, TextDelta, Usage
from backend.core.llm import llamacpp_wire, ollama_wire
from backend.core.llm.base import LLMRequest
from backend.core.llm.wire import (
    MALFORMED,
    EventStreamDecoder,
    LineDecoder,
    WireError,
    finish_reason,
    logprob_entries,
)


def generate_body(request: LLMRequest, *, num_ctx: int, thinks: bool, keep_alive: str | int) -> dict[str, Any]:
    """The body of Ollama's `/api/generate`. What is always sent is as in a chat, and for the same reasons.

    Args:
        thinks: the model can think, and Ollama would take what it holds for thoughts out of the text.
    """
    body: dict[str, Any] = {
        "model": request.model,
        "prompt": request.prompt,
        "raw": not request.suffix,
        "stream": True,
        "options": {"num_ctx": num_ctx, **ollama_wire.sampling_options(request.sampling)},
        "truncate": False,
        "shift": False,
        "keep_alive": keep_alive,
    }
    if thinks:
        body["think"] = False
    if request.suffix:
        body["suffix"] = request.suffix
    if request.sampling.logprobs:
        body |= {"logprobs": True, "top_logprobs": request.sampling.top_logprobs or 0}
    return body


def completion_body(request: LLMRequest) -> dict[str, Any]:
    """The body of llama.cpp's `/v1/completions`.

    Raises:
        BadRequest: there is a gap to be filled.
    """
    if request.suffix:
        raise BadRequest(
            "This model server cannot fill a gap: leave `suffix` out or choose another model.", param="suffix"
        )
    body = {"model": request.model, "prompt": request.prompt, "stream": True}
    sampling = llamacpp_wire.sampling_fields(request.sampling)
    if sampling.pop("logprobs", None):
        body["logprobs"] = sampling.pop("top_logprobs")  # a number in this API; 0 means none at all
    return body | sampling


class GenerateDecoder:
    """Lines of `/api/generate` become events. An answer without `done: true` never completes."""

    def __init__(self, request: LLMRequest) -> None:
        self.completed: Completed | None = None
        self._model = request.model
        self._alternatives = request.sampling.top_logprobs or 0
        self._lines = LineDecoder()

    def feed(self, data: bytes) -> Iterator[BackendEvent]:
        try:
            for line in self._lines.feed(data):
                record = orjson.loads(line)
                if "error" in record:
                    raise ollama_wire.refusal(int(record.get("status") or 500), line, model=self._model)
                if text := record["response"]:
                    logprobs = record.get("logprobs")
                    yield TextDelta(text, logprob_entries(logprobs, self._alternatives) if logprobs else None)
                if record["done"]:
                    usage = Usage(record.get("prompt_eval_count") or 0, record.get("eval_count") or 0)
                    self.completed = Completed(finish_reason(record.get("done_reason"), called=False), usage)
                    return
        except MALFORMED as error:
            raise WireError(f"not a line of /api/generate: {error!r}") from error

    def end(self) -> tuple[()]:
        raise WireError("the stream ended without `done`")


class CompletionDecoder:
    """Events of `/v1/completions` become ours. An answer without a finish reason never completes."""

    def __init__(self, request: LLMRequest) -> None:
        self.completed: Completed | None = None
        self._model = request.model
        self._alternatives = request.sampling.top_logprobs or 0
        self._events = EventStreamDecoder()

    def feed(self, data: bytes) -> Iterator[BackendEvent]:
        try:
            for payload in self._events.feed(data):
                if payload == b"[DONE]":
                    return
                chunk = orjson.loads(payload)
                if "error" in chunk:
                    raise llamacpp_wire.refusal(500, payload, model=self._model)
                choice = chunk["choices"][0]
                if text := choice["text"]:
                    logprobs = (choice.get("logprobs") or {}).get("content")
                    yield TextDelta(text, logprob_entries(logprobs, self._alternatives) if logprobs else None)
                if reason := choice.get("finish_reason"):
                    usage = llamacpp_wire.read_usage(chunk["usage"])  # comes with the last chunk, unasked
                    self.completed = Completed(finish_reason(reason, called=False), usage)
                    return
        except MALFORMED as error:
            raise WireError(f"not a chunk of /v1/completions: {error!r}") from error

    def end(self) -> tuple[()]:
        raise WireError("the stream ended without a finish reason")
