"""Interpreters come and go, and whatever is killed, nothing is left behind and no session is locked."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from backend.core.contracts import ToolFailure
from config import Settings
from tests.tools.python_coder.coder import Coder
from tests.tools.python_coder.coder import started_coder as started_warm_coder
from tools.python_coder.args import PythonCoderArgs
from tools.python_coder.cgroups import ControlGroups
from tools.python_coder.tool import PythonCoder

ROOT = Path(__file__).parents[3]


def started_coder(data_dir: Path, **settings) -> AbstractAsyncContextManager[Coder]:
    """Without the libraries, since no code in here needs them and each start would wait for them."""
    return started_warm_coder(data_dir, libraries=(), **settings)


def _descendants(pid: int = 0) -> set[int]:
    """Every living process below `pid`, by default below us."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
                if fields[0] not in "ZX":
                    parents[int(folder.name)] = int(fields[1])
    found: set[int] = set()
    queue = [pid or os.getpid()]
    while queue:
        queue_head = queue.pop()
        below = {child for child, parent in parents.items() if parent == queue_head}
        found |= below
        queue += below
    return found


def _alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


async def _gone(pids: set[int], within_s: float = 5) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if not any(map(_alive, pids)):
            return True
        await asyncio.sleep(0.02)
    return False


def _open_files() -> list[str]:
    links = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            links.append(str(link.readlink()).split(":")[0])
    return sorted(links)


def _groups() -> list[Path]:
    return [group for parent in ControlGroups.find()._parents for group in parent.glob(f"*-{os.getpid()}-*")]


async def test_closing_leaves_no_process_file_mount_or_group(tmp_path):
    before = (_open_files(), Path("/proc/self/mounts").read_text(), _descendants())

    async with started_coder(tmp_path) as coder:
        await asyncio.gather(
            *(coder.run("import subprocess\nsubprocess.Popen(['sleep', '99'])", f"s{n}") for n in range(3))
        )
        assert len(_descendants()) >= 5
    await asyncio.sleep(0.1)

    assert (_open_files(), Path("/proc/self/mounts").read_text(), _descendants()) == before
    assert await asyncio.to_thread(_groups) == []


async def test_a_second_start_after_a_close_works(tmp_path):
    for _ in range(2):
        async with started_coder(tmp_path) as coder:
            assert (await coder.run("1 + 1")).data["value"] == "2"


async def test_closing_in_the_middle_of_a_call_ends_it(tmp_path):
    async with started_coder(tmp_path) as coder:
        call = asyncio.create_task(coder.run("while True: pass"))
        await asyncio.sleep(0.3)
        pids = _descendants()
        began = time.monotonic()
    assert time.monotonic() - began < 8
    assert await _gone(pids)
    with pytest.raises((asyncio.CancelledError, ToolFailure)):
        await call


@pytest.mark.parametrize("victim", ["guard", "zygote", "interpreter"])
@pytest.mark.parametrize("moment", ["idle", "busy"])
async def test_whichever_process_is_killed_the_session_goes_on_and_nothing_is_left(tmp_path, victim, moment):
    async with started_coder(tmp_path) as coder:
        await coder.run("x = 1\nimport subprocess")
        guard = coder.tool._pool.zygote_pid
        zygote = min(_descendants(guard))
        pids = {"guard": guard, "zygote": zygote, "interpreter": max(_descendants(zygote))}
        call = None
        if moment == "busy":
            call = asyncio.create_task(coder.run("subprocess.Popen(['sleep', '99'])\nimport time\ntime.sleep(60)"))
            await asyncio.sleep(0.5)
        old = {*_descendants(guard), guard}

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
        remaining = {pid for pid in old if _alive(pid)} - ({guard, zygote} if victim == "interpreter" else set())
        assert await _gone(remaining)


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
        await asyncio.sleep(0.5)
        pids = _descendants(server.pid)
        assert len(pids) >= 3
    finally:
        server.kill()
        await server.wait()

    assert await _gone(pids)


async def test_a_caller_who_goes_away_interrupts_the_code_and_keeps_the_session(tmp_path):
    async with started_coder(tmp_path) as coder:
        await coder.run("x = 1")
        call = asyncio.create_task(coder.run("import time\ntime.sleep(60)"))
        await asyncio.sleep(0.3)
        call.cancel()
        began = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await call

        assert time.monotonic() - began < 0.1
        assert (await asyncio.wait_for(coder.run("x"), 2)).data["value"] == "1"


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
        assert len(await asyncio.to_thread(_groups)) <= 4 * 2
        assert (await coder.run("1")).data["value"] == "1"
    assert await asyncio.to_thread(_groups) == []


async def test_calls_of_one_session_run_one_after_the_other(tmp_path):
    async with started_coder(tmp_path) as coder:
        await coder.run("n = 0")
        code = "import time\nm = n\ntime.sleep(0.05)\nn = m + 1"
        await asyncio.gather(*(coder.run(code) for _ in range(5)))

        assert (await coder.run("n")).data["value"] == "5"


async def test_the_longest_idle_interpreter_makes_room_and_its_session_is_told(tmp_path):
    async with started_coder(tmp_path, PYTHON_MAX_INTERPRETERS=2) as coder:
        for session in ("a", "b", "c"):
            await coder.run("x = 1\nopen('f', 'w').write('kept')", session)

        b = await coder.run("x", "b")
        a = await coder.run("open('f').read(), 'x' in globals()", "a")
        again = await coder.run("1", "a")

    assert b.data["value"] == "1"
    assert a.data["value"] == "('kept', False)"
    assert "other sessions needed its place" in a.metadata["notices"][0]
    assert a.answer.startswith("Note: The interpreter is new")
    assert again.metadata["notices"] == []


async def test_when_all_are_busy_a_call_waits_and_then_says_so(tmp_path):
    async with started_coder(tmp_path, PYTHON_MAX_INTERPRETERS=1, DEFAULT_TOOL_TIMEOUT=2) as coder:
        busy = asyncio.create_task(coder.run("import time\ntime.sleep(0.6)", "busy"))
        await asyncio.sleep(0.2)
        assert (await coder.run("5", "patient")).data["value"] == "5"
        await busy
        busy = asyncio.create_task(
            coder.run("import signal\nsignal.signal(2, signal.SIG_IGN)\nwhile True: pass", "busy")
        )
        await asyncio.sleep(0.2)

        with pytest.raises(ToolFailure, match=r"every interpreter is busy\. Try again"):
            await coder.run("5", "late")

        assert not (await busy).success
        assert (await coder.run("5", "late")).data["value"] == "5"


async def test_an_idle_interpreter_is_put_away(tmp_path):
    async with started_coder(tmp_path, PYTHON_IDLE_S=0.4) as coder:
        await coder.run("x = 1")
        await asyncio.sleep(1)

        assert coder.tool._pool.live == 0
        result = await coder.run("'x' in globals()")
        assert result.data["value"] == "False"
        assert "it was idle for long" in result.metadata["notices"][0]


async def test_a_session_whose_folder_was_deleted_gets_a_new_interpreter_in_a_new_folder(tmp_path):
    async with started_coder(tmp_path) as coder:
        await coder.run("x = 1")
        coder.folder("session").rmdir()

        result = await coder.run("open('f', 'w').write('1')")

        assert result.success
        assert (coder.folder("session") / "f").exists()
        assert "the session's folder was replaced" in result.metadata["notices"][0]


async def test_sixteen_sessions_at_once_leave_nothing_behind(tmp_path):
    async with started_coder(tmp_path, PYTHON_MAX_INTERPRETERS=16) as coder:
        await coder.run("1", "s0")
        files = len(_open_files())

        async def work(n: int) -> list[str]:
            values = []
            for step in range(6):
                code = f"total = globals().get('total', 0) + {n}\nprint('x' * 1000)\ntotal" if step != 3 else "1/0"
                result = await coder.run(code, f"s{n}")
                values.append(result.data["value"])
            return values

        outcomes = await asyncio.gather(*(work(n) for n in range(16)))

        assert all(
            values == [*(str(n * i) for i in (1, 2, 3)), None, str(n * 4), str(n * 5)]
            for n, values in enumerate(outcomes)
        )
        assert len(_descendants(coder.tool._pool.zygote_pid)) == 1 + 16
        assert len(_open_files()) - files == 15 * 3
    assert await asyncio.to_thread(_groups) == []


async def test_a_machine_that_cannot_isolate_as_asked_is_told_why_and_how(tmp_path):
    settings = Settings(_env_file=None, DATA_DIR=tmp_path, SANDBOX_MIN_TIER=1)
    tool = await asyncio.to_thread(PythonCoder, settings, first_tier=2)
    await tool.start()

    assert not tool.status().enabled
    assert "SANDBOX_MIN_TIER" in tool.status().reason
    assert tool.status().how_to_enable
    with pytest.raises(ToolFailure, match="python_coder is off"):
        await tool.run(PythonCoderArgs(code="1"), None)
    await tool.close()


async def test_the_status_and_each_result_say_what_is_in_force(tmp_path):
    async with started_coder(tmp_path) as coder:
        details = coder.tool.status().details
        result = await coder.run("1")

    assert details["tier"] == 1
    assert set(details["layers"]) >= {"namespaces", "landlock", "seccomp", "rlimits"}
    assert all(details["held_back"].values())
    assert result.data["isolation"] == {"tier": 1, "layers": details["layers"]}
