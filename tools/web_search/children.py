"""Work that blocks, or that reads what strangers wrote, in a process of its own: bounded, and killed when it is over.

    child's stdin = one JSON value ; child's stdout = one JSON value ; its exit status is 0 if it has done its work

The child has no secrets in its environment. It is killed at its deadline, and as soon as nobody waits for it any more.
"""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import orjson

MAX_OUTPUT_BYTES = 16 * 2**20
MAX_AT_ONCE = 4  # children of this process; others wait, within their callers' deadlines
REAP_TIMEOUT_S = 5.0
KEPT_ENVIRONMENT = ("PATH", "LANG", "HTTP_PROXY", "HTTPS_PROXY", "DDGS_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")

_FOLDER = Path(__file__).parent


class ChildFailed(Exception):
    """The child was too slow, died, or said what nobody understands."""


class Children:
    def __init__(self) -> None:
        self._places = asyncio.Semaphore(MAX_AT_ONCE)

    async def run(self, script: str, value: Any, *, timeout_s: float) -> Any:
        """Return what the script of this folder makes of the value.

        Raises:
            ChildFailed: nothing, or not in time.
        """
        try:
            async with asyncio.timeout(timeout_s), self._places:
                output = await _run(_FOLDER / script, orjson.dumps(value))
        except TimeoutError:
            raise ChildFailed(f"it took longer than {timeout_s:g} s") from None
        except OSError as error:
            raise ChildFailed(error.strerror or "it could not be started") from None
        try:
            return orjson.loads(output)
        except ValueError:
            raise ChildFailed("it died") from None


async def _run(script: Path, given: bytes) -> bytes:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        str(script),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ},
        start_new_session=True,  # a Ctrl-C at the terminal is for the server, which ends its children itself
    )
    try:
        output = await _converse(process, given)
    finally:
        if process.returncode is None:
            process.kill()
            async with asyncio.timeout(REAP_TIMEOUT_S):
                await process.wait()
    if process.returncode:
        raise ChildFailed("it died")
    return output


async def _converse(process: asyncio.subprocess.Process, given: bytes) -> bytes:
    """Say it all, then hear it all, and wait for the end."""
    assert process.stdin
    assert process.stdout
    process.stdin.write(given)
    await process.stdin.drain()
    process.stdin.close()
    output = bytearray()
    while data := await process.stdout.read(2**16):
        output += data
        if len(output) > MAX_OUTPUT_BYTES:
            raise ChildFailed("it said too much")
    await process.wait()
    return bytes(output)
