"""The output of a response: events of a run become items, and each change of an item is told as OpenAI's stream has it.

    response = item*                                          ; each with its own `output_index`, in the order of begin
    item     = message | reasoning | function_call | a tool's ; see `response_tools`

What a model says or thinks goes into the newest item of its kind; another kind of event ends that item, and what is
said later begins a new one. Calls of tools run at the same time, so their items may be open side by side. What an agent
tells of its plan is reasoning too.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from backend.api.response_tools import PREFIXES, begin_call, end_call, run_call
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
    ToolFinished,
    ToolProgress,
    ToolStarted,
)
from backend.core.narration import narrate

Told = tuple[str, dict[str, Any]]  # the type of an event of the stream, and its fields


@dataclass(slots=True)
class _Writing:
    """An item whose text grows. `place` is what each event about it says."""

    item: dict[str, Any]
    place: dict[str, Any]
    pieces: list[str] = field(default_factory=list)
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.pieces)


class ResponseOutput:
    """Grows with each event.

    Args:
        key: a part of all ids of items, which no other response has.
        include: what of the results of tools the client wants to see.
        container_id: where code runs, as clients see it.
    """

    def __init__(self, key: str, *, include: frozenset[str] = frozenset(), container_id: str = "") -> None:
        self.items: list[dict[str, Any]] = []
        self._key = key
        self._include = include
        self._container_id = container_id
        self._writing: _Writing | None = None
        self._calls: list[_Writing] = []  # of functions, by their index
        self._tools: dict[str, int] = {}  # call id -> index of the item; only those that run
        self._said = 0  # characters of the answer in messages that have ended

    @property
    def message(self) -> _Writing | None:
        """The message that is being written."""
        return self._writing if self._writing and self._writing.item["type"] == "message" else None

    def add(self, event: Event) -> Iterator[Told]:
        match event:
            case TextDelta(text, logprobs):
                yield from self._write("message", text, logprobs)
            case ReasoningDelta(text):
                yield from self._write("reasoning", text)
            case ToolCallDelta():
                yield from self._call(event)
            case ToolStarted():
                yield from self._end_writing("completed")
                yield from self._begin_tool(event)
            case ToolFinished():
                yield from self._end_tool(event)
            case AnswerCited(citations):
                yield from self._cite(citations)
            case BackendSelected() | HistoryTrimmed() | ToolProgress() | RunFinished():
                return
            case _:
                if told := narrate(event):
                    yield from self._write("reasoning", told)

    def end(self, *, whole: bool) -> Iterator[Told]:
        """End what is still open.

        Args:
            whole: nothing of it was cut off.
        """
        status = "completed" if whole else "incomplete"
        yield from self._end_writing(status)
        for writing in self._calls:
            if whole and not writing.pieces:  # a model may leave out that there are none
                yield from self._add_arguments(writing, "{}")
            arguments = writing.item["arguments"] = writing.text
            writing.item["status"] = status
            yield "response.function_call_arguments.done", {**writing.place, "arguments": arguments}
            yield from self._item_done(writing.place["output_index"])
        for index in self._tools.values():
            self.items[index]["status"] = "incomplete"
            yield from self._item_done(index)
        self._calls, self._tools = [], {}

    def _begin(self, prefix: str, item: dict[str, Any]) -> tuple[dict[str, Any], Told]:
        index = len(self.items)
        item = {"id": self._id(prefix), **item}
        self.items.append(item)
        # A copy: the item changes before this is encoded, when nobody streams it never is.
        return {"item_id": item["id"], "output_index": index}, (
            "response.output_item.added",
            {"output_index": index, "item": dict(item)},
        )

    def _id(self, prefix: str) -> str:
        return f"{prefix}_{self._key}_{len(self.items)}"

    def _item_done(self, index: int) -> Iterator[Told]:
        yield "response.output_item.done", {"output_index": index, "item": self.items[index]}

    def _write(self, kind: str, text: str, logprobs: list[dict[str, Any]] | None = None) -> Iterator[Told]:
        if not self._writing or self._writing.item["type"] != kind:
            yield from self._end_writing("completed")
            yield from self._begin_message() if kind == "message" else self._begin_reasoning()
        writing = self._writing
        assert writing is not None
        writing.pieces.append(text)
        if kind == "reasoning":
            yield "response.reasoning_summary_text.delta", {**writing.place, "delta": text}
            return
        told = [_logprob(entry) for entry in logprobs or ()]
        writing.logprobs += told
        yield "response.output_text.delta", {**writing.place, "delta": text, "logprobs": told}

    def _begin_message(self) -> Iterator[Told]:
        place, told = self._begin(
            "msg", {"type": "message", "role": "assistant", "status": "in_progress", "content": []}
        )
        yield told
        self._writing = _Writing(self.items[-1], place | {"content_index": 0})
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        yield "response.content_part.added", {**self._writing.place, "part": part}

    def _begin_reasoning(self) -> Iterator[Told]:
        place, told = self._begin("rs", {"type": "reasoning", "status": "in_progress", "summary": []})
        yield told
        self._writing = _Writing(self.items[-1], place | {"summary_index": 0})
        part = {"type": "summary_text", "text": ""}
        yield "response.reasoning_summary_part.added", {**self._writing.place, "part": part}

    def _end_writing(self, status: str) -> Iterator[Told]:
        writing, self._writing = self._writing, None
        if writing is None:
            return
        item, place, text = writing.item, writing.place, writing.text
        item["status"] = status
        if item["type"] == "reasoning":
            part: dict[str, Any] = {"type": "summary_text", "text": text}
            item["summary"] = [part]
            yield "response.reasoning_summary_text.done", {**place, "text": text}
            yield "response.reasoning_summary_part.done", {**place, "part": part}
        else:
            self._said += len(text)
            part = {"type": "output_text", "text": text, "annotations": writing.annotations}
            part["logprobs"] = writing.logprobs
            item["content"] = [part]
            yield "response.output_text.done", {**place, "text": text, "logprobs": writing.logprobs}
            yield "response.content_part.done", {**place, "part": part}
        yield from self._item_done(place["output_index"])

    def _call(self, event: ToolCallDelta) -> Iterator[Told]:
        if event.index == len(self._calls):
            yield from self._end_writing("completed")
            fields = {"call_id": event.id or "", "name": event.name or "", "arguments": "", "status": "in_progress"}
            place, told = self._begin("fc", {"type": "function_call", **fields})
            yield told
            self._calls.append(_Writing(self.items[-1], place))
        if event.arguments:
            yield from self._add_arguments(self._calls[event.index], event.arguments)

    def _add_arguments(self, writing: _Writing, text: str) -> Iterator[Told]:
        writing.pieces.append(text)
        yield "response.function_call_arguments.delta", {**writing.place, "delta": text}

    def _begin_tool(self, event: ToolStarted) -> Iterator[Told]:
        index = self._tools[event.call_id] = len(self.items)
        item = begin_call(event, self._id(PREFIXES.get(event.tool, "mcp")), self._container_id)
        self.items.append(item)
        yield "response.output_item.added", {"output_index": index, "item": dict(item)}
        for kind, fields in run_call(event, item):
            yield kind, {"item_id": item["id"], "output_index": index, **fields}

    def _end_tool(self, event: ToolFinished) -> Iterator[Told]:
        index = self._tools.pop(event.call_id)
        item = self.items[index]
        for kind, fields in end_call(event, item, self._include):
            yield kind, {"item_id": item["id"], "output_index": index, **fields}
        yield from self._item_done(index)

    def _cite(self, citations: tuple[Citation, ...]) -> Iterator[Told]:
        """Places are counted from the beginning of the answer, and here from that of its last message."""
        writing = self.message
        if writing is None:
            return
        for citation in citations:
            if citation.end > self._said:
                place = {"start_index": max(0, citation.start - self._said), "end_index": citation.end - self._said}
                annotation = {"type": "url_citation", "url": citation.url, "title": citation.title, **place}
                fields = {"annotation_index": len(writing.annotations), "annotation": annotation}
                writing.annotations.append(annotation)
                yield "response.output_text.annotation.added", {**writing.place, **fields}


def _logprob(entry: dict[str, Any]) -> dict[str, Any]:
    """As chat has it, but the bytes are never missing."""
    others = [_logprob(other) for other in entry["top_logprobs"]] if "top_logprobs" in entry else None
    told = {"token": entry["token"], "logprob": entry["logprob"], "bytes": entry.get("bytes") or []}
    return told if others is None else told | {"top_logprobs": others}
