"""Children: their words, their limits, and that none outlives its use."""

import asyncio
import subprocess
from contextlib import aclosing
from pathlib import Path

import pytest

from backend.utils.children import ChildFailed, Children


def running(script: Path) -> bool:
    return subprocess.run(["pgrep", "-f", str(script)], capture_output=True).returncode == 0


async def test_a_child_answers_and_sees_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAVILY_API_KEY", "secret")
    code = "import json, os, sys; print(json.dumps([json.load(sys.stdin), dict(os.environ)]))"
    await asyncio.to_thread((tmp_path / "echo.py").write_text, code)
    value, environment = await Children(2).run(tmp_path / "echo.py", {"a": "ü"}, timeout_s=20)
    assert value == {"a": "ü"}
    assert "secret" not in environment.values()


@pytest.mark.parametrize(
    "code",
    ["raise SystemExit(3)", "print('no json')", "import os; os.abort()", "print()", "print('[' + '1,' * 10**7 + '1]')"],
)
async def test_a_child_that_dies_or_talks_nonsense_is_an_error(tmp_path: Path, code: str) -> None:
    await asyncio.to_thread((tmp_path / "bad.py").write_text, code)
    with pytest.raises(ChildFailed):
        await Children(2).run(tmp_path / "bad.py", {}, timeout_s=20)


async def test_a_child_is_killed_at_its_deadline(tmp_path: Path) -> None:
    await asyncio.to_thread((tmp_path / "slow.py").write_text, "import time; time.sleep(60)")
    with pytest.raises(ChildFailed, match="longer than 0"):
        await Children(2).run(tmp_path / "slow.py", {}, timeout_s=0.5)
    assert not await asyncio.to_thread(running, tmp_path / "slow.py")


async def test_a_child_is_killed_when_nobody_waits_for_it(tmp_path: Path) -> None:
    await asyncio.to_thread((tmp_path / "slow.py").write_text, "import time; time.sleep(60)")
    call = asyncio.create_task(Children(2).run(tmp_path / "slow.py", {}, timeout_s=60))
    async with asyncio.timeout(10):
        while not await asyncio.to_thread(running, tmp_path / "slow.py"):
            await asyncio.sleep(0.05)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert not await asyncio.to_thread(running, tmp_path / "slow.py")


async def test_a_stream_comes_line_by_line_and_closing_it_kills_the_child_and_its_own_children(tmp_path: Path) -> None:
    code = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", sys.argv[0] + ".grandchild"])
for number in range(3):
    print(number, flush=True)
time.sleep(60)
"""
    script = tmp_path / "counting.py"
    await asyncio.to_thread(script.write_text, code)
    seen = []
    async with aclosing(Children(1).stream(script, {}, timeout_s=30, value_timeout_s=30, max_bytes=100)) as values:
        async for value in values:
            seen.append(value)
            if value == 2:
                break
    assert seen == [0, 1, 2]
    async with asyncio.timeout(10):
        while await asyncio.to_thread(running, script):
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("code", ["while True: print(1)", "print('1' * 5_000_000)", "print(1); raise SystemExit(1)"])
async def test_a_stream_that_does_not_end_well_is_an_error(tmp_path: Path, code: str) -> None:
    await asyncio.to_thread((tmp_path / "bad.py").write_text, code)
    with pytest.raises(ChildFailed):
        async for _ in Children(1).stream(tmp_path / "bad.py", {}, timeout_s=30, value_timeout_s=30, max_bytes=10_000):
            pass


async def test_the_time_that_the_caller_takes_is_not_the_childs(tmp_path: Path) -> None:
    await asyncio.to_thread((tmp_path / "quick.py").write_text, "print(1); print(2)")
    values = []
    async for value in Children(1).stream(tmp_path / "quick.py", {}, timeout_s=2.5, value_timeout_s=30, max_bytes=100):
        values.append(value)
        await asyncio.sleep(1.5)
    assert values == [1, 2]
