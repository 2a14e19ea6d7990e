"""Places for the calls of one tool: how many run, how many may wait, and who is next.

Fair between users: somebody who has sent many calls never holds every place, nor fills the queue, and a place that
becomes free goes to whoever waits and has the fewest calls running; among equals, to the first who came.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from backend.core.errors import TooManyRequests, Unavailable

RETRY_AFTER_S = 5.0


@dataclass(slots=True, eq=False)
class _Waiter:
    username: str
    admitted: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class ToolQueue:
    """One for each tool.

    Args:
        name: of the tool, for messages.
        places: calls that may run at once. One user may have all of them but one.
        length: calls that may wait. One user's may be half of them.
    """

    def __init__(self, name: str, *, places: int, length: int) -> None:
        self._name = name
        self._places = places
        self._places_of_one = max(1, places - 1)
        self._length = length
        self._length_of_one = max(1, length // 2)
        self._running: Counter[str] = Counter()
        self._waiters: list[_Waiter] = []

    @property
    def running(self) -> int:
        return self._running.total()

    @property
    def waiting(self) -> int:
        return len(self._waiters)

    @asynccontextmanager
    async def place(self, username: str) -> AsyncIterator[None]:
        """Hold a place while the body runs.

        Raises:
            Unavailable: as many wait as may.
            TooManyRequests: as many calls of this user wait as may.
        """
        await self._enter(username)
        try:
            yield
        finally:
            self._leave(username)

    async def _enter(self, username: str) -> None:
        waiter = _Waiter(username)
        self._waiters.append(waiter)
        self._admit()
        if waiter.admitted.done():
            return
        if error := self._refusal(username):
            self._waiters.remove(waiter)
            raise error
        try:
            await waiter.admitted
        except asyncio.CancelledError:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            else:  # the place and the cancellation came in the same moment
                self._leave(username)
            raise

    def _refusal(self, username: str) -> Unavailable | TooManyRequests | None:
        if len(self._waiters) > self._length:
            return Unavailable(
                f"The tool {self._name} is busy: {self._length} calls wait already. Try again shortly.",
                code="tool_busy",
                retry_after_s=RETRY_AFTER_S,
            )
        own = sum(waiter.username == username for waiter in self._waiters)
        if own > self._length_of_one:
            return TooManyRequests(
                f"As many of your calls as may ({self._length_of_one}) wait for the tool {self._name}. "
                "Wait for their results.",
                retry_after_s=RETRY_AFTER_S,
            )
        return None

    def _leave(self, username: str) -> None:
        self._running[username] -= 1
        if not self._running[username]:
            del self._running[username]
        self._admit()

    def _admit(self) -> None:
        while self.running < self._places:
            # One that is done was cancelled a moment ago and has not yet left the list.
            entitled = [
                waiter
                for waiter in self._waiters
                if self._running[waiter.username] < self._places_of_one and not waiter.admitted.done()
            ]
            if not entitled:
                return
            chosen = min(entitled, key=lambda waiter: self._running[waiter.username])
            self._waiters.remove(chosen)
            self._running[chosen.username] += 1
            chosen.admitted.set_result(None)
