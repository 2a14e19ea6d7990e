"""Sessions share a bounded number of interpreters, and the tool says what is in force."""

import asyncio
import os

import pytest

from backend.core.contracts import ToolFailure
from config import Settings
from tests.support.eventually import eventually
from tests.tools.python_coder.coder import started_cold_coder as started_coder
from tests.tools.python_coder.machine import descendants, open_files, own_groups, settled_files
from tools.python_coder.args import PythonCoderArgs
from tools.python_coder.tool import PythonCoder


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

        assert await eventually(lambda: coder.tool._pool.live == 0)
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
        files = await settled_files()

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
        assert len(descendants(coder.tool._pool.zygote_pid)) == 1 + 16
        assert await eventually(lambda: len(open_files()) - files == 15 * 3)
    assert await asyncio.to_thread(own_groups) == []


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


async def test_a_server_that_keeps_its_files_to_itself_can_run_code(tmp_path):
    old = os.umask(0o077)
    try:
        async with started_coder(tmp_path / "data") as coder:
            assert (await coder.run("open('f', 'w').write('1')")).success
    finally:
        os.umask(old)
