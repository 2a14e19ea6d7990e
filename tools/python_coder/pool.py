"""Which session has which interpreter: one each, one call at a time, a bounded number of them alive.

An interpreter that is idle for long, or the longest when another session needs its place, is put away; its session's
next call gets a new one and is told why its variables are gone. So is a session whose interpreter died.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tools.sandbox.cgroups import Bounds, ControlGroup, ControlGroups
from tools.sandbox.walls import Plan

from .interpreter_client import Interpreter
from .zygote_client import Zygote, ZygoteFailed

log = logging.getLogger(__name__)

MAX_REMEMBERED = 10_000  # sessions without an interpreter, of which we know that they had one
GROUP_SLACK = 64 << 20  # what a group may hold beyond a session's memory and /tmp: buffers of the kernel


class PoolBusy(Exception):
    """Every interpreter is at work and none became free in time."""


@dataclass(slots=True)
class Seat:
    """A session's place in the pool."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    interpreter: Interpreter | None = None
    group: ControlGroup | None = None
    folder: tuple[int, int] = (0, 0)  # device and inode of the session's folder when the interpreter was made
    used_at: float = 0.0
    gone: str = ""  # why the variables of earlier calls are gone, until the session has been told
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class Lease:
    interpreter: Interpreter
    group: ControlGroup | None
    notice: str  # why the variables of earlier calls are gone, if they are


class Pool:
    def __init__(self, plan: Plan, groups: ControlGroups, max_interpreters: int, idle_s: float) -> None:
        self._plan = plan
        self._groups = groups
        limits = plan.limits
        memory = ((limits.memory_mb + limits.tmp_mb) << 20) + GROUP_SLACK
        self._bounds = Bounds(memory, limits.processes + 8)
        self._max = max_interpreters
        self._idle_s = idle_s
        self._seats: dict[str, Seat] = {}
        self._places_taken = 0
        self._freed = asyncio.Condition()
        self._zygote: Zygote | None = None
        self._zygote_lock = asyncio.Lock()
        self._made = 0
        self._keeper: asyncio.Task[None] | None = None
        self._closed = False

    async def start(self) -> list[str]:
        """Start the prepared parent; returns the libraries it has loaded.

        Raises:
            ZygoteFailed: with the reason.
        """
        await asyncio.to_thread(self._groups.remove_stale)
        zygote = await self._find_zygote()
        self._keeper = asyncio.create_task(self._keep())
        return zygote.loaded

    async def close(self) -> None:
        self._closed = True
        if self._keeper:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        for seat in self._seats.values():
            await self._discard(seat, "")
        async with self._zygote_lock:
            if self._zygote:
                await self._zygote.close()

    @property
    def live(self) -> int:
        return self._places_taken

    @property
    def zygote_pid(self) -> int:
        return self._zygote.pid if self._zygote and not self._zygote.lost.is_set() else 0

    @asynccontextmanager
    async def lease(self, session: str, folder: tuple[int, int], *, reset: bool, wait_s: float) -> AsyncIterator[Lease]:
        """The session's interpreter, for one call.

        Raises:
            PoolBusy: no place became free, or the session's own last call did not end, within `wait_s`.
            ZygoteFailed: the sandbox could not be started.
        """
        deadline = time.monotonic() + wait_s
        seat = self._seats.setdefault(session, Seat())
        seat.waiting += 1
        try:
            await _before(deadline, seat.lock.acquire(), "an earlier call of this session is still running")
        finally:
            seat.waiting -= 1
        try:
            if reset:
                await self._discard(seat, "")
                seat.gone = ""
            elif seat.interpreter and seat.folder != folder:
                await self._discard(seat, "the session's folder was replaced")
            elif seat.interpreter and not seat.interpreter.alive:
                await self._discard(seat, seat.interpreter.exited.result().reason or "the interpreter ended")
            if seat.interpreter is None:
                await self._take_place(deadline)
                await self._seat_interpreter(seat, session, folder)
            assert seat.interpreter is not None
            yield Lease(seat.interpreter, seat.group, seat.gone)
            seat.gone = ""  # it has been told, and so has the end of an interpreter that died in this call
            if not seat.interpreter.alive:
                await self._discard(seat, "")
        finally:
            if seat.interpreter and not seat.interpreter.at_rest:
                await self._discard(seat, "an earlier call broke off")
            seat.used_at = time.monotonic()
            seat.lock.release()
            await self._wake_waiting()
            self._forget()

    async def end(self, session: str) -> None:
        """Forget a session that will not come back."""
        if seat := self._seats.get(session):
            async with seat.lock:
                await self._discard(seat, "")
            self._seats.pop(session, None)
            await self._wake_waiting()

    async def _take_place(self, deadline: float) -> None:
        while self._places_taken >= self._max:
            idle = [seat for seat in self._seats.values() if seat.interpreter and not seat.lock.locked()]
            if idle:
                await self._put_away(min(idle, key=lambda seat: seat.used_at), "other sessions needed its place")
                continue
            async with self._freed:
                await _before(deadline, self._freed.wait(), "every interpreter is busy")
        self._places_taken += 1

    async def _wake_waiting(self) -> None:
        async with self._freed:
            self._freed.notify_all()

    async def _seat_interpreter(self, seat: Seat, session: str, folder: tuple[int, int]) -> None:
        """Give a seat an interpreter, in a control group of its own where there are groups. Its place is taken."""
        interpreter: Interpreter | None = None
        self._made += 1
        group = self._groups.plan(self._made) if self._groups else None
        try:
            interpreter = await Interpreter.start(await self._find_zygote(), session)
            if group:
                await _finish(asyncio.to_thread(group.make, self._bounds, interpreter.pid))
        except BaseException as error:
            self._places_taken -= 1
            if interpreter:
                await interpreter.close()
            if group:
                await asyncio.to_thread(group.remove)
            if isinstance(error, OSError):
                raise ZygoteFailed(f"no control group: {error.strerror}") from error
            raise
        seat.interpreter, seat.group, seat.folder = interpreter, group, folder

    async def _find_zygote(self) -> Zygote:
        async with self._zygote_lock:
            if self._closed:
                raise ZygoteFailed("the server is stopping")
            if self._zygote is None or self._zygote.lost.is_set():
                if self._zygote is not None:
                    await self._zygote.close()
                self._zygote = await Zygote.start(self._plan)
            return self._zygote

    async def _put_away(self, seat: Seat, why: str) -> None:
        async with seat.lock:
            await self._discard(seat, why)

    async def _discard(self, seat: Seat, why: str) -> None:
        """End a seat's interpreter. Its lock is held, or nobody else is left."""
        interpreter, group = seat.interpreter, seat.group
        if interpreter is None:
            return
        seat.interpreter = seat.group = None
        seat.gone = why
        try:
            await interpreter.close()
        finally:
            self._places_taken -= 1
            if group:
                await asyncio.to_thread(group.remove)

    async def _keep(self) -> None:
        """Put away what is idle, and bring the prepared parent back when it was lost."""
        while True:
            await asyncio.sleep(min(5.0, self._idle_s / 4))
            now = time.monotonic()
            for seat in list(self._seats.values()):
                if seat.interpreter and not seat.lock.locked():
                    if not seat.interpreter.alive:
                        await self._put_away(seat, seat.interpreter.exited.result().reason or "the interpreter ended")
                    elif now - seat.used_at > self._idle_s:
                        await self._put_away(seat, "it was idle for long")
            try:
                await self._find_zygote()
            except ZygoteFailed as error:
                log.warning("python_coder: the sandbox does not come back: %s", error)

    def _forget(self) -> None:
        if len(self._seats) > MAX_REMEMBERED:
            for session in [name for name, seat in self._seats.items() if not seat.interpreter and not seat.waiting]:
                if not self._seats[session].lock.locked():
                    del self._seats[session]
                if len(self._seats) <= MAX_REMEMBERED // 2:
                    return


async def _before(deadline: float, waiting: Awaitable[object], what: str) -> None:
    try:
        async with asyncio.timeout(deadline - time.monotonic()):
            await waiting
    except TimeoutError:
        raise PoolBusy(what) from None


async def _finish(work: Awaitable[None]) -> None:
    """Wait for a thread to its end, also when we are cancelled: what it made must be known."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
