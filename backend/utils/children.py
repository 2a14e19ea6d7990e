"""Work that blocks, or that reads what strangers wrote, in a process of its own: bounded, and killed when it is over.

    child's stdin = one JSON value ; child's stdout = JSON ; its exit status is 0 if it has done its work

The child has no secrets in its environment. It is killed at its deadline, and as soon as nobody waits for it any more,
with every process that it started.
"""

import asyncio
import math
import os
import signal
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Collection
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import orjson

T = TypeVar("T")

MAX_VALUE_BYTES = 16 * 2**20  # of the one value that `run` returns
MAX_LINE_BYTES = 4 * 2**20
REAP_TIMEOUT_S = 5.0
KEPT_ENVIRONMENT = frozenset({"PATH", "LANG"})


class ChildFailed(Exception):
    """The child was too slow, died, or said what nobody understands."""


class Children:
    """Starts children, so many at once; others wait, within their callers' deadlines.

    Args:
        environment: names of variables that children see besides `KEPT_ENVIRONMENT`.
    """

    def __init__(self, at_once: int, *, environment: Collection[str] = ()) -> None:
        self._places = asyncio.Semaphore(at_once)
        self._environment = KEPT_ENVIRONMENT.union(environment)

    async def run(self, script: Path, value: Any, *, timeout_s: float) -> Any:
        """Return what the script makes of the value.

        Raises:
            ChildFailed: nothing, or not in time.
        """
        patience = _Patience(timeout_s)
        output = bytearray()
        async with self._started(script, value, patience) as stdout:
            while data := await patience.wait(stdout.read(2**16)):
                output += data
                if len(output) > MAX_VALUE_BYTES:
                    raise ChildFailed("it said too much")
        return _parse(output)

    async def stream(
        self, script: Path, value: Any, *, timeout_s: float, value_timeout_s: float, max_bytes: int
    ) -> AsyncGenerator[Any, None]:
        """Yield each line of what the script says, as a JSON value. Closing the generator kills the child.

        Args:
            timeout_s: how long the child may be waited for in all. What the caller does between two values is not
                counted: a child whose words nobody takes has to wait, too.
            value_timeout_s: how long for one value.

        Raises:
            ChildFailed: it died, was too slow, or said more than `max_bytes`.
        """
        patience = _Patience(timeout_s)
        async with self._started(script, value, patience) as stdout:
            while line := await patience.wait(_read_line(stdout), at_most_s=value_timeout_s):
                max_bytes -= len(line)
                if max_bytes < 0:
                    raise ChildFailed("it said too much")
                yield _parse(line)

    @asynccontextmanager
    async def _started(self, script: Path, value: Any, patience: "_Patience") -> AsyncIterator[asyncio.StreamReader]:
        """The output of a child that has been given the value. At its end the child must have ended well."""
        await patience.wait(self._places.acquire())
        try:
            process = await _start(script, self._environment)
            try:
                assert process.stdin
                assert process.stdout
                process.stdin.write(orjson.dumps(value))
                with suppress(ConnectionError):  # a child that is gone: its status tells
                    await patience.wait(process.stdin.drain())
                process.stdin.close()
                yield process.stdout
                await patience.wait(process.wait())
            finally:
                if process.returncode is None:
                    await _kill(process)
        finally:
            self._places.release()
        if process.returncode:
            raise ChildFailed("it died")


class _Patience:
    """A deadline over several waits, which counts nothing but them."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._left_s = timeout_s

    async def wait(self, awaitable: Awaitable[T], *, at_most_s: float = math.inf) -> T:
        """Raises: ChildFailed"""
        began = time.monotonic()
        try:
            async with asyncio.timeout(min(self._left_s, at_most_s)):
                return await awaitable
        except TimeoutError:
            raise ChildFailed(f"it took longer than {min(self._timeout_s, at_most_s):g} s") from None
        finally:
            self._left_s -= time.monotonic() - began


async def _start(script: Path, environment: Collection[str]) -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            str(script),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={name: os.environ[name] for name in environment if name in os.environ},
            start_new_session=True,  # a Ctrl-C at the terminal is for the server, which ends its children itself
            limit=MAX_LINE_BYTES,
        )
    except OSError as error:
        raise ChildFailed(error.strerror or "it could not be started") from None


async def _kill(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    async with asyncio.timeout(REAP_TIMEOUT_S):
        await process.wait()


async def _read_line(stdout: asyncio.StreamReader) -> bytes:
    try:
        return await stdout.readline()
    except ValueError:
        raise ChildFailed("it said too much at once") from None


def _parse(output: bytes | bytearray) -> Any:
    try:
        return orjson.loads(output)
    except ValueError:
        raise ChildFailed("it talks nonsense") from None
