"""Calls of tools, made at the same time: their events as they come, and what the model reads of their results."""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from backend.agents.guards import Budget
from backend.agents.merging import Merged
from backend.core.contracts import ToolResult, ToolRunner
from backend.core.events import Event, ToolFinished, ToolProgress, ToolStarted, Usage
from backend.core.llm.base import CallContext
from backend.core.llm.toolset import dump_arguments
from backend.core.messages import ToolCall
from backend.core.untrusted import shorten

MAX_SUMMARY_CHARS = 600
MAX_PROGRESS = 200  # messages of one call that are passed on
TIME_IS_OVER = "It was stopped, because the time for one question is nearly over."


@dataclass(frozen=True, slots=True)
class Call:
    """A call that can be made."""

    id: str
    tool: str
    arguments: dict[str, Any]

    @property
    def arguments_text(self) -> str:
        return dump_arguments(self.arguments)


@dataclass(frozen=True, slots=True)
class File:
    name: str
    url: str


@dataclass(slots=True)
class Outcome:
    """What a call brought; filled in when it ends."""

    call: Call
    success: bool = False
    text: str = ""  # for the model, not shortened yet
    files: tuple[File, ...] = ()


@dataclass(frozen=True, slots=True)
class Caller:
    """As whom calls are made, with which model, and until when."""

    tools: ToolRunner
    context: CallContext
    model: str
    rag_collection: str | None
    budget: Budget
    step: int | None = None  # of a plan

    async def run(self, calls: Sequence[Call], outcomes: list[Outcome]) -> AsyncGenerator[Event, None]:
        """Make all calls at once; their outcomes are in `outcomes` at the end, in the order of the calls."""
        outcomes += [Outcome(call) for call in calls]
        for call in calls:
            yield ToolStarted(call.id, call.tool, call.arguments, self.step)
        merged: Merged[Event] = Merged()
        for outcome in outcomes:
            merged.add(self._run_one(outcome))
        async with aclosing(merged.items()) as events:
            async for event in events:
                yield event

    async def _run_one(self, outcome: Outcome) -> AsyncGenerator[Event, None]:
        call = outcome.call
        started = time.monotonic()
        result = ToolResult(False, error=TIME_IS_OVER)
        stream = self.tools.run(
            ToolCall(call.id, call.tool, call.arguments_text),
            self.context,
            rag_collection=self.rag_collection,
            model=self.model,
        )
        passed_on = 0
        async with aclosing(stream) as items:
            while True:
                try:
                    async with asyncio.timeout_at(self.budget.work_until):
                        item = await anext(items)
                except (StopAsyncIteration, TimeoutError):
                    break
                if isinstance(item, ToolResult):
                    result = item
                elif passed_on < MAX_PROGRESS:
                    passed_on += 1
                    yield ToolProgress(call.id, call.tool, shorten(item.message, MAX_SUMMARY_CHARS), item.data)
        self.budget.spend(_usage(result))
        outcome.success, outcome.text, outcome.files = result.success, _describe(result), _files(result)
        summary = shorten((result.answer if result.success else result.error) or outcome.text, MAX_SUMMARY_CHARS)
        elapsed_s = round(time.monotonic() - started, 3)
        yield ToolFinished(call.id, call.tool, result.success, summary, elapsed_s, asdict(result))


def _describe(result: ToolResult) -> str:
    parts = [result.answer] if result.answer.strip() else []
    if not result.success and (result.error or "") not in result.answer:
        parts.append(f"Error: {result.error}")
    if not parts and result.data:
        parts.append(orjson.dumps(result.data, default=str, option=orjson.OPT_NON_STR_KEYS).decode())
    return "\n\n".join(parts) or ("It returned nothing." if result.success else "Error: it failed and did not say why.")


def _usage(result: ToolResult) -> Usage:
    """Of the models that the tool asked, as it tells."""
    told = result.metadata.get("usage")
    if not isinstance(told, dict):
        return Usage()
    return Usage(**{name: tokens for name in Usage.__slots__ if type(tokens := told.get(name)) is int and tokens >= 0})


def _files(result: ToolResult) -> tuple[File, ...]:
    listed = result.data.get("files")
    files = [item for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []
    return tuple(
        File(file["name"], file["url"])
        for file in files
        if isinstance(file.get("name"), str) and isinstance(url := file.get("url"), str) and url.startswith("/api/")
    )
