"""A bound on the model calls that run at once; the others wait their turn, for a while."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from backend.core.errors import Unavailable
from backend.core.events import BackendEvent
from backend.core.llm.base import LLMRequest, ModelStream


class Limited:
    """A `ModelStream` that runs at most `max_calls` of another one's calls at once, in the order of their arrival.

    Args:
        wait_s: how long a call may wait for its turn.
        max_waiting: how many may wait; one more is refused at once.

    Raises (from `stream`):
        Unavailable: the wait is over, or too many wait already. Nothing was asked of any backend.
    """

    def __init__(self, inner: ModelStream, *, max_calls: int, wait_s: float, max_waiting: int = 1024) -> None:
        self._inner = inner
        self._places = asyncio.Semaphore(max_calls)
        self._max_calls = max_calls
        self._wait_s = wait_s
        self._max_waiting = max_waiting
        self._waiting = 0

    async def stream(self, request: LLMRequest) -> AsyncGenerator[BackendEvent, None]:
        await self._take_place()
        try:
            async with aclosing(self._inner.stream(request)) as events:
                async for event in events:
                    yield event
        finally:
            self._places.release()

    async def _take_place(self) -> None:
        if self._places.locked():
            if self._waiting >= self._max_waiting:
                raise self._too_busy()
            self._waiting += 1
            try:
                async with asyncio.timeout(self._wait_s):
                    await self._places.acquire()
            except TimeoutError:
                raise self._too_busy() from None
            finally:
                self._waiting -= 1
        else:
            await self._places.acquire()

    def _too_busy(self) -> Unavailable:
        return Unavailable(
            f"The server is answering as many questions as it may ({self._max_calls}). Try again shortly.",
            retry_after_s=self._wait_s,
        )
