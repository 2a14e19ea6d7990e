"""One session's interpreter, from the server's side: give it code, hear what it writes, stop it, know how it ended.

What comes over its socket is the word of a process that runs a stranger's code: bounded, checked against the token of
the call, and believed only where a lie would hurt nobody but that stranger. A frame that is wrong ends the interpreter.
"""

import asyncio
import contextlib
import os
import socket
import struct
from dataclasses import dataclass
from typing import Any

from . import frames
from .output import STREAMS, Output
from .zygote_client import Exit, Zygote, ZygoteFailed

START_TIMEOUT_S = 15.0
GRACE_S = 1.5  # between the interrupt and the kill
END_TIMEOUT_S = 5.0
_READ = 65536
_DRAIN_READS = 64
_CREDENTIALS = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class Ending:
    """How a call ended. `stopped` is why we stopped it, `died` how the interpreter ended when it did."""

    exit_code: int = 1
    value: str = ""
    error: str = ""
    stopped: str = ""
    died: Exit | None = None


class Interpreter:
    def __init__(self, zygote: Zygote, session: str) -> None:
        if zygote.lost.is_set():
            raise ZygoteFailed("the prepared parent is gone")
        self._zygote = zygote
        self._loop = asyncio.get_running_loop()
        self._control, theirs = socket.socketpair()
        self._control.setblocking(False)
        self._control.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        pipes = [os.pipe2(os.O_CLOEXEC) for _ in STREAMS]
        self._pipes = {name: ends[0] for name, ends in zip(STREAMS, pipes, strict=True)}
        self._buffer = bytearray()
        self._reply: asyncio.Future[list[bytes]] | None = self._loop.create_future()
        self._output: Output | None = None
        self._calls = 0
        self.at_rest = True  # nothing of it runs
        self.pid = 0  # as the server's own process tree has it
        self._key, listener = zygote.start_interpreter(session, (theirs.fileno(), pipes[0][1], pipes[1][1]))
        self.exited, self._resting = listener.exited, listener.resting
        theirs.close()
        for read_end, write_end in pipes:
            os.close(write_end)
            os.set_blocking(read_end, False)
        self._loop.add_reader(self._control, self._receive)
        for name, fd in self._pipes.items():
            self._loop.add_reader(fd, self._read_output, name)

    @classmethod
    async def start(cls, zygote: Zygote, session: str) -> "Interpreter":
        """Have an interpreter forked and shut in.

        Raises:
            ZygoteFailed: with the reason; nothing is left running.
        """
        interpreter = cls(zygote, session)
        try:
            assert interpreter._reply is not None
            await _first_of(interpreter._reply, interpreter.exited, timeout_s=START_TIMEOUT_S)
            if not interpreter._reply.done():
                ended = interpreter.exited.result() if interpreter.exited.done() else Exit(0, "it did not answer")
                raise ZygoteFailed(ended.reason or f"it ended before it was ready, with status {ended.status}")
            _, word, reason_text = interpreter._reply.result()
            if word != b"ready":
                raise ZygoteFailed(reason_text.decode(errors="replace"))
        except BaseException:
            await interpreter.close()
            raise
        return interpreter

    @property
    def alive(self) -> bool:
        return not self.exited.done()

    async def run(self, code: str, timeout_s: float, output: Output, stop: asyncio.Future[str]) -> Ending:
        """Run code for so long at most, or until `stop` says why not. Nothing of it runs on when this returns."""
        self._calls += 1
        self.at_rest = False
        token = os.urandom(16).hex().encode()
        self._output, self._reply = output, self._loop.create_future()
        self._zygote.wake(self._key)
        request = frames.pack(token, str(self._calls).encode(), code.encode("utf-8", "surrogatepass"))
        sending = asyncio.create_task(self._loop.sock_sendall(self._control, request))
        try:
            await _first_of(self._reply, self.exited, stop, output.full, timeout_s=timeout_s)
            stopped = self._why_stopped(timeout_s, output, stop)
            if stopped:
                self._zygote.interrupt(self._key)
                await _first_of(self._reply, self.exited, timeout_s=GRACE_S)
            ending = await self._settle(token, stopped)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            self._reply = None
        self._drain()
        self._output = None
        return ending

    def _why_stopped(self, timeout_s: float, output: Output, stop: asyncio.Future[str]) -> str:
        if (self._reply is not None and self._reply.done()) or self.exited.done():
            return ""
        if stop.done():
            return stop.result()
        return "it wrote too much" if output.full.done() else f"it ran longer than {timeout_s:.3g} s"

    async def _settle(self, token: bytes, stopped: str) -> Ending:
        """Hold the interpreter still, or end it where it did not answer as it should."""
        assert self._reply is not None
        if self._reply.done():
            echoed, code, value, error = self._reply.result()
            if echoed == token and code.isdigit():
                self._zygote.rest(self._key)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(END_TIMEOUT_S):
                        await self._resting.wait()
                if self._resting.is_set():
                    self.at_rest = True
                    died = self.exited.result() if self.exited.done() else None
                    return Ending(int(code) & 0xFF, _text(value), _text(error), stopped, died)
            else:
                stopped = "it broke the interpreter's own protocol"
        await self.kill()
        return Ending(stopped=stopped, died=self.exited.result())

    async def kill(self) -> None:
        """End every process of the session, and return when they are gone."""
        if not self.exited.done():
            self._zygote.kill(self._key)
            await asyncio.wait({self.exited}, timeout=END_TIMEOUT_S)
        if not self.exited.done():
            await self._zygote.close()  # it does not do its work any more; this ends all its interpreters

    async def close(self) -> None:
        try:
            await self.kill()
        finally:
            self._loop.remove_reader(self._control)
            self._control.close()
            for fd in self._pipes.values():
                self._loop.remove_reader(fd)
                os.close(fd)
            self._pipes = {}

    def _receive(self) -> None:
        try:
            data, ancillary, _, _ = self._control.recvmsg(_READ, socket.CMSG_SPACE(_CREDENTIALS.size))
        except BlockingIOError:
            return
        except OSError:
            data, ancillary = b"", []
        if not data:
            self._loop.remove_reader(self._control)
            return
        for _, kind, value in ancillary:
            if kind == socket.SCM_CREDENTIALS and not self.pid:
                self.pid = _CREDENTIALS.unpack(value[: _CREDENTIALS.size])[0]
        self._buffer += data
        try:
            self._take_frame()
        except frames.BadFrame:
            self._buffer.clear()
            self._loop.remove_reader(self._control)
            self._zygote.kill(self._key)

    def _take_frame(self) -> None:
        if len(self._buffer) < frames.HEADER:
            return
        end = frames.HEADER + frames.frame_length(bytes(self._buffer[: frames.HEADER]))
        if len(self._buffer) < end:
            return
        if self._reply is None or self._reply.done() or len(self._buffer) > end:
            raise frames.BadFrame("a frame that nobody asked for")
        self._reply.set_result(frames.unpack(bytes(self._buffer[frames.HEADER : end]), 4 if self._calls else 3))
        self._buffer.clear()

    def _read_output(self, name: str) -> bool:
        """One read; false when there is no more for now."""
        fd = self._pipes[name]
        try:
            data = os.read(fd, _READ)
        except BlockingIOError:
            return False
        if not data:
            self._loop.remove_reader(fd)
            return False
        if self._output is not None:
            self._output.feed(name, data)
        return True

    def _drain(self) -> None:
        """Take what was written before the end: a reply may overtake it. Bounded: a pipe holds no more."""
        for name in self._pipes:
            for _ in range(_DRAIN_READS):
                if not self._read_output(name):
                    break


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


async def _first_of(*futures: asyncio.Future[Any], timeout_s: float) -> None:
    await asyncio.wait(futures, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
