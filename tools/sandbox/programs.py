"""One program behind walls, from the server's side: it is started, bounded, and ended with all that it has started.

It sees the system and Python, read-only, and no network; it can write one folder, which it sees as `/workspace`, and a
`/tmp` of its own. It takes tier 1: where the kernel has no namespaces for us, there is `NoWalls` and no weaker way.
"""

import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from backend.utils.paths import remove_tree

from .launch import NO_WALLS
from .processes import find_family, private_memory, scan
from .walls import Limits, Plan, default_uid

log = logging.getLogger(__name__)

WATCH_S = 0.2
END_TIMEOUT_S = 5.0
MAX_OUTPUT = 16_384  # the last of what it says
_ROOT = Path(__file__).parents[2]
_BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from tools.sandbox import launch; launch.main()"


class NoWalls(Exception):
    """Programs cannot be shut in on this machine: the reason."""


@dataclass(frozen=True, slots=True)
class Command:
    argv: tuple[str, ...]
    folder: Path  # absolute, and made by `work_folder`
    limits: Limits
    timeout_s: float
    env: dict[str, str] = field(default_factory=dict)
    visible: tuple[str, ...] = ()  # what it has to see besides the system
    hidden: tuple[str, ...] = ()  # what it must not, should it lie below the system's folders


@dataclass(frozen=True, slots=True)
class Ending:
    exit_code: int
    output: str
    stopped: str = ""  # why we ended it, if we did


@contextlib.asynccontextmanager
async def work_folder(base: Path) -> AsyncIterator[Path]:
    """A new folder below `base` that a program may write; gone in the end, with all that is in it."""
    folder = base / secrets.token_hex(8)
    await asyncio.to_thread(_make, folder)
    try:
        yield folder
    finally:
        await asyncio.to_thread(remove_tree, folder)


async def run_program(command: Command) -> Ending:
    """Run it to its end. When this returns, or is cancelled, no process of it is left.

    Raises:
        NoWalls
    """
    folder = command.folder
    plan = Plan(
        tier=1,
        scratch=str(folder.parent),
        hidden=(str(_ROOT), *command.hidden),
        uid=default_uid(),
        limits=command.limits,
        libraries=(),
        visible=command.visible,
        desktop=True,
    )
    request = {"plan": dataclasses.asdict(plan), "session": folder.name, "argv": command.argv, "env": command.env}
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-c", _BOOT, str(_ROOT)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={"LANG": "C.UTF-8"},
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        raise NoWalls(f"Python could not be started: {error.strerror}") from error
    output = bytearray()
    reader = asyncio.create_task(_read(process, output))
    try:
        stopped = await _attend(process, json.dumps(request).encode(), command, reader)
    finally:
        await _end(process, reader)
    text = output.decode(errors="replace").strip()
    if process.returncode == NO_WALLS and not stopped:
        raise NoWalls(text or "the sandbox does not start")
    return Ending(process.returncode or 0, text, stopped)


async def _attend(
    process: asyncio.subprocess.Process, request: bytes, command: Command, reader: "asyncio.Task[None]"
) -> str:
    """Wait for the end of the program, or for a bound that it breaks: which one."""
    assert process.stdin
    try:
        async with asyncio.timeout(command.timeout_s):
            with contextlib.suppress(ConnectionError):  # it is gone: its status tells
                process.stdin.write(request)
                await process.stdin.drain()
            process.stdin.close()
            while not (await asyncio.wait({reader}, timeout=WATCH_S))[0]:
                if await asyncio.to_thread(_memory, process.pid) > command.limits.memory_mb << 20:
                    return f"it used more than {command.limits.memory_mb} MiB of memory"
            await process.wait()
    except TimeoutError:
        return f"it took longer than {command.timeout_s:g} s"
    return ""


async def _end(process: asyncio.subprocess.Process, reader: "asyncio.Task[None]") -> None:
    """Kill what is left. The end of the output is the end of the last process that could write it."""
    if process.returncode is None or not reader.done():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        done, _ = await asyncio.wait({reader, asyncio.create_task(process.wait())}, timeout=END_TIMEOUT_S)
        if reader not in done:
            log.error("sandbox: a program did not end within %g s", END_TIMEOUT_S)
            reader.cancel()


async def _read(process: asyncio.subprocess.Process, output: bytearray) -> None:
    assert process.stdout
    while data := await process.stdout.read(2**16):
        output += data
        del output[:-MAX_OUTPUT]


def _make(folder: Path) -> None:
    """Whom a program runs as may pass through the base, and not look around there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.parent.chmod(0o711 if os.geteuid() != default_uid() else 0o700)
    folder.mkdir(mode=0o700)
    if os.geteuid() != default_uid():
        os.chown(folder, default_uid(), default_uid())


def _memory(pid: int) -> int:
    used = 0
    for process in find_family(pid, scan()):
        with contextlib.suppress(OSError):  # it ended while we looked
            used += private_memory(process.pid)
    return used
