"""A model in a process of its own (`embedding_worker.py`), which is replaced when it crashes or hangs."""

import asyncio
import contextlib
import itertools
import json
import logging
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from backend.core.errors import Unavailable

from .embedding_worker import HEAD
from .model_files import ModelMissing

ROOT = Path(__file__).parents[2]
MAX_THREADS = 8
START_TIMEOUT_S = 300.0  # a model may have to be fetched first
RESTART_PAUSE_S = 5.0  # behind a process that did not even start

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ModelInfo:
    name: str  # as it is set, e.g. all-MiniLM-L6-v2
    fingerprint: str  # of the weights: vectors of models that differ in it cannot be compared
    dimension: int
    window: int  # tokens that it reads of a text, its own marks included
    tokenizer: Path


class ServedModel:
    """What is the same for each such model: its process, from the first start to the last.

    Raises (from whatever asks the model):
        Unavailable: it is not ready, it broke down, or it took too long.
    """

    kind: ClassVar[str]  # what it is called in sentences
    options: ClassVar[tuple[str, ...]] = ()  # of the process

    def __init__(self, model: str, *, threads: int | None = None) -> None:
        self._model = model
        self._threads = threads or min(os.cpu_count() or 1, MAX_THREADS)
        self._starting: asyncio.Task[ModelProcess] | None = None
        self._process: ModelProcess | None = None
        self._info: ModelInfo | None = None
        self._failed_at = float("-inf")
        self._closed = False

    async def start(self) -> None:
        """Start the process and load the model.

        Raises:
            ModelMissing: with a sentence that says what is needed.
            Unavailable: it did not come up.
        """
        await self._find_process()

    async def close(self) -> None:
        self._closed = True
        if self._starting:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        if self._process:
            await self._process.close()

    @property
    def is_ready(self) -> bool:
        return self._process is not None and self._process.alive

    def _broken(self) -> Unavailable:
        return Unavailable(
            f"The {self.kind} model broke down. Try again; if it happens again, tell whoever runs the server.",
            retry_after_s=RESTART_PAUSE_S,
        )

    async def _ask(self, asked: dict[str, Any], timeout_s: float) -> tuple[dict[str, Any], bytes]:
        async with asyncio.timeout(timeout_s):
            process = await self._find_process()
        try:
            async with asyncio.timeout(timeout_s):
                return await process.ask(asked)
        except TimeoutError:
            process.kill()  # it hangs: whoever asks next gets another one
            raise

    async def _find_process(self) -> "ModelProcess":
        """The process that runs, or a new one: the same for all who ask, also when one of them leaves."""
        if self._process and self._process.alive:
            return self._process
        return await asyncio.shield(self._begin())

    def _begin(self) -> "asyncio.Task[ModelProcess]":
        """Have a process started, if that is not under way."""
        if self._closed:
            raise Unavailable("The server is stopping.")
        if self._starting is None or self._starting.done():
            if time.monotonic() - self._failed_at < RESTART_PAUSE_S:
                raise self._broken()
            self._starting = asyncio.create_task(self._start_process())
        return self._starting

    async def _start_process(self) -> "ModelProcess":
        if self._process:
            log.warning("rag: the process of the %s model has ended: starting another one", self.kind)
            await self._process.close()
        try:
            self._process = await ModelProcess.start(self._model, self._threads, self.kind, self.options)
        except BaseException:
            self._failed_at = time.monotonic()
            raise
        self._info = self._process.info
        return self._process


@contextlib.asynccontextmanager
async def place_in(places: asyncio.Semaphore, timeout_s: float) -> AsyncIterator[None]:
    async with asyncio.timeout(timeout_s):
        await places.acquire()
    try:
        yield
    finally:
        places.release()


class ProcessEnded(Exception):
    """The process crashed, or was killed because it hung."""


class ModelFailed(Exception):
    """The model fails on these texts."""


class ModelProcess:
    """One process of the model, and who waits for it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin
        assert process.stdout
        self._process = process
        self._input, self._output = process.stdin, process.stdout
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[tuple[dict[str, Any], bytes]]] = {}
        self._listener: asyncio.Task[None] | None = None
        self.info: ModelInfo

    @classmethod
    async def start(cls, model: str, threads: int, kind: str, options: Sequence[str]) -> "ModelProcess":
        """
        Raises:
            ModelMissing, Unavailable
        """
        command = [sys.executable, "-m", "tools.rag.embedding_worker", model, str(threads), *options]
        pipe = asyncio.subprocess.PIPE
        process = cls(await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdin=pipe, stdout=pipe))
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                ready, _ = await process._read_frame()
        except (TimeoutError, asyncio.IncompleteReadError) as error:
            await process.close()
            raise Unavailable(f"The {kind} model did not start. Tell whoever runs the server.") from error
        except BaseException:
            await process.close()
            raise
        if "missing" in ready:
            await process.close()
            raise ModelMissing(ready["missing"])
        tokenizer = Path(ready.pop("tokenizer"))
        process.info = ModelInfo(model, tokenizer=tokenizer, **ready)
        process._listener = asyncio.create_task(process._listen())
        return process

    @property
    def alive(self) -> bool:
        return self._process.returncode is None and self._listener is not None and not self._listener.done()

    async def ask(self, asked: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """Hand in a request, and wait for its answer. When nobody waits any more and it has not begun, it never will.

        Raises:
            ProcessEnded
            ModelFailed
        """
        number = next(self._numbers)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            self._write(asked | {"id": number})
            await self._input.drain()
            head, body = await answer
        except asyncio.CancelledError:
            self._write({"lane": asked["lane"], "drop": number})
            raise
        except OSError as error:
            raise ProcessEnded from error
        finally:
            self._asked.pop(number, None)
        if "error" in head:
            raise ModelFailed(head["error"])
        return head, body

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def close(self) -> None:
        self.kill()
        if self._listener:
            self._listener.cancel()
            await asyncio.gather(self._listener, return_exceptions=True)
        await self._process.wait()
        self._input.close()

    def _write(self, head: dict[str, Any]) -> None:
        text = json.dumps(head).encode()
        self._input.write(HEAD.pack(len(text), 0) + text)

    async def _listen(self) -> None:
        try:
            while True:
                head, body = await self._read_frame()
                answer = self._asked.get(head["id"])
                if answer and not answer.done():
                    answer.set_result((head, body))
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            for answer in self._asked.values():
                if not answer.done():
                    answer.set_exception(ProcessEnded())

    async def _read_frame(self) -> tuple[dict[str, Any], bytes]:
        head_size, body_size = HEAD.unpack(await self._output.readexactly(HEAD.size))
        return json.loads(await self._output.readexactly(head_size)), await self._output.readexactly(body_size)
