"""What was asked of a model and what it said: a record of each call, and the log that keeps them.

The log is one JSON object a line. A thread of its own writes it, from a queue that is bounded in records and in bytes:
no request ever waits for the disk. Where the disk cannot keep up, or is full, records are dropped and counted. Several
processes may write to the same file (see `log_file`). Keys and tokens are masked, pictures replaced by type and size.
"""

import asyncio
import logging
import queue
import re
import threading
import time
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
from backend.core.llm.base import LLMRequest, ModelStream
from backend.core.llm.log_file import LogFile
from backend.core.messages import ImagePart, Message, TextPart, ToolCall

MAX_QUEUED_RECORDS = 10_000
MAX_QUEUED_BYTES = 64 * 2**20
FLUSH_TIMEOUT_S = 10.0
WARN_EVERY_S = 60.0

MASK = "[masked]"
_SECRETS = (  # how it begins; the whole of it; what stands in its place
    ("sk-", re.compile(r"(?<![A-Za-z0-9])sk-[A-Za-z0-9_-]{16,}+"), MASK),
    ("eyJ", re.compile(r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]{8,}+"), MASK),
    ("earer ", re.compile(r"earer [A-Za-z0-9._~+/=-]{16,}+"), f"earer {MASK}"),
    ("EARER ", re.compile(r"EARER [A-Za-z0-9._~+/=-]{16,}+"), f"EARER {MASK}"),
)

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

    def __init__(self, inner: ModelStream, log: "PromptLog | None", observer: CallObserver | None = None) -> None:
        self._inner = inner
        self._log = log
        self._observer = observer

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
        if self._observer:
            self._observer.call_finished(record)


class PromptLog:
    """The log at `path`. Starts its thread at once; `close` it.

    Args:
        max_bytes: size at which the file is rotated.
        keep: rotated files that are kept.
    """

    def __init__(self, path: Path, *, max_bytes: int, keep: int, max_queued_bytes: int = MAX_QUEUED_BYTES) -> None:
        self.dropped = 0  # records that could not be kept
        self._file = LogFile(path, max_bytes=max_bytes, keep=keep)
        self._max_queued_bytes = max_queued_bytes
        self._queue: queue.SimpleQueue[tuple[CallRecord, int] | None] = queue.SimpleQueue()
        self._accepted_bytes = 0  # only the event loop's thread changes this one,
        self._finished_bytes = 0  # and only the writer this one: so they need no lock
        self._warned_at = -WARN_EVERY_S
        self._closed = False
        self._writer = threading.Thread(target=self._write_forever, name="prompt-log", daemon=True)
        self._writer.start()

    def put(self, record: CallRecord) -> None:
        """Hand a record over to be written; drops it when too much is waiting already. Never blocks."""
        size = _weight(record)
        waiting = self._accepted_bytes - self._finished_bytes
        if self._closed or self._queue.qsize() >= MAX_QUEUED_RECORDS or waiting + size > self._max_queued_bytes:
            self._drop("more calls end than the disk can take")
            return
        self._accepted_bytes += size
        self._queue.put((record, size))

    async def close(self) -> None:
        """Write what waits, then close the file. Gives up after `FLUSH_TIMEOUT_S`."""
        self._closed = True
        self._queue.put(None)
        await asyncio.to_thread(self._writer.join, FLUSH_TIMEOUT_S)

    def _write_forever(self) -> None:
        while (item := self._queue.get()) is not None:
            record, size = item
            try:
                self._file.append(render(record))
            except OSError as error:
                self._drop(error.strerror or "the disk failed")
            except Exception:  # one strange record must not end the log
                logger.exception("A model call could not be written to the prompt log")
                self._drop("it could not be rendered")
            self._finished_bytes += size
        self._file.close()

    def _drop(self, reason: str) -> None:
        self.dropped += 1
        now = time.monotonic()
        if now - self._warned_at >= WARN_EVERY_S:
            self._warned_at = now
            logger.warning("The prompt log has lost %d model calls so far: %s", self.dropped, reason)


def render(record: CallRecord) -> bytes:
    """The record as a line of the log."""
    request, context = record.request, record.request.context
    usage = record.usage
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
        "tools": [{"name": t.name, "description": t.description, "parameters": t.parameters} for t in request.tools],
        "response_format": request.response_format and {"schema": request.response_format.schema},
        "sampling": {name: value for name, value in asdict(request.sampling).items() if value is not None},
        "response": record.text,
        "reasoning": record.reasoning,
        "tool_calls": [asdict(call) for call in record.tool_calls],
        "tokens": usage
        and {"prompt": usage.prompt_tokens, "completion": usage.completion_tokens, "cached": usage.cached_tokens},
        "duration_ms": round(record.duration_s * 1000, 1),
        "first_token_ms": None if record.first_token_s is None else round(record.first_token_s * 1000, 1),
        "finish_reason": record.finish_reason,
        "outcome": record.outcome,
        "error": record.error,
    }
    try:
        return orjson.dumps(_masked(document), option=orjson.OPT_APPEND_NEWLINE)
    except (TypeError, RecursionError):  # a client's schema may be nested too deeply, or hold numbers too long
        document |= {"tools": [tool.name for tool in request.tools], "response_format": "cannot be written"}
        return orjson.dumps(_masked(document), option=orjson.OPT_APPEND_NEWLINE)


def _message(message: Message) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "role": message.role,
        "content": message.content
        if isinstance(message.content, str)
        else [_picture(part) if isinstance(part, ImagePart) else part.text for part in message.content],
        "tool_calls": [asdict(call) for call in message.tool_calls],
        "tool_call_id": message.tool_call_id,
        "name": message.name,
        "reasoning": message.reasoning,
    }
    return {name: value for name, value in plain.items() if value or name == "content"}


def _picture(part: ImagePart) -> dict[str, Any]:
    head, _, data = part.url.partition(",")
    return {"image": head.removeprefix("data:").partition(";")[0][:100], "bytes": len(data) * 3 // 4}


def _masked(value: Any) -> Any:
    """The same without what could be a key or a token, and without what is not Unicode."""
    if isinstance(value, str):
        value = mask(value)
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {key: _masked(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(item) for item in value]
    return value


def mask(text: str) -> str:
    """Replace whatever looks like one of our keys, a JWT or a bearer token. Linear in the text, whatever it is."""
    for sign, secret, replacement in _SECRETS:
        pieces: list[str] = []
        end, at = 0, text.find(sign)
        while at >= 0:
            if found := secret.match(text, at):
                pieces += (text[end:at], replacement)
                at = end = found.end()
            else:
                at += len(sign)
            at = text.find(sign, at)
        if pieces:
            text = "".join((*pieces, text[end:]))
    return text


def _weight(record: CallRecord) -> int:
    """About how much memory a record holds on to."""
    weight = 2_000 + len(record.text) + len(record.reasoning)
    for message in record.request.messages:
        content = message.content
        texts = (content,) if isinstance(content, str) else (_text_of(part) for part in content)
        weight += 200 + sum(map(len, texts))
        weight += sum(len(call.arguments) for call in message.tool_calls)
    return weight


def _text_of(part: TextPart | ImagePart) -> str:
    return part.text if isinstance(part, TextPart) else part.url


def _described(error: Exception) -> str:
    return f"{error.code}: {error.message}" if isinstance(error, ApiError) else type(error).__name__
