"""Several streams as one."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from backend.agents.merging import Merged

CLOSED: list[str] = []


async def stream(name: str, count: int, pause_s: float = 0.0) -> AsyncGenerator[str, None]:
    try:
        for number in range(count):
            await asyncio.sleep(pause_s)
            yield f"{name}{number}"
    finally:
        CLOSED.append(name)


async def test_all_items_come_each_stream_in_its_order_also_of_streams_that_join_later() -> None:
    merged: Merged[str] = Merged()
    merged.add(stream("a", 3))
    seen = []
    async for item in merged.items():
        seen.append(item)
        if item == "a1":
            merged.add(stream("b", 2))
    assert [item for item in seen if item[0] == "a"] == ["a0", "a1", "a2"]
    assert [item for item in seen if item[0] == "b"] == ["b0", "b1"]


async def test_a_reader_that_leaves_ends_every_stream_at_once() -> None:
    CLOSED.clear()
    merged: Merged[str] = Merged()
    merged.add(stream("quick", 10))
    merged.add(stream("slow", 1, 3600))
    async with aclosing(merged.items()) as items:
        async for _ in items:
            break
    assert sorted(CLOSED) == ["quick", "slow"]


async def test_an_error_of_one_stream_ends_the_others() -> None:
    async def broken() -> AsyncGenerator[str, None]:
        yield "x"
        raise ValueError("broken")

    CLOSED.clear()
    merged: Merged[str] = Merged()
    merged.add(stream("slow", 1, 3600))
    merged.add(broken())
    with pytest.raises(ValueError, match="broken"):
        await read_all(merged)
    assert CLOSED == ["slow"]


async def read_all(merged: Merged[str]) -> list[str]:
    async with aclosing(merged.items()) as items:
        return [item async for item in items]
