"""Several streams at once, as one."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Generic, TypeVar

T = TypeVar("T")


class Merged(Generic[T]):
    """The items of all streams as they come; streams may be added on the way.

    Whoever reads closes the generator of `items`, which ends every stream that is still open.
    """

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Task[T], AsyncGenerator[T, None]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, stream: AsyncGenerator[T, None]) -> None:
        self._waiting[asyncio.ensure_future(anext(stream))] = stream

    async def items(self) -> AsyncGenerator[T, None]:
        """
        Raises:
            Exception: the first that a stream raises; the others are ended.
        """
        try:
            while self._waiting:
                done, _ = await asyncio.wait(self._waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in [task for task in self._waiting if task in done]:  # in the order of their adding
                    stream = self._waiting[task]
                    if isinstance(task.exception(), StopAsyncIteration):
                        del self._waiting[task]
                        continue
                    item = task.result()
                    del self._waiting[task]
                    self.add(stream)
                    yield item
        finally:
            streams = list(self._waiting.values())
            for task in self._waiting:
                task.cancel()
            if self._waiting:
                await asyncio.gather(*self._waiting, return_exceptions=True)
            self._waiting.clear()
            for stream in streams:
                await stream.aclose()
