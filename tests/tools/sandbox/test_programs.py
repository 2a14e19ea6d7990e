"""Programs behind walls: what they reach, how they are bounded, and that nothing of them stays."""

import asyncio
import os
import sys
import time
from pathlib import Path

import pytest

from tests.tools.python_coder.machine import are_gone, descendants
from tools.sandbox.programs import Command, Ending, run_program, work_folder
from tools.sandbox.walls import Limits


async def run(tmp_path: Path, *argv: str, timeout_s: float = 30, memory_mb: int = 512) -> Ending:
    async with work_folder(tmp_path / "work") as folder:
        ending = await run_program(Command(argv, folder, Limits(memory_mb, 64, 16), timeout_s))
        await asyncio.to_thread(folder.rename, tmp_path / "kept")
        await asyncio.to_thread(folder.mkdir)
        return ending


async def python(tmp_path: Path, code: str, **limits: float) -> Ending:
    return await run(tmp_path, sys.executable, "-I", "-c", code, **limits)  # type: ignore[arg-type]


async def test_a_program_writes_its_folder_and_says_what_it_likes(tmp_path: Path) -> None:
    ending = await python(tmp_path, "open('made', 'w').write('x'); print('hello'); raise SystemExit(3)")
    assert ending == Ending(3, "hello")
    assert (tmp_path / "kept/made").read_text() == "x"


@pytest.mark.parametrize(
    "attempt",
    [
        "open({secret!r}).read()",
        "open('/etc/shadow').read()",
        "open('/usr/made', 'w')",
        "open('../made', 'w')",
        "open('/proc/{pid}/environ').read()",
        "import os; os.kill({pid}, 0)",
        "import socket; socket.create_connection(('127.0.0.1', {port}), timeout=2)",
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {port}))",
        "import os; assert os.environ.get('PATH') or os.getuid() == 0",
    ],
)
async def test_a_program_reaches_nothing_of_the_machine(tmp_path: Path, attempt: str) -> None:
    (tmp_path / "secret").write_text("secret")
    connections: list[asyncio.StreamWriter] = []
    listener = await asyncio.start_server(lambda _, writer: connections.append(writer), "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    code = attempt.format(secret=str(tmp_path / "secret"), pid=os.getpid(), port=port)
    ending = await python(tmp_path, f"{code}\nprint('got out')")
    listener.close()
    assert ending.exit_code == 1, ending.output
    assert "got out" not in ending.output
    assert "Error" in ending.output
    assert not connections


async def test_a_program_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    ending = await python(tmp_path, "import time; print('begun', flush=True); time.sleep(60)", timeout_s=1.5)
    assert ending.stopped == "it took longer than 1.5 s"
    assert await are_gone(descendants())


async def test_a_program_that_takes_too_much_memory_is_ended(tmp_path: Path) -> None:
    ending = await python(tmp_path, "b = bytearray(700 << 20); import time; time.sleep(60)", memory_mb=300)
    assert ending.stopped == "it used more than 300 MiB of memory"


async def test_a_program_that_floods_its_output_is_heard_to_the_end(tmp_path: Path) -> None:
    ending = await python(tmp_path, "print('x' * 5_000_000); print('the end')")
    assert ending.output.endswith("the end")
    assert len(ending.output) <= 16_384


async def test_a_program_that_does_not_exist_is_told_by_its_exit_code(tmp_path: Path) -> None:
    assert (await run(tmp_path, "/usr/bin/no-such-program")).exit_code == 127


async def test_who_goes_away_leaves_no_process_behind(tmp_path: Path) -> None:
    before = descendants()
    script = "import os, time\nfor _ in range(5):\n    if os.fork() == 0: os.setsid(); break\ntime.sleep(60)"
    task = asyncio.create_task(python(tmp_path, script))
    deadline = time.monotonic() + 20
    while len(descendants() - before) < 9 and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    ours = descendants() - before
    assert len(ours) >= 9, "three around it, the first of the session, and six of its own"
    task.cancel()
    began = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - began < 20
    assert await are_gone(ours)
