"""The nanocoder mode: the real agent in its real sandbox, steered by a scripted model."""

import asyncio
import os
import signal
import time

import pytest

from backend.core.contracts import ToolFailure
from backend.core.messages import ToolCall
from config import Settings
from tests.support.eventually import eventually
from tests.support.scripted import Pause, ScriptedLLM, refused
from tests.tools.python_coder.machine import are_gone, descendants, open_files, own_groups
from tests.tools.python_coder.tasks import bash, context, installed, settings, started, write
from tools.python_coder.args import NanocoderArgs
from tools.python_coder.nanocoder import Nanocoder
from tools.python_coder.nanocoder_install import NotInstalled, find_installation
from tools.python_coder.tool import make_python_coder


@installed
async def test_a_task_is_carried_out_and_its_files_and_steps_are_told(tmp_path):
    llm = ScriptedLLM([write("hello.py", "print(6 * 7)\n"), bash("python3 hello.py > out.txt"), "It is done."])
    steps = []

    async def listen(message, data):
        steps.append((message, data["tools"]))

    async with started(tmp_path) as tool:
        result = await tool.run(NanocoderArgs(task="--help me"), context(tmp_path, llm, progress=listen))

    assert result.success, result
    assert (result.data["stdout"], result.data["exit_code"]) == ("It is done.", 0)
    assert [(file["name"], file["url"]) for file in result.data["files"]] == [
        ("hello.py", "/api/chat/sessions/session/files/hello.py"),
        ("out.txt", "/api/chat/sessions/session/files/out.txt"),
    ]
    assert (tmp_path / "scratch/session/out.txt").read_text() == "42\n"
    assert [call["name"] for call in result.data["tool_calls"]] == ["write_file", "execute_bash"]
    assert [tools for _, tools in steps] == [["write_file"], ["execute_bash"], []]
    assert {request.model for request in llm.requests} == {"chosen"}
    assert {request.context.username for request in llm.requests} == {"alice"}
    assert llm.requests[0].messages[-1].text.strip() == "--help me"


@installed
async def test_wrong_model_answers_end_in_a_result_that_says_what_came_of_them(tmp_path):
    rubbish = [ToolCall("a", "no_such_tool", "{}"), ToolCall("b", "write_file", '{"path": "x')]
    async with started(tmp_path) as tool:
        prose = await tool.run(NanocoderArgs(task="write"), context(tmp_path, ScriptedLLM(["Sure, here it is."])))
        mended = await tool.run(NanocoderArgs(task="write"), context(tmp_path, ScriptedLLM([rubbish, "I give up."])))
        empty = await tool.run(NanocoderArgs(task="write"), context(tmp_path, ScriptedLLM(lambda _: "")))

    assert prose.success
    assert "changed no file" in prose.answer
    assert "Sure, here it is." in prose.answer
    assert mended.data["files"] == []
    assert "I give up." in mended.answer
    assert not empty.success
    assert "empty" in empty.error


@installed
async def test_a_backend_that_dies_ends_the_task_with_its_reason_and_keeps_the_files(tmp_path):
    answers = iter([write("half.py", "1\n")])
    dying = ScriptedLLM(lambda _: next(answers, refused()))
    async with started(tmp_path) as tool:
        dead = await tool.run(NanocoderArgs(task="write"), context(tmp_path, ScriptedLLM(lambda _: refused())))
        died = await tool.run(NanocoderArgs(task="write"), context(tmp_path, dying))

    for result in (dead, died):
        assert not result.success
        assert "The model server cannot be reached." in result.error
    assert [file["name"] for file in died.data["files"]] == ["half.py"]


@installed
async def test_a_task_that_takes_too_long_is_stopped_with_all_that_it_started(tmp_path):
    llm = ScriptedLLM([bash("setsid sleep 99 >/dev/null 2>&1 & echo started"), [Pause()]])
    async with started(tmp_path, NANOCODER_TIMEOUT=6) as tool:
        before = descendants()
        began = time.monotonic()
        result = await tool.run(NanocoderArgs(task="wait", timeout=99), context(tmp_path, llm))
        assert 5 < time.monotonic() - began < 40
        assert await are_gone(descendants() - before)
        assert (llm.running, llm.abandoned) == (0, 1)

    assert not result.success
    assert "ran longer than 6 s" in result.error
    assert result.data["exit_code"] == 124


@installed
async def test_a_caller_who_goes_away_leaves_nothing_running_and_no_session_locked(tmp_path):
    llm = ScriptedLLM([[Pause()], "Here I am."])
    async with started(tmp_path) as tool:
        before = descendants()
        task = NanocoderArgs(task="wait")
        call = asyncio.create_task(tool.run(task, context(tmp_path, llm)))
        async with asyncio.timeout(20):
            while not llm.running:
                await asyncio.sleep(0.05)
        with pytest.raises(ToolFailure, match="still running"):
            await tool.run(task, context(tmp_path, llm))
        pids = descendants() - before
        assert pids
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(call, 2)
        assert await are_gone(pids, 2)
        assert llm.running == 0
        assert "Here I am." in (await tool.run(task, context(tmp_path, llm))).answer


@installed
async def test_memory_and_disk_are_bounded(tmp_path):
    hog = "python3 -c \"x = bytearray(900 << 20)\nfor n in range(0, len(x), 4096): x[n] = 1\nprint('all', 'mine')\""
    fill = "for n in 1 2 3; do head -c 40000000 /dev/zero > big$n; done; sleep 3; echo all mine"
    async with started(tmp_path) as tool:
        memory = await tool.run(NanocoderArgs(task="hog"), context(tmp_path, ScriptedLLM([bash(hog), "Done."])))
        disk = await tool.run(
            NanocoderArgs(task="fill"), context(tmp_path, ScriptedLLM([bash(fill), "Done."]), "other")
        )

    assert not any("all mine" in call["result"] for call in memory.data["tool_calls"])
    assert not disk.success
    assert "more than 48 MiB" in disk.error
    assert sum(path.stat().st_size for path in (tmp_path / "scratch/other").rglob("*") if path.is_file()) < 49 << 20


@installed
async def test_closing_in_the_middle_of_a_task_leaves_no_process_file_or_group(tmp_path):
    before = open_files(), descendants()
    llm = ScriptedLLM([[Pause()]])
    async with started(tmp_path) as tool:
        call = asyncio.create_task(tool.run(NanocoderArgs(task="wait"), context(tmp_path, llm)))
        async with asyncio.timeout(20):
            while not llm.running:
                await asyncio.sleep(0.05)
    result = await asyncio.wait_for(call, 10)

    assert not result.success
    assert await eventually(lambda: (open_files(), descendants()) == before)
    assert await asyncio.to_thread(own_groups) == []


@installed
@pytest.mark.parametrize("victim", [min, max])  # the parent of all sandboxes; the latest process of this one
async def test_whichever_process_is_killed_the_task_ends_and_the_next_one_works(tmp_path, victim):
    llm = ScriptedLLM([[Pause()], "Here I am."])
    async with started(tmp_path) as tool:
        call = asyncio.create_task(tool.run(NanocoderArgs(task="wait"), context(tmp_path, llm)))
        async with asyncio.timeout(20):
            while not llm.running:
                await asyncio.sleep(0.05)
        os.kill(victim(descendants()), signal.SIGKILL)
        result = await asyncio.wait_for(call, 10)
        assert not result.success
        assert "The task " in result.error
        assert llm.running == 0
        assert "Here I am." in (await tool.run(NanocoderArgs(task="go on"), context(tmp_path, llm))).answer


async def test_where_nanocoder_is_missing_the_tool_is_off_and_says_how_to_install_it(tmp_path):
    tool = await asyncio.to_thread(Nanocoder, settings(tmp_path), package=tmp_path / "nothing")
    await tool.start()

    assert not tool.status().enabled
    assert "not installed" in tool.status().reason
    assert "start_servers.sh --install-nanocoder" in tool.status().how_to_enable
    with pytest.raises(ToolFailure, match="install-nanocoder"):
        await tool.run(NanocoderArgs(task="write"), context(tmp_path, ScriptedLLM()))
    await tool.close()


@installed
@pytest.mark.parametrize("description", ['{"version": "1.25.2"}', "{", "[]", '{"version": "1.30.0"}'])
def test_an_old_or_broken_nanocoder_is_told_from_a_good_one(tmp_path, description):
    (tmp_path / "package.json").write_text(description)
    if "1.25" in description:
        (tmp_path / "dist").mkdir()
        (tmp_path / "dist/cli.js").touch()
    with pytest.raises(NotInstalled, match="too old" if "1.25" in description else "not installed here"):
        find_installation(tmp_path)


async def test_the_mode_decides_what_the_tool_takes(tmp_path):
    tool = await asyncio.to_thread(make_python_coder, settings(tmp_path))
    assert set(tool.spec.args.model_json_schema()["properties"]) == {"task", "timeout"}
    native = await asyncio.to_thread(make_python_coder, Settings(_env_file=None, DATA_DIR=tmp_path))
    assert "code" in native.spec.args.model_json_schema()["properties"]
