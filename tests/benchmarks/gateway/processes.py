"""The servers of one benchmark run: started on a core of their own, read from /proc, ended without exception."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).resolve().parents[3]
SCRATCH = Path.home() / ".cache" / "llm-api-server-bench"
_CORES = sorted(os.sched_getaffinity(0))
SERVER_CORES = _CORES[:1]
LOAD_CORES = _CORES[1:2] or _CORES[:1]  # the generator and the upstream share one
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_END_S = 10.0


class StartFailed(Exception):
    """A server that cannot take part; its text says why."""


@dataclass(frozen=True)
class Server:
    """A started server. Its figures are those of its whole process tree."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def cpu_s(self) -> float:
        fields = (_stat(pid) for pid in _tree(self.process.pid))
        return sum(int(stat[11]) + int(stat[12]) for stat in fields) / _TICKS_PER_S

    def resident_mib(self) -> float:
        return sum(int(_stat(pid)[21]) for pid in _tree(self.process.pid)) * _PAGE_BYTES / 2**20


class Processes:
    """Starts servers with a folder for their data, made in `parent`; on leaving, ends them all and removes it.

    `parent` is not the system's temporary folder: that may be memory, where storing costs nothing.
    """

    def __init__(self, parent: Path = SCRATCH) -> None:
        self._parent = parent
        self._servers: list[Server] = []

    def __enter__(self) -> Self:
        self._parent.mkdir(parents=True, exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(prefix="run-", dir=self._parent))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for signal_number in (signal.SIGTERM, signal.SIGKILL):
            for server in self._servers:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(server.process.pid, signal_number)
            deadline = time.monotonic() + _END_S
            for server in self._servers:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    server.process.wait(max(0.0, deadline - time.monotonic()))
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, name: str, argv: list[str], port: int, env: Mapping[str, str], cores: list[int]) -> Server:
        """Start a server pinned to `cores`, in a process group of its own, its output in a log file."""
        log = self.folder / f"{name}.log"
        own = os.sched_getaffinity(0)
        os.sched_setaffinity(0, cores)  # inherited by the child and every thread it makes
        try:
            with log.open("wb") as output:
                process = subprocess.Popen(
                    argv,
                    cwd=ROOT,
                    env={**os.environ, **env},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        finally:
            os.sched_setaffinity(0, own)
        server = Server(process, port, log)
        self._servers.append(server)
        return server


def wait_until_ready(server: Server, obstacle: Callable[[], str], seconds: float) -> None:
    """Wait until no `obstacle()` is left, or raise StartFailed with it and the end of the server's log."""
    deadline = time.monotonic() + seconds
    while reason := obstacle():
        code = server.process.poll()
        if code is not None or time.monotonic() > deadline:
            state = f"not ready after {seconds:g} s ({reason})" if code is None else f"ended with {code}"
            raise StartFailed(f"{state}; its last words:\n{server.log.read_text(errors='replace').strip()[-800:]}")
        time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _tree(pid: int) -> list[int]:
    """A process and its descendants."""
    pids = [pid]
    for parent in pids:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                pids += [int(child) for child in children.read_text().split()]
    return pids


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name, which may hold spaces; all zero for a process that has gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return ["0"] * 50
