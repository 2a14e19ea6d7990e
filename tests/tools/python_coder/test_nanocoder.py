"""The nanocoder mode: the real agent in its real sandbox, steered by a scripted model."""

import asyncio
import json
import os
import time
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from backend.core.contracts import ToolContext, ToolFailure, no_progress
from backend.core.messages import ToolCall
from config import Settings
from tests.support.scripted import Pause, ScriptedLLM, refused
from tests.tools.python_coder.machine import are_gone, descendants, open_files, own_groups
from tools.python_coder.args import NanocoderArgs
from tools.python_coder.nanocoder import Nanocoder
from tools.python_coder.nanocoder_install import HOW_TO_INSTALL, NotInstalled, find_installation
from tools.python_coder.tool import make_python_coder

SECRET = "swordfish-51b0"


def is_installed() -> bool:
    try:
        return bool(find_installation())
    except NotInstalled:
        return False


installed = pytest.mark.skipif(not is_installed(), reason=HOW_TO_INSTALL)


def settings(data_dir: Path, **values) -> Settings:
    values = {"PYTHON_MEMORY_MB": 512, "PYTHON_DISK_MB": 48, "NANOCODER_TIMEOUT": 60, **values}
    return Settings(_env_file=None, DATA_DIR=data_dir, PYTHON_EXECUTOR_MODE="nanocoder", **values)


@asynccontextmanager
async def started(data_dir: Path, **values):
    tool = await asyncio.to_thread(make_python_coder, settings(data_dir, **values))
    try:
        await tool.start()
        assert tool.status().enabled, tool.status()
        yield tool
    finally:
        await tool.close()


def context(data_dir: Path, llm: ScriptedLLM, session: str = "session", progress=no_progress) -> ToolContext:
    return ToolContext("alice", session, "request", data_dir / "scratch" / session, progress, llm=llm, model="chosen")


def write(path: str, content: str) -> list[ToolCall]:
    return [ToolCall(f"write_{path}", "write_file", json.dumps({"path": path, "content": content}))]


def bash(command: str) -> list[ToolCall]:
    return [ToolCall(f"bash_{abs(hash(command))}", "execute_bash", json.dumps({"command": command}))]


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
        assert 5 < time.monotonic() - began < 12
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
    await asyncio.sleep(0.1)

    assert not result.success
    assert (open_files(), descendants()) == before
    assert await asyncio.to_thread(own_groups) == []


ATTACKS = {
    "TCP to a server of the machine": "s.create_connection(('127.0.0.1', PORT), 2)",
    "TCP over IPv6": "s.create_connection(('::1', PORT), 2)",
    "TCP to elsewhere": "s.create_connection(('192.0.2.1', 80), 2)",
    "UDP": "s.socket(s.AF_INET, s.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', PORT))",
    "DNS": "s.getaddrinfo('example.com', 80)",
    "a Unix socket": "s.socket(s.AF_UNIX).connect(UNIX)",
    "an abstract Unix socket": "s.socket(s.AF_UNIX)",
    "a raw socket": "s.socket(s.AF_INET, s.SOCK_RAW, 1)",
    "netlink": "s.socket(s.AF_NETLINK, s.SOCK_RAW, 0)",
    "listening": "s.socket().bind(('127.0.0.1', 4000))",
    "the database": "open(DATA + '/app.db').read()",
    "the secret": "open(DATA + '/jwt_secret').read()",
    "another session": "open(DATA + '/scratch/victim/notes').read()",
    "another session beside": "open('../victim/notes').read()",
    "the scratch folder": "open('/scratch/victim/notes').read()",
    "the server's settings": "open(ROOT + '/config.py').read()",
    "the server's environment": "open(f'/proc/{SERVER}/environ').read()",
    "process 1's memory": "open('/proc/1/mem', 'rb').read(1)",
    "passwords": "open('/etc/shadow').read()",
    "writing outside": "open('/outside', 'w')",
    "writing to Python": "open(os.__file__, 'a')",
    "writing to node": "open(NODE, 'a')",
    "a signal to the server": "os.kill(SERVER, 0)",
    "a namespace": "check(libc.unshare(0x10000000))",
    "ptrace": "check(libc.ptrace(0, 0, 0, 0))",
    "a mount": "check(libc.mount(b'none', b'/tmp', b'tmpfs', 0, None))",
    "keys": "check(libc.syscall(250, 0, 0, 0, 0, 0))",
    "bpf": "check(libc.syscall(321, 0, 0, 0))",
    "io_uring": "check(libc.syscall(425, 1, 0))",
    "perf events": "check(libc.syscall(298, 0, 0, 0, 0, 0))",
    "root": "os.setuid(0)",
}
ROUTES = (
    "GET /health",
    "GET /v1/models",
    "GET /api/auth/me",
    "GET /metrics",
    "POST /api/tools/websearch",
    "POST /v1/x",
)


@installed
async def test_nothing_but_the_model_is_within_reach_of_what_runs_in_there(tmp_path):
    for name in ("app.db", "jwt_secret", "scratch/victim/notes"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(SECRET)
    reached = []
    node = (await asyncio.to_thread(find_installation)).node

    def note(_reader, writer) -> None:
        reached.append(writer.get_extra_info("peername"))
        writer.close()

    server = await asyncio.start_server(note, ["127.0.0.1", "::1"], 0)
    unix = await asyncio.start_unix_server(note, tmp_path / "scratch/victim/socket")
    values = {
        "PORT": server.sockets[0].getsockname()[1],
        "UNIX": str(tmp_path / "scratch/victim/socket"),
        "DATA": str(tmp_path),
        "ROOT": str(Path(__file__).parents[3]),
        "SERVER": os.getpid(),
        "NODE": str(node),
    }
    script = f"""
import ctypes, os, socket as s
libc = ctypes.CDLL(None, use_errno=True)
def check(result):
    if result < 0: raise OSError(ctypes.get_errno(), "refused")
globals().update({values!r})
for name, attack in {ATTACKS!r}.items():
    try:
        exec(attack)
        print("GOT", name)
    except OSError:
        print("held", name)
from http.client import HTTPConnection
for route in {ROUTES!r}:
    method, path = route.split()
    gateway = HTTPConnection("127.0.0.1", 18090, timeout=5)
    gateway.request(method, path, "{{}}" if method == "POST" else None)
    status = gateway.getresponse().status
    print("held" if status == 404 else "GOT", route)
print("the", "end")
"""
    llm = ScriptedLLM([write("attack.py", script), bash("python3 attack.py; env"), "Done."])
    async with server, unix, started(tmp_path) as tool:
        result = await tool.run(NanocoderArgs(task="attack"), context(tmp_path, llm))

    shown = llm.requests[-1].messages[-1].text
    assert "the end" in shown, (result, shown)
    assert [line for line in shown.splitlines() if line.startswith("GOT")] == []
    assert shown.count("held ") == len(ATTACKS) + len(ROUTES)
    assert SECRET not in shown
    assert not any(word in shown for word in ("JWT", "TOKEN", "API_KEY"))
    assert reached == []


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
