"""Calls of the client's tools on their way out: each is checked before it goes, and what cannot go is remembered."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from backend.core.events import ToolCallDelta
from backend.core.llm.base import LLMRequest, ToolDefinition
from backend.core.llm.text_calls import TextCall, find_calls
from backend.core.llm.toolset import Toolset, dump_arguments, parse_json
from backend.core.llm.wire import new_call_id
from backend.core.messages import ToolCall


@dataclass(frozen=True, slots=True)
class RefusedCall:
    """A call that cannot go out, why, and the tools of which one is to be called instead."""

    call: ToolCall
    problem: str
    tools: tuple[ToolDefinition, ...]
    must_call: bool


@dataclass(slots=True)
class _Arriving:
    id: str
    name: str
    streams: bool  # its pieces go out as they come
    pieces: list[str] = field(default_factory=list)


class OutgoingCalls:
    """The calls of one answer. Every method returns the deltas that may go out now, with indexes of our own."""

    def __init__(self, request: LLMRequest, tools: Sequence[ToolDefinition]) -> None:
        self.tools = Toolset(tools)
        self.must_call = request.tool_choice is not None and request.tool_choice not in {"none", "auto"}
        self.refused: list[RefusedCall] = []
        self._definitions = {tool.name: tool for tool in tools}
        self._live = request.live
        self._one = request.parallel_tool_calls is False
        self._count = 0
        self._arriving: _Arriving | None = None

    def __bool__(self) -> bool:
        """Whether a call went out, or has begun to."""
        return self._count > 0

    async def take(self, delta: ToolCallDelta) -> list[ToolCallDelta]:
        """A piece of a call, from a backend."""
        if delta.id is not None:
            deltas = await self.finish()
            name = delta.name or ""
            streams = self._may_stream(name, delta.arguments)
            self._arriving = _Arriving(delta.id, name, streams, [delta.arguments])
            if streams:
                deltas.append(ToolCallDelta(self._count, delta.arguments, delta.id, name))
                self._count += 1
            return deltas
        if self._arriving is None:
            return []
        self._arriving.pieces.append(delta.arguments)
        return [ToolCallDelta(self._count - 1, delta.arguments)] if self._arriving.streams else []

    async def finish(self, *, cut: bool = False) -> list[ToolCallDelta]:
        """The call that was arriving has ended, or was cut by a token limit."""
        arriving, self._arriving = self._arriving, None
        if arriving is None:
            return []
        arguments = "".join(arriving.pieces)
        if arriving.streams:
            return [] if cut or arguments.strip() else [ToolCallDelta(self._count - 1, "{}")]
        if cut:
            return self.send(arriving.name, arguments, arriving.id)
        try:
            return await self.check_and_send(arriving.name, arguments, arriving.id)
        except ValueError as error:
            self._refuse(ToolCall(arriving.id, arriving.name, arguments), error)
            return []

    async def take_text(self, text: str) -> list[ToolCallDelta] | None:
        """What may be calls that were written as text. None: it is words."""
        found = await self.find(text)
        deltas = []
        for call in found[:1] if self._one else found:
            try:
                deltas += await self.check_and_send(call.name, call.arguments)
            except ValueError as error:
                written = call.arguments if isinstance(call.arguments, str) else dump_arguments(call.arguments)
                self._refuse(ToolCall("", call.name, written), error)
        return deltas if found else None

    async def find(self, text: str) -> list[TextCall]:
        """The calls that stand in a text. Rubbish takes long to read: not on the event loop."""
        return await asyncio.to_thread(find_calls, text, self.tools)

    async def check_and_send(self, name: str, given: Any, call_id: str = "") -> list[ToolCallDelta]:
        """Raises: ValueError, with a sentence for the model."""
        tool = self.tools.find(name)
        if tool is None:
            raise ValueError(f"there is no tool {name[:60]!r} here.")
        arguments = await asyncio.to_thread(self.tools.read_arguments, tool, given)
        # As the model wrote them where that says the same: the engine has these very bytes in its cache.
        as_written = isinstance(given, str) and given.strip() and parse_json(given) == arguments and _is_json(given)
        return self.send(tool, given if as_written else dump_arguments(arguments), call_id)

    def send(self, name: str, arguments: str, call_id: str = "") -> list[ToolCallDelta]:
        index, self._count = self._count, self._count + 1
        head = ToolCallDelta(index, "", call_id or new_call_id(), name)
        return [head, ToolCallDelta(index, arguments)] if arguments else [head]

    def _may_stream(self, name: str, beginning: str) -> bool:
        """A whole call can be checked first at no cost; `strict` ones have to be."""
        tool = self._definitions.get(name)
        is_whole = bool(beginning.strip()) and isinstance(parse_json(beginning), dict)
        return self._live and tool is not None and not tool.strict and not is_whole

    def _refuse(self, call: ToolCall, error: ValueError) -> None:
        known = self.tools.find(call.name)
        tools = (self._definitions[known],) if known else self.tools.definitions
        self.refused.append(RefusedCall(call, str(error), tools, self.must_call or known is not None))


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except ValueError:
        return False
    return True
