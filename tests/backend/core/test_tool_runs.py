"""What becomes of a call, whatever the tool does."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from backend.core import inbox, tool_runs, toolbox
from backend.core.contracts import ToolContext, ToolResult
from backend.core.errors import NotFound, Unavailable
from backend.core.tool_runs import Progress, ToolRuns
from backend.core.toolbox import LoadedTool, Toolbox
from config import Settings
from tests.support.eventually import eventually
from tests.support.toy_tool.args import ToyArgs
from tests.support.toy_tool.tool import BrokenTool, SlowTool, ToyTool

PLACE = "tests.support.toy_tool.tool"
CONTEXT = ToolContext("alice", "sess_1", "req_1", Path("/nowhere"))


class Observer:
    def __init__(self) -> None:
        self.outcomes: list[str] = []

    def run_finished(self, tool: str, outcome: str, duration_s: float) -> None:
        self.outcomes.append(outcome)


@dataclass
class Bench:
    tool: LoadedTool
    toy: ToyTool
    runs: ToolRuns
    observer: Observer

    def limit(self, timeout_s: float) -> None:
        self.tool.spec = dataclasses.replace(self.tool.spec, timeout_s=timeout_s)

    async def result(self, act: str = "echo", **args: Any) -> ToolResult:
        *_, last = await self.run(act, **args)
        assert isinstance(last, ToolResult)
        return last

    async def run(self, act: str = "echo", **args: Any) -> list[Progress | ToolResult]:
        async with aclosing(self.runs.run(self.tool, ToyArgs(act=act, **args), CONTEXT)) as run:
            return [item async for item in run]


@asynccontextmanager
async def bench(tool_class: type[ToyTool] = ToyTool) -> AsyncIterator[Bench]:
    box = Toolbox({tool_class.spec.name: f"{PLACE}:{tool_class.__name__}"}, Settings(_env_file=None))
    (tool,) = box
    observer = Observer()
    runs = ToolRuns(default_timeout_s=0.4, observer=observer)
    box.start()
    try:
        yield Bench(tool, tool.tool, runs, observer)
    finally:
        await runs.close()
        await box.close()


async def test_a_result_says_for_whom_and_how_long_it_was_made() -> None:
    async with bench() as b:
        result = await b.result(text="hello")
    assert result.success
    assert (result.answer, result.data["username"]) == ("hello", "alice")
    assert result.metadata.pop("duration_ms") >= 0
    assert result.metadata == {"toy": True, "tool": "toy", "request_id": "req_1", "session_id": "sess_1"}
    assert b.observer.outcomes == ["succeeded"]


async def test_progress_comes_while_the_tool_works() -> None:
    async with bench() as b:
        seen = []
        async with aclosing(b.runs.run(b.tool, ToyArgs(act="report", seconds=0.02), CONTEXT)) as run:
            async for item in run:
                seen.append((item, b.toy._at_once))
    assert [(item.message, working) for item, working in seen[:-1]] == [("step 0", 1), ("step 1", 1), ("step 2", 1)]
    assert seen[-1][0].success


async def test_a_flood_of_progress_neither_fills_the_memory_nor_stops_the_tool() -> None:
    async with bench() as b:
        items = await b.run("flood")
    assert len(items) == inbox.MAX_WAITING + 1
    assert items[-1].success


async def test_a_failure_is_a_result_with_the_tools_own_words() -> None:
    async with bench() as b:
        result = await b.result("fail")
    assert (result.success, result.error, result.data) == (False, "The toy is broken. Take another one.", {"parts": 2})
    assert b.observer.outcomes == ["failed"]


@pytest.mark.parametrize("act", ["crash", "exit", "rubbish"])
async def test_a_crash_is_a_result_that_tells_no_secret(act: str) -> None:
    async with bench() as b:
        result = await b.result(act)
        after = await b.result(text="alive")
    assert not result.success
    assert "crashed" in result.error
    assert "req_1" in result.error
    assert "secret" not in result.error
    assert after.success
    assert b.observer.outcomes == ["crashed", "succeeded"]


async def test_a_tool_that_is_too_slow_is_stopped_at_its_deadline() -> None:
    async with bench() as b:
        b.limit(timeout_s=0.1)
        result = await b.result("sleep", seconds=30, text="slow")
        assert b.tool.queue.running == 0
    assert not result.success
    assert "within 0.1 s" in result.error
    assert "cancelled slow" in b.toy.journal
    assert b.observer.outcomes == ["timed_out"]


async def test_a_tool_that_does_not_stop_is_left_behind_with_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool_runs, "STOP_GRACE_S", 0.1)
    async with bench() as b:
        b.limit(timeout_s=0.1)
        async with aclosing(b.runs.run(b.tool, ToyArgs(act="resist", seconds=2), CONTEXT)) as run:
            async for item in run:
                result = item
                await asyncio.sleep(0.001)  # a slow reader: there is always one more message
        assert "within 0.1 s" in result.error
        assert b.tool.queue.running == 1
        assert b.toy.journal[-1] == "resisted"
        async with asyncio.timeout(10):
            while b.tool.queue.running:
                await asyncio.sleep(0.05)


async def test_closing_a_run_stops_the_tool() -> None:
    async with bench() as b:
        run = b.runs.run(b.tool, ToyArgs(act="sleep", seconds=30, text="long"), CONTEXT)
        step = asyncio.ensure_future(anext(run))
        while b.tool.queue.running == 0:
            await asyncio.sleep(0.01)
        step.cancel()
        with pytest.raises(asyncio.CancelledError):
            await step
        assert b.toy.journal[-1] == "cancelled long"
        assert b.tool.queue.running == 0
    assert b.observer.outcomes == ["cancelled"]


async def test_a_call_that_waits_for_a_place_until_its_deadline_says_so() -> None:
    async with bench() as b:
        b.limit(timeout_s=30)
        slow = asyncio.create_task(b.result("sleep", seconds=30))
        while b.tool.queue.running == 0:
            await asyncio.sleep(0.01)
        b.limit(timeout_s=0.1)  # of the next call alone
        waiting = await b.result(text="waits")
        slow.cancel()
    assert "busy with other calls" in waiting.error
    assert "ran waits" not in b.toy.journal


async def test_a_call_waits_for_a_tool_that_is_still_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SlowTool, "start_s", 0.1)
    async with bench(SlowTool) as b:
        assert b.tool.is_starting
        result = await b.result(text="patient")
    assert result.success


async def test_a_tool_that_starts_for_longer_than_a_call_may_take_says_so() -> None:
    async with bench(SlowTool) as b:
        result = await b.result(text="patient")
    assert "still starting" in result.error
    assert b.toy.journal == ["closed"]


async def test_a_tool_that_cannot_start_is_off_and_refuses() -> None:
    async with bench(BrokenTool) as b:
        with pytest.raises(Unavailable) as refusal:
            await b.result()
        assert not b.tool.status.enabled
    assert refusal.value.code == "tool_disabled"
    assert "could not be started" in refusal.value.message
    assert "secret" not in refusal.value.message
    assert b.observer.outcomes == ["refused"]


async def test_a_tool_whose_start_hangs_is_off_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolbox, "START_TIMEOUT_S", 0.05)
    async with bench(SlowTool) as b:
        assert await eventually(lambda: b.tool.status.reason == "It could not be started.")


async def test_what_cannot_be_loaded_is_off_and_the_rest_serves() -> None:
    places = {
        "missing": "tests.support.no_such_module:Tool",
        "nothing": f"{PLACE}:NoSuchClass",
        "misnamed": f"{PLACE}:DisabledTool",
        "toy": f"{PLACE}:ToyTool",
    }
    box = Toolbox(places, Settings(_env_file=None))
    box.start()
    await eventually(lambda: not any(tool.is_starting for tool in box))
    states = {tool.spec.name: tool.status for tool in box}
    await box.close()
    assert [name for name, status in states.items() if status.enabled] == ["toy"]
    assert states["missing"].reason == "The Python module tests.support.no_such_module is not installed."
    assert "pip install" in states["missing"].how_to_enable
    assert set(states) == set(places)


async def test_tools_start_together_and_close_in_reverse(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    async def note(self: ToyTool) -> None:
        order.append(self.spec.name)

    monkeypatch.setattr(ToyTool, "close", note)
    monkeypatch.setattr(SlowTool, "start_s", 2)
    box = Toolbox({"slow": f"{PLACE}:SlowTool", "toy": f"{PLACE}:ToyTool"}, Settings(_env_file=None))
    box.start()
    assert await eventually(lambda: [tool.is_starting for tool in box] == [True, False])
    await box.close()
    assert order == ["toy", "slow"]


async def test_an_unknown_tool_is_answered_with_the_known_ones() -> None:
    with pytest.raises(NotFound, match="The tools are: toy"):
        Toolbox({"toy": f"{PLACE}:ToyTool"}, Settings(_env_file=None)).find("nope")
