"""Whatever is closed, killed or left, nothing stays behind and no session is locked."""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from backend.core.contracts import ToolFailure
from tests.support.eventually import eventually
from tests.tools.python_coder.coder import started_cold_coder as started_coder
from tests.tools.python_coder.machine import are_gone, descendants, is_alive, open_files, own_groups

ROOT = Path(__file__).parents[3]


async def test_closing_leaves_no_process_file_mount_or_group(tmp_path):
    before = (open_files(), Path("/proc/self/mounts").read_text(), descendants())

    async with started_coder(tmp_path) as coder:
        await asyncio.gather(
            *(coder.run("import subprocess\nsubprocess.Popen(['sleep', '99'])", f"s{n}") for n in range(3))
        )
        assert len(descendants()) >= 5

    assert await eventually(lambda: (open_files(), Path("/proc/self/mounts").read_text(), descendants()) == before)
    assert await asyncio.to_thread(own_groups) == []


async def test_a_second_start_after_a_close_works(tmp_path):
    for _ in range(2):
        async with started_coder(tmp_path) as coder:
            assert (await coder.run("1 + 1")).data["value"] == "2"


async def test_closing_in_the_middle_of_a_call_ends_it(tmp_path):
    async with started_coder(tmp_path) as coder:
        call = asyncio.create_task(coder.run("while True: pass"))
        await asyncio.sleep(0.3)
        pids = descendants()
        began = time.monotonic()
    assert time.monotonic() - began < 20
    assert await are_gone(pids)
    with pytest.raises((asyncio.CancelledError, ToolFailure)):
        await call


@pytest.mark.parametrize("victim", ["guard", "zygote", "interpreter"])
@pytest.mark.parametrize("moment", ["idle", "busy"])
async def test_whichever_process_is_killed_the_session_goes_on_and_nothing_is_left(tmp_path, victim, moment):
    async with started_coder(tmp_path) as coder:
        await coder.run("x = 1\nimport subprocess")
        guard = coder.tool._pool.zygote_pid
        zygote = min(descendants(guard))
        pids = {"guard": guard, "zygote": zygote, "interpreter": max(descendants(zygote))}
        call = None
        if moment == "busy":
            call = asyncio.create_task(coder.run("subprocess.Popen(['sleep', '99'])\nimport time\ntime.sleep(60)"))
            await asyncio.sleep(0.5)
        old = {*descendants(guard), guard}

        os.kill(pids[victim], signal.SIGKILL)

        if call:
            result = await asyncio.wait_for(call, 5)
            assert not result.success
            assert "variables are gone, files are kept" in result.error
        else:
            await asyncio.sleep(0.3)
        after = await asyncio.wait_for(coder.run("'x' in globals()"), 15)
        assert after.data["value"] == "False"
        if moment == "idle":
            assert "variables of earlier calls are gone" in after.metadata["notices"][0]
        remaining = {pid for pid in old if is_alive(pid)} - ({guard, zygote} if victim == "interpreter" else set())
        assert await are_gone(remaining)


@pytest.mark.parametrize("moment", ["idle", "busy"])
async def test_when_the_server_is_killed_nothing_of_it_lives_on(tmp_path, moment):
    code = f"""
import asyncio, sys
from pathlib import Path
from tests.tools.python_coder.coder import started_coder
async def main():
    async with started_coder(Path({str(tmp_path)!r})) as coder:
        await coder.run("import subprocess\\nsubprocess.Popen(['sleep', '99'])")
        print("up", flush=True)
        if {moment == "busy"}:
            await coder.run("subprocess.Popen(['sleep', '99'], start_new_session=True)\\nwhile True: pass")
        await asyncio.sleep(60)
asyncio.run(main())
"""
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, cwd=ROOT, stdout=asyncio.subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    try:
        assert await asyncio.wait_for(server.stdout.readline(), 20) == b"up\n"
        assert await eventually(lambda: len(descendants(server.pid)) >= 3)
        await asyncio.sleep(0.5)  # until it is busy
        pids = descendants(server.pid)
    finally:
        server.kill()
        await server.wait()

    assert await are_gone(pids)


async def test_a_caller_who_goes_away_interrupts_the_code_and_keeps_the_session(tmp_path):
    async with started_coder(tmp_path) as coder:
        await coder.run("x = 1")
        call = asyncio.create_task(coder.run("import time\ntime.sleep(60)"))
        await asyncio.sleep(0.3)
        call.cancel()
        began = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await call

        assert time.monotonic() - began < 5
        assert (await asyncio.wait_for(coder.run("x"), 20)).data["value"] == "1"


async def test_a_caller_who_goes_away_while_waiting_runs_nothing(tmp_path):
    async with started_coder(tmp_path) as coder:
        first = asyncio.create_task(coder.run("import time\ntime.sleep(0.5)"))
        await asyncio.sleep(0.1)
        second = asyncio.create_task(coder.run("open('ran.txt', 'w')"))
        await asyncio.sleep(0.1)
        second.cancel()
        await first
        await asyncio.gather(second, return_exceptions=True)

        assert (await coder.run("import os\nos.listdir()")).data["value"] == "[]"


async def test_callers_who_go_away_at_any_moment_leave_nothing_behind(tmp_path):
    async with started_coder(tmp_path) as coder:
        for step in range(40):
            call = asyncio.create_task(coder.run("import time\ntime.sleep(0.01)", f"s{step}"))
            await asyncio.sleep(step * 0.0015)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
        await asyncio.sleep(0.5)

        assert coder.tool._pool.live <= 4
        assert len(await asyncio.to_thread(own_groups)) <= 4 * 2
        assert (await coder.run("1")).data["value"] == "1"
    assert await asyncio.to_thread(own_groups) == []
