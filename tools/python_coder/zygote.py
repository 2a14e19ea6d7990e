"""The prepared parent of all interpreters: libraries loaded, one thread, nothing secret in it, never running user code.

It is started with a clean environment and one socket, leaves root and the machine's view (`walls.build_world`), loads
the libraries, and then does what the pool asks, one JSON message a packet:

    pool -> start {id, session} with three descriptors (control, stdout, stderr) | signal {id, number} | kill {id}
            | rest {id}: stop the interpreter and kill what it left running  | wake {id}: let it go on
    here -> ready {loaded, tier} or failed {error}, once; resting {id}; exited {id, status, reason}

While a session is awake it is looked at four times a second: memory, processes and unlinked files over the limit end
it. When the socket closes, this process ends; being process 1 of its namespace it takes every interpreter with it.
"""

import contextlib
import gc
import importlib
import io
import json
import os
import resource
import select
import signal
import socket
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from tools.sandbox import linux, walls
from tools.sandbox.processes import count_own_threads, find_family, mapped_memory, measure, private_memory, scan

from . import display, nanocoder_session, session

WATCH_S = 0.25
MEMORY_SLACK_MB = 64  # so that one process meets its own limit first, and a MemoryError with it
SWEEP_ROUNDS = 100
FORK_WAIT_S = 10


@dataclass(slots=True)
class Interpreter:
    pid: int
    awake: bool = True
    reason: str = ""  # why we killed it


class Zygote:
    def __init__(self, control: socket.socket, plan: walls.Plan) -> None:
        self.control = control
        self.plan = plan
        self.interpreters: dict[int, Interpreter] = {}
        self.own_memory = private_memory(os.getpid())
        self.wake_r, self.wake_w = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def serve(self) -> None:
        """Do what is asked until the socket closes."""
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self.wake_w, warn_on_full_buffer=False)
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        poll.register(self.wake_r, select.POLLIN)
        next_look = 0.0
        while True:
            awake = any(interpreter.awake for interpreter in self.interpreters.values())
            ready = dict(poll.poll(WATCH_S * 1000 if awake else None))
            if self.wake_r in ready:
                os.read(self.wake_r, 4096)
            self._reap()
            if self.control.fileno() in ready and not self._receive():
                return
            if awake and time.monotonic() >= next_look:
                self._watch()
                next_look = time.monotonic() + WATCH_S

    def _receive(self) -> bool:
        data, fds, _, _ = socket.recv_fds(self.control, 65536, 3)
        if not data:
            return False
        message = json.loads(data)
        key = message["id"]
        if message["do"] == "start":
            self._start(key, message["session"], fds)
            for fd in fds:
                os.close(fd)
        elif interpreter := self.interpreters.get(key):
            match message["do"]:
                case "signal":
                    os.kill(interpreter.pid, message["number"])
                case "kill":
                    self._kill(interpreter)
                case "rest":
                    interpreter.awake = False
                    os.kill(interpreter.pid, signal.SIGSTOP)
                    self._sweep(interpreter)
                    self._tell("resting", id=key)
                case "wake":
                    interpreter.awake = True
                    os.kill(interpreter.pid, signal.SIGCONT)
        return True

    def _start(self, key: int, name: str, fds: list[int]) -> None:
        """Fork an interpreter. In tier 1 through a short-lived parent, since a pid namespace begins with a fork."""
        report_r, report_w = os.pipe2(os.O_CLOEXEC)
        size, processes = mapped_memory(), 0 if self.plan.tier == 1 else count_own_threads()
        child = os.fork()
        if child == 0:
            self._become_session(name, fds, report_w, size, processes)
        os.close(report_w)
        ready, _, _ = select.select([report_r], [], [], FORK_WAIT_S)
        pid = os.read(report_r, 4) if ready else b""
        os.close(report_r)
        if pid:
            self.interpreters[key] = Interpreter(int.from_bytes(pid, "big"))
        else:
            os.kill(child, signal.SIGKILL)
            self._tell("exited", id=key, status=1, reason="it could not be started")
        if self.plan.tier == 1:
            os.waitpid(child, 0)

    def _become_session(self, name: str, fds: list[int], report: int, size: int, processes: int) -> NoReturn:
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            os.setsid()
            if self.plan.tier == 1:
                walls.enter_session_namespaces()
                if pid := os.fork():
                    os.write(report, pid.to_bytes(4, "big"))
                    os._exit(0)
            else:
                linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)  # what it leaves behind stays in its family
                linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
                os.write(report, os.getpid().to_bytes(4, "big"))
            session.prepare_descriptors(*fds)
            if self.plan.programs:
                nanocoder_session.live(self.plan, name, processes)
            session.live(self.plan, name, size, processes)
        except Exception:  # whatever it is: it must be told before this process ends
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(1)  # never back into the parent's loop

    def _kill(self, interpreter: Interpreter) -> None:
        os.kill(interpreter.pid, signal.SIGSTOP)
        if self.plan.tier > 1:
            self._sweep(interpreter)
        os.kill(interpreter.pid, signal.SIGKILL)  # in tier 1 it is process 1: the kernel ends all the others

    def _sweep(self, interpreter: Interpreter) -> None:
        """Kill all that the stopped interpreter has started. One that forks faster than we kill goes as a whole."""
        killed = {interpreter.pid}
        for _ in range(SWEEP_ROUNDS):
            family = [process.pid for process in find_family(interpreter.pid, scan()) if process.pid not in killed]
            if not family:
                return
            for pid in family:
                _kill_quietly(pid)
            killed.update(family)
        interpreter.reason = "it kept starting processes"
        os.kill(interpreter.pid, signal.SIGKILL)

    def _watch(self) -> None:
        limits = self.plan.limits
        table = scan()
        for interpreter in self.interpreters.values():
            if not interpreter.awake or interpreter.reason:
                continue
            family = find_family(interpreter.pid, table)
            usage = measure(family)
            memory = usage.memory - len(family) * self.own_memory  # each fork shares ours at first
            if memory > limits.memory_mb + MEMORY_SLACK_MB << 20:
                interpreter.reason = f"its processes used more than {limits.memory_mb} MiB of memory"
            elif usage.threads > limits.processes + 4:
                interpreter.reason = f"it ran more than {limits.processes} processes"
            elif usage.unlinked > limits.disk_mb << 20:
                interpreter.reason = f"it held deleted files of more than {limits.disk_mb} MiB open"
            if interpreter.reason:
                self._kill(interpreter)

    def _reap(self) -> None:
        keys = {interpreter.pid: key for key, interpreter in self.interpreters.items()}
        ended: list[tuple[int, int]] = []
        with contextlib.suppress(ChildProcessError):
            while (child := os.waitpid(-1, os.WNOHANG))[0]:
                ended.append(child)
        for pid, status in ended:
            if (key := keys.get(pid)) is not None:
                interpreter = self.interpreters.pop(key)
                self._tell("exited", id=key, status=os.waitstatus_to_exitcode(status), reason=interpreter.reason)
        if ended and self.plan.tier > 1:  # without a namespace, what a dead interpreter has started is now ours
            known = {interpreter.pid for interpreter in self.interpreters.values()}
            for process in scan():
                if process.parent == os.getpid() and process.pid not in known:
                    _kill_quietly(process.pid)

    def _tell(self, event: str, **fields: object) -> None:
        self.control.send(json.dumps({"event": event, **fields}).encode())


def main(control_fd: int) -> None:
    """Become the prepared parent. Returns when the pool has hung up."""
    control = socket.socket(fileno=control_fd)
    os.umask(0o022)  # what we lay out must be readable for whom we become, however careful the server is
    try:
        plan = _read_plan(control)
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # sessions keep descriptors above their own limit
        if plan.tier == 1:
            walls.open_namespaces()
            if child := os.fork():
                control.close()
                _guard(child, plan)
            walls.build_world(plan)
        walls.become_nobody(plan.uid)
        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
        linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)
        loaded = _load_libraries(plan.libraries)
        threads = len(list(Path("/proc/self/task").iterdir()))
        if threads > 1:
            raise RuntimeError(f"the libraries have started {threads - 1} threads: it is not safe to fork")
    except (OSError, RuntimeError, ValueError) as error:
        control.send(json.dumps({"event": "failed", "error": str(error)}).encode())
        return
    _forget_ourselves()
    zygote = Zygote(control, plan)
    control.send(json.dumps({"event": "ready", "loaded": loaded}).encode())
    zygote.serve()


def _read_plan(control: socket.socket) -> walls.Plan:
    fields = json.loads(control.recv(65536))
    limits = walls.Limits(**fields.pop("limits"))
    return walls.Plan(limits=limits, **{name: _frozen(value) for name, value in fields.items()})


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _guard(child: int, plan: walls.Plan) -> NoReturn:
    """Stand outside the namespaces with no more rights than those inside, as the one whom the server can wait for."""
    walls.become_nobody(plan.uid)
    linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF)


def _load_libraries(names: tuple[str, ...]) -> list[str]:
    """Import what most code wants, and use it once, so that no session pays for the first time."""
    loaded: list[str] = []
    for name in names:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
            loaded.append(name)
    pyplot: Any = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:
        pyplot.plot([0, 1])
        pyplot.title("Title")
        pyplot.savefig(io.BytesIO(), format="png", bbox_inches="tight")
        pyplot.close("all")
    display.note_own_saves()
    pandas: Any = sys.modules.get("pandas")
    if pandas is not None:
        pandas.read_csv(io.StringIO("a,b\n1,x\n")).groupby("b").sum().to_csv()
    return loaded


def _forget_ourselves() -> None:
    """Leave users' own modules named like ours free, and keep the collector away from what all forks share."""
    package = __package__.partition(".")[0]
    for name in [name for name in sys.modules if name == package or name.startswith(package + ".")]:
        del sys.modules[name]
    sys.path.pop(0)
    gc.collect()
    gc.freeze()


def _kill_quietly(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
