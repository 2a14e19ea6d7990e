"""Places and turns, user by user."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from backend.core.errors import TooManyRequests, Unavailable
from backend.core.tool_queue import ToolQueue


class Caller:
    """Takes a place in a task of its own and keeps it until told to leave."""

    def __init__(self, queue: ToolQueue, username: str, order: list[str]) -> None:
        self.leave = asyncio.Event()
        self.task = asyncio.create_task(self._hold(queue, username, order))

    async def _hold(self, queue: ToolQueue, username: str, order: list[str]) -> None:
        async with queue.place(username):
            order.append(username)
            await self.leave.wait()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_no_more_run_at_once_than_there_are_places() -> None:
    queue, order = ToolQueue("toy", places=2, length=10), []
    callers = [Caller(queue, name, order) for name in ("a", "b", "c")]
    await settle()
    assert (order, queue.running, queue.waiting) == (["a", "b"], 2, 1)
    callers[0].leave.set()
    await settle()
    assert (order, queue.running, queue.waiting) == (["a", "b", "c"], 2, 0)
    for caller in callers:
        caller.leave.set()
    await asyncio.gather(*(caller.task for caller in callers))
    assert queue.running == 0


async def test_one_user_leaves_a_place_for_the_others() -> None:
    queue, order = ToolQueue("toy", places=3, length=10), []
    callers = [Caller(queue, "greedy", order) for _ in range(4)]
    await settle()
    assert (queue.running, queue.waiting) == (2, 2)
    callers.append(Caller(queue, "other", order))
    await settle()
    assert order == ["greedy", "greedy", "other"]
    for caller in callers:
        caller.leave.set()
    await asyncio.gather(*(caller.task for caller in callers))


async def test_a_tool_with_one_place_serves_a_single_user_too() -> None:
    async with ToolQueue("toy", places=1, length=1).place("a"):
        pass


async def test_a_free_place_goes_to_the_user_with_the_fewest_running() -> None:
    queue, order = ToolQueue("toy", places=3, length=10), []
    first, *others = (Caller(queue, name, order) for name in ("a", "b", "b"))
    await settle()
    waiting = [Caller(queue, "a", order), Caller(queue, "a", order), Caller(queue, "c", order)]
    await settle()
    others[0].leave.set()
    await settle()
    assert order == ["a", "b", "b", "c"]
    for caller in (first, *others, *waiting):
        caller.leave.set()
    await asyncio.gather(*(caller.task for caller in (first, *others, *waiting)))
    assert order == ["a", "b", "b", "c", "a", "a"]


async def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    queue, order = ToolQueue("toy", places=1, length=2), []
    callers = [Caller(queue, name, order) for name in ("a", "b", "c")]
    await settle()
    with pytest.raises(Unavailable) as refusal:
        async with queue.place("d"):
            pass
    assert refusal.value.code == "tool_busy"
    assert refusal.value.headers["Retry-After"] == "5"
    assert queue.waiting == 2
    for caller in callers:
        caller.leave.set()
    await asyncio.gather(*(caller.task for caller in callers))


async def test_one_user_cannot_fill_the_queue() -> None:
    queue, order = ToolQueue("toy", places=1, length=4), []
    callers = [Caller(queue, "a", order) for _ in range(3)]
    await settle()
    with pytest.raises(TooManyRequests):
        async with queue.place("a"):
            pass
    callers.append(Caller(queue, "b", order))
    await settle()
    assert queue.waiting == 3
    for caller in callers:
        caller.leave.set()
    await asyncio.gather(*(caller.task for caller in callers))


async def test_one_who_leaves_while_waiting_gives_up_the_turn() -> None:
    queue, order = ToolQueue("toy", places=1, length=4), []
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(queue.place("a"))
        quitter, patient = Caller(queue, "b", order), Caller(queue, "c", order)
        await settle()
        quitter.task.cancel()
        await settle()
        assert queue.waiting == 1
    await settle()
    assert order == ["c"]
    patient.leave.set()
    await patient.task


async def test_a_place_given_in_the_moment_of_leaving_is_not_lost() -> None:
    queue, order = ToolQueue("toy", places=1, length=4), []
    async with queue.place("a"):
        quitter, patient = Caller(queue, "b", order), Caller(queue, "c", order)
        await settle()
    quitter.task.cancel()  # b has the place already, and does not know it yet
    await settle()
    assert order == ["c"]
    patient.leave.set()
    await patient.task
    assert queue.running == 0


async def test_a_free_place_passes_over_one_that_was_cancelled_a_moment_ago() -> None:
    queue, order = ToolQueue("toy", places=1, length=4), []
    async with queue.place("a"):
        quitter, patient = Caller(queue, "b", order), Caller(queue, "c", order)
        await settle()
        quitter.task.cancel()  # and has had no time to leave the queue
    await settle()
    assert order == ["c"]
    patient.leave.set()
    await patient.task
    assert (queue.running, queue.waiting) == (0, 0)
