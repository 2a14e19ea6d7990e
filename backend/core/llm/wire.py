"""What the vendors' wires are made of: lines, server-sent events, thoughts inside an answer, arguments of a call.

Nothing here does I/O: bytes go in as they arrive, whole units come out. A unit that has not ended yet is kept, up to
`MAX_UNIT_BYTES`.

    NDJSON = (JSON "\\n")*
    SSE    = ((":" comment | field) "\\n")* "\\n" ; only `data` fields matter; lines end with LF, CR or CRLF
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import orjson

from backend.core.errors import BadRequest, ContextOverflow
from backend.core.events import BackendEvent, Completed, FinishReason, ReasoningDelta, TextDelta, ToolCallDelta
from backend.core.llm.base import LLMRequest, NamedTool, ToolDefinition
from backend.utils.unique_ids import unique_hex

MAX_UNIT_BYTES = 4 * 1024 * 1024
MALFORMED = (ValueError, KeyError, IndexError, TypeError, AttributeError)  # what reading JSON of another shape raises


class WireError(ValueError):
    """What arrived is not what the protocol says."""


class AnswerDecoder(Protocol):
    """Turns the bytes of one streamed answer into events."""

    completed: Completed | None  # set once the vendor said that the answer is whole

    def feed(self, data: bytes) -> Iterator[BackendEvent]:
        """Yield the deltas that `data` completes.

        Raises:
            WireError: `data` is not an answer.
            ApiError: the vendor reported an error inside the stream.
        """
        ...

    def end(self) -> Iterable[BackendEvent]:
        """Yield what was held back and complete the answer, now that no more bytes come.

        Raises:
            WireError: the answer is not whole.
        """
        ...


class LineDecoder:
    def __init__(self, limit: int = MAX_UNIT_BYTES) -> None:
        self._limit = limit
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that `data` completes, without the empty ones; a CR before the LF is left to JSON."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > self._limit:
            raise WireError(f"a line is longer than {self._limit} bytes")
        return [line for line in lines if line and line != b"\r"]


class EventStreamDecoder:
    def __init__(self, limit: int = MAX_UNIT_BYTES) -> None:
        self._limit = limit
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the `data` of the events that `data` completes. A last CR waits for the byte that may follow it."""
        text = self._rest + data
        held = b""
        if b"\r" in text:
            if text.endswith(b"\r"):
                text, held = text[:-1], b"\r"
            text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *events, rest = text.split(b"\n\n")
        self._rest = rest + held
        if len(self._rest) > self._limit:
            raise WireError(f"an event is longer than {self._limit} bytes")
        return [payload for event in events if (payload := _event_data(event))]


def _event_data(event: bytes) -> bytes:
    if event.startswith(b"data: ") and b"\n" not in event:
        return event[6:]
    fields = (line[5:] for line in event.split(b"\n") if line.startswith(b"data:"))
    return b"\n".join(field[1:] if field.startswith(b" ") else field for field in fields)


class ThoughtSplitter:
    """Parts the thoughts that a model left in its answer as `<think>...</think>` from the answer.

    Only at the very start: later on the tag is text like any other. `done` once nothing is left to look for. White
    space next to the tags belongs to nobody and is dropped.
    """

    _OPEN, _CLOSE = "<think>", "</think>"

    def __init__(self) -> None:
        self.done = False
        self._held = ""
        self._opened = self._closed = self._blank = False

    def feed(self, text: str) -> Iterator[TextDelta | ReasoningDelta]:
        if self.done:
            yield TextDelta(text)
            return
        text, self._held = self._held + text, ""
        if not self._opened:
            head = text.lstrip()
            if len(head) < len(self._OPEN) and self._OPEN.startswith(head):
                self._held = text
                return
            if not head.startswith(self._OPEN):
                self.done = True
                yield TextDelta(text)
                return
            self._opened = self._blank = True
            text = head[len(self._OPEN) :]
        if self._blank:
            text = text.lstrip()
        if not self._closed:
            thought, tag, rest = text.partition(self._CLOSE)
            if not tag:
                keep = _overlap(thought, self._CLOSE)
                thought, self._held = thought[: len(thought) - keep], thought[len(thought) - keep :]
            if thought:
                self._blank = False
                yield ReasoningDelta(thought)
            if not tag:
                return
            self._closed = self._blank = True
            text = rest.lstrip()
        if text:
            self.done = True
            yield TextDelta(text)

    def flush(self) -> Iterator[TextDelta | ReasoningDelta]:
        """Yield what was held back: nothing more comes."""
        held, self._held, self.done = self._held, "", True
        if held:
            yield ReasoningDelta(held) if self._opened else TextDelta(held)


def _overlap(text: str, tag: str) -> int:
    """How many characters at the end of `text` may be the beginning of `tag`."""
    return next((size for size in range(min(len(tag) - 1, len(text)), 0, -1) if text.endswith(tag[:size])), 0)


class CallIndex:
    """Gives calls dense indexes and ids, whatever the vendor sent; with `parallel` false only the first call passes."""

    def __init__(self, *, parallel: bool | None) -> None:
        self._parallel = parallel is not False
        self._indexes: dict[int, int] = {}
        self._latest = -1

    def __bool__(self) -> bool:
        return bool(self._indexes)

    def delta(self, vendor_index: int | None, call_id: str | None, name: str, arguments: str) -> ToolCallDelta | None:
        """Return the piece as ours, or None when it belongs to a call that is not passed on.

        A piece without an index starts a call when it has a name, and goes on with the latest one otherwise.
        """
        if vendor_index is None:
            vendor_index = len(self._indexes) if name else self._latest
        self._latest = vendor_index
        known = self._indexes.get(vendor_index)
        if known is None:
            known = self._indexes[vendor_index] = len(self._indexes)
            if known and not self._parallel:
                return None
            return ToolCallDelta(known, arguments, call_id or new_call_id(), name)
        if (known and not self._parallel) or not arguments:
            return None
        return ToolCallDelta(known, arguments)


def new_call_id() -> str:
    return f"call_{unique_hex(12)}"


def finish_reason(vendor: str | None, *, called: bool) -> FinishReason:
    """Ours for the vendor's: calls end with `tool_calls`, unless the answer was cut."""
    if vendor == "length":
        return "length"
    if vendor == "content_filter":
        return "content_filter"
    return "tool_calls" if called else "stop"


def logprob_entries(entries: list[dict[str, Any]], alternatives: int) -> list[dict[str, Any]]:
    """OpenAI's `logprobs.content` entries, without what vendors add to them."""
    return [
        {
            **_logprob(entry),
            "top_logprobs": [_logprob(other) for other in (entry.get("top_logprobs") or [])[:alternatives]],
        }
        for entry in entries
    ]


def _logprob(entry: dict[str, Any]) -> dict[str, Any]:
    return {"token": entry["token"], "logprob": entry["logprob"], "bytes": entry.get("bytes")}


def argument_object(text: str) -> dict[str, Any]:
    """The arguments of an earlier call as an object. Vendors refuse, or fail on, text that is none: it is wrapped."""
    if not text.strip():
        return {}
    try:
        value = orjson.loads(text)
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {"_raw": text}


def offered_tools(request: LLMRequest) -> tuple[ToolDefinition, ...]:
    """The tools that the model is to see. Naming one means to hide the others: no vendor obeys a name reliably."""
    choice = request.tool_choice
    if choice == "none":
        return ()
    if not isinstance(choice, NamedTool):
        return request.tools
    named = tuple(tool for tool in request.tools if tool.name == choice.name)
    if not named:
        raise BadRequest(f"`tool_choice` names `{choice.name}`, which is not among the tools.", param="tool_choice")
    return named


def tool_definition(tool: ToolDefinition) -> dict[str, Any]:
    function: dict[str, Any] = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters or {"type": "object", "properties": {}},
    }
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def context_overflow(error: dict[str, Any]) -> ContextOverflow:
    """llama.cpp's `exceed_context_size_error`, which Ollama passes on; the counts may be missing."""
    prompt, window = error.get("n_prompt_tokens"), error.get("n_ctx")
    counts = f" ({prompt} of at most {window} tokens)" if prompt and window else ""
    return ContextOverflow(
        f"The prompt is too long for the model's context{counts}. Shorten the conversation or choose another model.",
        prompt_tokens=prompt,
        context_tokens=window,
    )


_PRIVATE = re.compile(
    r"\w+://\S+|(?:\d{1,3}\.){3}\d{1,3}(?::\d+)?|\[[0-9a-fA-F:]+\]:\d+|(?<![\w.])~?(?:/[\w.@+-]+){2,}/?"
)


def quotable(vendor_message: str) -> str:
    """A vendor's words that may be shown to a caller: shortened, and without addresses and paths of this machine."""
    text = " ".join(_PRIVATE.sub("…", vendor_message).split())
    return f"{text[:299]}…" if len(text) > 300 else text
