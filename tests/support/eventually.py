"""Waiting for what another task, thread or process does in its own time."""

import asyncio
from collections.abc import Callable

POLL_S = 0.02


async def eventually(holds: Callable[[], bool], within_s: float = 15) -> bool:
    """Whether it holds before long."""
    try:
        async with asyncio.timeout(within_s):
            while not holds():
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        return holds()
    return True
