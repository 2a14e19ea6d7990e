"""The server's end of the prepared parent: starts it, asks it for interpreters, hears how they end."""

import asyncio
import contextlib
import dataclasses
import json
import logging
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.sandbox.walls import CACHE, Plan

log = logging.getLogger(__name__)

START_TIMEOUT_S = 60.0  # a cold disk reads the libraries for a while
END_TIMEOUT_S = 5.0
MAX_PACKET = 65536
MAX_STDERR = 65536
HOME = ".home"  # of the prepared parent in the sessions' folder, where it has no file system of its own
_ROOT = Path(__file__).parents[2]
_BOOT = (
    "import sys; sys.path.insert(0, sys.argv[1]); from tools.python_coder import zygote; zygote.main(int(sys.argv[2]))"
)
_ENVIRONMENT = {
    "PATH": f"{sys.prefix}/bin:/usr/local/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "MPLBACKEND": "Agg",
    **{f"{name}_NUM_THREADS": "1" for name in ("OPENBLAS", "OMP", "MKL", "NUMEXPR", "VECLIB_MAXIMUM")},
}


class ZygoteFailed(Exception):
    """The prepared parent could not be started, or is gone."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How an interpreter ended: `status` as `subprocess` has it, `reason` where we ended it ourselves."""

    status: int
    reason: str = ""


class Listener:
    """What the parent says of one interpreter."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[Exit] = loop.create_future()
        self.resting = asyncio.Event()


class Zygote:
    def __init__(self, process: asyncio.subprocess.Process, control: socket.socket) -> None:
        self._process = process
        self._control = control
        self._loop = asyncio.get_running_loop()
        self._listeners: dict[int, Listener] = {}
        self._next_key = 0
        self._first: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._errors = asyncio.create_task(self._log_errors())
        self.loaded: list[str] = []
        self.lost = asyncio.Event()
        self.on_loss: Callable[[], None] = lambda: None
        self._loop.add_reader(control, self._receive)

    @classmethod
    async def start(cls, plan: Plan) -> "Zygote":
        """Start the parent and wait until its libraries are loaded.

        Raises:
            ZygoteFailed: with the reason; nothing is left running.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        cache = CACHE if plan.tier == 1 else f"{plan.scratch}/{HOME}"
        environment = _ENVIRONMENT | {"HOME": cache, "MPLCONFIGDIR": f"{cache}/matplotlib"}
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-c", _BOOT, str(_ROOT), str(theirs.fileno())),
                pass_fds=(theirs.fileno(),),
                env=environment,
                cwd="/",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            raise ZygoteFailed(f"Python could not be started: {error.strerror}") from error
        finally:
            theirs.close()
        zygote = cls(process, ours)
        try:
            ours.send(json.dumps(dataclasses.asdict(plan)).encode())
            async with asyncio.timeout(START_TIMEOUT_S):
                answer = await zygote._first
            if answer["event"] != "ready":
                raise ZygoteFailed(str(answer.get("error", "it ended while it was prepared")))
        except TimeoutError:
            await zygote.close()
            raise ZygoteFailed(f"it was not ready after {START_TIMEOUT_S:g} s") from None
        except BaseException:
            await zygote.close()
            raise
        zygote.loaded = answer["loaded"]
        return zygote

    @property
    def pid(self) -> int:
        return self._process.pid

    def start_interpreter(self, session: str, fds: tuple[int, int, int]) -> tuple[int, Listener]:
        """Ask for an interpreter of a session with these descriptors: control, stdout, stderr."""
        self._next_key += 1
        key = self._next_key
        self._listeners[key] = listener = Listener()
        self._tell({"do": "start", "id": key, "session": session}, fds)
        return key, listener

    def interrupt(self, key: int) -> None:
        self._tell({"do": "signal", "id": key, "number": int(signal.SIGINT)})

    def kill(self, key: int) -> None:
        self._tell({"do": "kill", "id": key})

    def rest(self, key: int) -> None:
        if listener := self._listeners.get(key):
            listener.resting.clear()
            self._tell({"do": "rest", "id": key})

    def wake(self, key: int) -> None:
        self._tell({"do": "wake", "id": key})

    async def close(self) -> None:
        """End the parent and with it every interpreter."""
        self._lose()
        try:
            async with asyncio.timeout(END_TIMEOUT_S):
                await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        self._errors.cancel()
        await asyncio.gather(self._errors, return_exceptions=True)

    def _tell(self, message: dict[str, object], fds: tuple[int, ...] = ()) -> None:
        if self.lost.is_set():
            return  # whoever listens has been told
        try:
            socket.send_fds(self._control, [json.dumps(message).encode()], list(fds))
        except OSError as error:  # gone, or so stuck that its queue is full: either way of no use any more
            log.warning("python_coder: the prepared parent does not listen: %s", error)
            self._lose()
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    def _receive(self) -> None:
        while not self.lost.is_set():
            try:
                packet = self._control.recv(MAX_PACKET)
            except BlockingIOError:
                return
            except OSError:
                packet = b""
            if not packet:
                self._lose()
                return
            self._hear(json.loads(packet))

    def _hear(self, message: dict[str, Any]) -> None:
        listener = self._listeners.get(message.get("id", 0))
        match message["event"]:
            case "resting" if listener:
                listener.resting.set()
            case "exited" if listener:
                del self._listeners[message["id"]]
                listener.exited.set_result(Exit(message["status"], message["reason"]))
                listener.resting.set()
            case "ready" | "failed" if not self._first.done():
                self._first.set_result(message)

    def _lose(self) -> None:
        if self.lost.is_set():
            return
        self.lost.set()
        self._loop.remove_reader(self._control)
        self._control.close()
        if not self._first.done():
            self._first.set_result({"event": "failed"})
        for listener in self._listeners.values():
            listener.exited.set_result(Exit(-signal.SIGKILL, "the sandbox was restarted"))
            listener.resting.set()
        self._listeners.clear()
        self.on_loss()

    async def _log_errors(self) -> None:
        assert self._process.stderr is not None
        logged = 0
        while text := await self._process.stderr.read(4096):
            if logged < MAX_STDERR:
                log.warning("python_coder: %s", text.decode(errors="replace").rstrip())
            logged += len(text)
