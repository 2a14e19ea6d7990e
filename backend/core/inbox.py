"""What work under way has to tell, on its way to one reader. A courtesy: the work never waits for the reader."""

import asyncio
from collections import deque
from typing import Any, Generic, TypeVar

T = TypeVar("T")

MAX_WAITING = 256  # messages; a reader who is slower misses what comes then


class Inbox(Generic[T]):
    def __init__(self) -> None:
        self._messages: deque[T] = deque()
        self._changed = asyncio.Event()
        self._closed = False

    def put(self, message: T) -> None:
        if len(self._messages) < MAX_WAITING:
            self._messages.append(message)
        self._changed.set()

    def close(self, work: asyncio.Task[Any]) -> None:
        """The work has ended; for `Task.add_done_callback`."""
        if not work.cancelled():
            work.exception()  # looked at: where the reader has left, nobody else will
        self._closed = True
        self._changed.set()

    async def has_more(self, until: float | None = None) -> bool:
        """Wait for a message. False once none will come any more, or at the time `until` of the loop's clock."""
        try:
            async with asyncio.timeout_at(until):
                while not self._messages and not self._closed:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        # Work that does not stop may still chatter.
        return bool(self._messages) and (until is None or asyncio.get_running_loop().time() < until)

    def take(self) -> list[T]:
        taken = list(self._messages)
        self._messages.clear()
        return taken
