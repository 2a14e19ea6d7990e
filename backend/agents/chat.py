"""The simplest agent: one model call, no tools of the server."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from backend.core.contracts import Turn
from backend.core.events import Completed, Event, RunFinished
from backend.core.llm.base import ModelStream


class ChatAgent:
    def __init__(self, llm: ModelStream) -> None:
        self._llm = llm

    async def run(self, turn: Turn) -> AsyncGenerator[Event, None]:
        async with aclosing(self._llm.stream(turn.request)) as events:
            async for event in events:
                if isinstance(event, Completed):
                    yield RunFinished(event.finish_reason, event.usage)
                else:
                    yield event
