"""Threads for what blocks, so many and no more: apart from those that the rest of the server uses."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Threads:
    def __init__(self, number: int, name: str) -> None:
        self._executor = ThreadPoolExecutor(number, thread_name_prefix=name)

    async def run(self, work: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        """Run it in a thread. When the caller leaves, what has begun goes on, and what has not never begins."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, partial(work, *args, **named))

    async def finish(self, work: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        """The same, but wait for its end, also when the caller leaves: it is done or not, and then we know."""
        task = asyncio.ensure_future(self.run(work, *args, **named))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait({task})
            raise

    async def close(self) -> None:
        await asyncio.to_thread(self._executor.shutdown, wait=True, cancel_futures=True)
