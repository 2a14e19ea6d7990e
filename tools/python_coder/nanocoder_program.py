"""One program in a session's sandbox, from the server's side: have it started, read what it writes, end it."""

import asyncio
import contextlib
import json
import os
import socket
import struct
from dataclasses import dataclass
from typing import Any

from . import frames
from .nanocoder_session import READY
from .output import STREAMS, Output
from .zygote_client import Exit, Zygote, ZygoteFailed

START_TIMEOUT_S = 15.0
END_TIMEOUT_S = 5.0
_READ = 65536
_CREDENTIALS = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class Command:
    argv: tuple[str, ...]
    env: dict[str, str]
    files: dict[str, str]  # path below the sandbox's own /tmp -> text


class Program:
    """A place in the sandbox, ready for one command."""

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
        self.listener: socket.socket | None = None  # whoever takes it closes it
        self.pid = 0  # as the server's own process tree has it
        self._key, heard = zygote.start_interpreter(session, (theirs.fileno(), pipes[0][1], pipes[1][1]))
        self.exited: asyncio.Future[Exit] = heard.exited
        theirs.close()
        for read_end, write_end in pipes:
            os.close(write_end)
            os.set_blocking(read_end, False)

    @classmethod
    async def start(cls, zygote: Zygote, session: str) -> "Program":
        """Have a place made and shut in.

        Raises:
            ZygoteFailed: with the reason; nothing is left running.
        """
        program = cls(zygote, session)
        heard: asyncio.Future[None] = program._loop.create_future()
        program._loop.add_reader(program._control, _tell, heard)
        try:
            waiting: set[asyncio.Future[Any]] = {heard, program.exited}
            await asyncio.wait(waiting, timeout=START_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
            program._loop.remove_reader(program._control)
            program._take_listener()
        except BaseException:
            program._loop.remove_reader(program._control)
            await program.close()
            raise
        return program

    async def run(self, command: Command, output: Output, stop: asyncio.Future[str], timeout_s: float) -> str:
        """Run the command to its end or until something is against it: returns why it was stopped, if it was.

        Nothing of it runs on when this returns; `exited` tells how it ended.
        """
        body = json.dumps({"argv": command.argv, "env": command.env, "files": command.files}).encode()
        readers = [asyncio.create_task(self._collect(name, output)) for name in STREAMS]
        stopped = ""
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await self._loop.sock_sendall(self._control, len(body).to_bytes(frames.HEADER, "big") + body)
            waiting: set[asyncio.Future[Any]] = {self.exited, stop, output.full}
            await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if not self.exited.done():
                wrote_too_much = "it wrote too much" if output.full.done() else ""
                stopped = stop.result() if stop.done() else wrote_too_much or f"it ran longer than {timeout_s:.3g} s"
            await self.kill()
            await asyncio.wait(readers, timeout=END_TIMEOUT_S)
        except (OSError, TimeoutError) as error:
            raise ZygoteFailed("it does not listen") from error
        finally:
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)
        return stopped

    async def kill(self) -> None:
        """End every process of it, and return when they are gone."""
        if not self.exited.done():
            self._zygote.kill(self._key)
            await asyncio.wait({self.exited}, timeout=END_TIMEOUT_S)
        if not self.exited.done():
            await self._zygote.close()  # it does not do its work any more; this ends all that it has started

    async def close(self) -> None:
        try:
            await self.kill()
        finally:
            self._control.close()
            for fd in self._pipes.values():
                os.close(fd)
            self._pipes = {}
            if self.listener:
                self.listener.close()

    def _take_listener(self) -> None:
        data, ancillary = b"", list[tuple[int, int, bytes]]()
        with contextlib.suppress(OSError):  # silent as yet, or gone
            room = socket.CMSG_SPACE(_CREDENTIALS.size) + socket.CMSG_SPACE(4)
            data, ancillary, _, _ = self._control.recvmsg(_READ, room)
        for _, kind, value in ancillary:
            if kind == socket.SCM_CREDENTIALS:
                self.pid = _CREDENTIALS.unpack(value[: _CREDENTIALS.size])[0]
            elif kind == socket.SCM_RIGHTS:
                self.listener = socket.socket(fileno=int.from_bytes(value[:4], "little"))
        if data != READY or self.listener is None:
            ended = self.exited.result() if self.exited.done() else Exit(0, "it did not answer")
            reason = data.decode(errors="replace") or ended.reason
            raise ZygoteFailed(reason or f"it ended before it was ready, with status {ended.status}")

    async def _collect(self, name: str, output: Output) -> None:
        fd = self._pipes[name]
        readable = asyncio.Event()
        self._loop.add_reader(fd, readable.set)
        try:
            while True:
                await readable.wait()
                readable.clear()
                try:
                    data = os.read(fd, _READ)
                except BlockingIOError:
                    continue
                if not data:
                    return
                output.feed(name, data)
        finally:
            self._loop.remove_reader(fd)


def _tell(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
