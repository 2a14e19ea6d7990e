"""What was asked of a model and what it said: a record of each call, and the log that keeps them.

The log is one JSON object a line. A thread of its own writes it, from a queue that is bounded in records and in bytes:
no request ever waits for the disk. Where the disk cannot keep up, or is full, records are dropped and counted. Several
processes may write to the same file (see `log_file`). Keys and tokens are masked, pictures replaced by type and size.
"""

import asyncio
import json
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol

import orjson

from backend.core.answers import Answer
from backend.core.errors import ApiError
from backend.core.events import BackendEvent, BackendSelected, Completed, FinishReason, Usage
from backend.core.llm.base import LLMRequest, ModelStream, Sampling
from backend.core.llm.log_file import LogFile
from backend.core.messages import ImagePart, Message, ToolCall
from backend.utils.masking import mask_json, may_hold_secrets

MAX_QUEUED_RECORDS = 10_000
MAX_QUEUED_BYTES = 64 * 2**20
MAX_BATCH_BYTES = 2 * 2**20
FLUSH_TIMEOUT_S = 10.0
WRITE_EVERY_S = 0.1
WARN_EVERY_S = 60.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One model call, from the request to the last token."""

    request: LLMRequest
    started_at: float  # Unix seconds
    duration_s: float
    first_token_s: float | None  # None: there was none
    backends: tuple[BackendSelected, ...]  # who had a part in the answer, in this order
    text: str
    reasoning: str
    tool_calls: tuple[ToolCall, ...]
    finish_reason: FinishReason | None
    usage: Usage | None  # None: the call did not end well, and nobody knows
    outcome: Literal["completed", "failed", "cancelled"]
    error: str | None

    @property
    def backend(self) -> str | None:
        return self.backends[-1].backend if self.backends else None

    @property
    def model(self) -> str | None:
        """The model's name on that backend."""
        return self.backends[-1].model if self.backends else None


class CallObserver(Protocol):
    """Is told of each model call when it has ended. Runs on the event loop: it must be quick and not raise."""

    def call_finished(self, record: CallRecord) -> None: ...


class Logged:
    """A `ModelStream` that records each call of another one, however it ends."""

    def __init__(self, inner: ModelStream, log: "PromptLog | None", *observers: CallObserver) -> None:
        self._inner = inner
        self._log = log
        self._observers = observers

    async def stream(self, request: LLMRequest) -> AsyncGenerator[BackendEvent, None]:
        started_at, start = time.time(), time.monotonic()
        first_token_s = None
        answer = Answer()
        backends: list[BackendSelected] = []
        completed: Completed | None = None
        error: Exception | None = None
        try:
            async with aclosing(self._inner.stream(request)) as events:
                async for event in events:
                    if isinstance(event, BackendSelected):
                        backends.append(event)
                    elif isinstance(event, Completed):
                        completed = event
                    else:
                        if first_token_s is None:
                            first_token_s = time.monotonic() - start
                        answer.add(event)
                    yield event
        except Exception as failure:  # whatever it is: it is recorded and goes on its way
            error = failure
            raise
        finally:
            self._keep(
                CallRecord(
                    request=request,
                    started_at=started_at,
                    duration_s=time.monotonic() - start,
                    first_token_s=first_token_s,
                    backends=tuple(backends),
                    text=answer.text,
                    reasoning=answer.reasoning,
                    tool_calls=answer.tool_calls,
                    finish_reason=completed.finish_reason if completed else None,
                    usage=completed.usage if completed else None,
                    outcome="failed" if error else "completed" if completed else "cancelled",
                    error=_described(error) if error else None,
                )
            )

    def _keep(self, record: CallRecord) -> None:
        if self._log:
            self._log.put(record)
        for observer in self._observers:
            observer.call_finished(record)


class PromptLog:
    """The log at `path`. Starts its thread at once; `close` it.

    Args:
        max_bytes: size at which the file is rotated.
        keep: rotated files that are kept.
    """

    def __init__(self, path: Path, *, max_bytes: int, keep: int, max_queued_bytes: int = MAX_QUEUED_BYTES) -> None:
        self.dropped = 0  # records that could not be kept
        self._file = LogFile(path, max_bytes=max_bytes, keep=keep)
        self._batch_bytes = min(MAX_BATCH_BYTES, max_bytes // 8)
        self._max_queued_bytes = max_queued_bytes
        self._waiting: deque[tuple[CallRecord, int]] = deque()
        self._accepted_bytes = 0  # only the event loop's thread changes this one,
        self._finished_bytes = 0  # and only the writer this one: so they need no lock
        self._warned_at = -WARN_EVERY_S
        self._closing = threading.Event()
        self._writer = threading.Thread(target=self._write_forever, name="prompt-log", daemon=True)
        self._writer.start()

    def put(self, record: CallRecord) -> None:
        """Hand a record over to be written; drops it when too much is waiting already. Never blocks."""
        size = _weight(record)
        waiting = self._accepted_bytes - self._finished_bytes
        is_full = len(self._waiting) >= MAX_QUEUED_RECORDS or waiting + size > self._max_queued_bytes
        if is_full or self._closing.is_set():
            self._drop("more calls end than the disk can take")
            return
        self._accepted_bytes += size
        self._waiting.append((record, size))  # the writer looks by itself: waking it would cost more than this call

    async def close(self) -> None:
        """Write what waits, then close the file. Gives up after `FLUSH_TIMEOUT_S`."""
        self._closing.set()
        await asyncio.to_thread(self._writer.join, FLUSH_TIMEOUT_S)

    def _write_forever(self) -> None:
        """Write what waits in batches: each system call gives the interpreter away, which is dear on a busy server."""
        is_open = True
        while is_open:
            is_open = not self._closing.wait(WRITE_EVERY_S)
            while self._waiting:
                batch: list[CallRecord] = []
                size = 0
                while self._waiting and size < self._batch_bytes:
                    record, weight = self._waiting.popleft()
                    batch.append(record)
                    size += weight
                self._write([line for record in batch for line in self._rendered(record)])
                self._finished_bytes += size
        self._file.close()

    def _rendered(self, record: CallRecord) -> list[bytes]:
        try:
            return [render(record)]
        except Exception:  # one strange record must not end the log
            logger.exception("A model call could not be written to the prompt log")
            self._drop("it could not be rendered")
            return []

    def _write(self, lines: list[bytes]) -> None:
        try:
            if lines:
                self._file.append(b"".join(lines))
        except OSError as error:
            if len(lines) == 1:
                self._drop(error.strerror or "the disk failed")
                return
            for line in lines:  # some of them may still fit
                self._write([line])

    def _drop(self, reason: str) -> None:
        self.dropped += 1
        now = time.monotonic()
        if now - self._warned_at >= WARN_EVERY_S:
            self._warned_at = now
            logger.warning("The prompt log has lost %d model calls so far: %s", self.dropped, reason)


def render(record: CallRecord) -> bytes:
    """The record as a line of the log."""
    request, context, usage = record.request, record.request.context, record.usage
    document: dict[str, Any] = {
        "time": datetime.fromtimestamp(record.started_at, UTC).isoformat(timespec="milliseconds"),
        "request_id": context.request_id,
        "session_id": context.session_id,
        "user": context.username,
        "agent": context.agent,
        "backend": record.backend,
        "model": record.model,
        "requested_model": request.model,
        "earlier_backends": [selected.backend for selected in record.backends[:-1]],
        "messages": [_message(message) for message in request.messages],
        **({} if request.prompt is None else {"prompt": request.prompt, "suffix": request.suffix}),
        "tools": request.tools,
        "response_format": request.response_format,
        "sampling": _given(request.sampling),
        "response": record.text,
        "reasoning": record.reasoning,
        "tool_calls": record.tool_calls,
        "tokens": usage
        and {"prompt": usage.prompt_tokens, "completion": usage.completion_tokens, "cached": usage.cached_tokens},
        "duration_ms": round(record.duration_s * 1000, 1),
        "first_token_ms": None if record.first_token_s is None else round(record.first_token_s * 1000, 1),
        "finish_reason": record.finish_reason,
        "outcome": record.outcome,
        "error": record.error,
    }
    try:
        line = orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # a schema nested too deeply, a number too long, a text that is not Unicode
        document |= {"tools": [tool.name for tool in request.tools], "response_format": "cannot be written"}
        line = json.dumps(document, default=asdict, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
    return (
        orjson.dumps(mask_json(json.loads(line)), option=orjson.OPT_APPEND_NEWLINE) if may_hold_secrets(line) else line
    )


def _message(message: Message) -> dict[str, Any]:
    plain = _given(message)
    if not isinstance(message.content, str):
        plain["content"] = [_picture(part) if isinstance(part, ImagePart) else part.text for part in message.content]
    return plain


def _given(values: Message | Sampling) -> dict[str, Any]:
    """The fields that say something."""
    return {
        name: value
        for name in values.__slots__
        if (value := getattr(values, name)) is not None and value is not False and value != ()
    }


def _picture(part: ImagePart) -> dict[str, Any]:
    head, _, data = part.url.partition(",")
    return {"image": head.removeprefix("data:").partition(";")[0][:100], "bytes": len(data) * 3 // 4}


def _weight(record: CallRecord) -> int:
    """About how much memory a record holds on to."""
    weight = 2_000 + len(record.text) + len(record.reasoning) + len(record.request.prompt or "")
    for message in record.request.messages:
        if isinstance(message.content, str):
            weight += len(message.content)
        else:
            weight += sum(len(part.url if isinstance(part, ImagePart) else part.text) for part in message.content)
    return weight


def _described(error: Exception) -> str:
    return f"{error.code}: {error.message}" if isinstance(error, ApiError) else type(error).__name__
