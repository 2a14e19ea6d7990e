"""The embedding model, in a process of its own: texts in, unit vectors out.

One process serves everybody. Queries and bulk have a lane each, and a place in it is given in the order of asking, a
group of texts at a time: two who upload share the processor, and nobody's query waits for either. A process that
crashes or hangs is replaced, and what it was working on is asked of the next one, once.
"""

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
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from backend.core.errors import Unavailable

from .embedding_worker import HEAD
from .model_files import ModelMissing

__all__ = ["Embedded", "Embedder", "ModelInfo", "ModelMissing"]

ROOT = Path(__file__).parents[2]
MAX_THREADS = 8
START_TIMEOUT_S = 300.0  # a model may have to be fetched first
RESTART_PAUSE_S = 5.0  # behind a process that did not even start
GROUP_TEXTS = 64
PLACES = {"query": 2, "bulk": 1}  # groups at the process at once
MAX_WAITING = {"query": 256, "bulk": 64}
TIMEOUT_S = {"query": 30.0, "bulk": 300.0}  # for one group, its wait for a place included
BROKEN = "The embedding model broke down. Try again; if it happens again, tell whoever runs the server."

log = logging.getLogger(__name__)

Vectors = NDArray[np.float32]
Lane = Literal["query", "bulk"]
Prompt = Literal["", "query", "document"]


@dataclass(frozen=True, slots=True)
class ModelInfo:
    name: str  # as it is set, e.g. all-MiniLM-L6-v2
    fingerprint: str  # of the weights: vectors of models that differ in it cannot be compared
    dimension: int
    window: int  # tokens that it reads of a text, its own marks included
    tokenizer: Path


@dataclass(frozen=True, slots=True)
class Embedded:
    vectors: Vectors  # a row for each text, of length 1
    tokens: list[int]  # that the model read of each text
    cut: list[bool]  # which texts were longer than the window


class Embedder:
    """The model named by `RAG_EMBEDDING_MODEL`.

    Raises (from `info` and `embed`):
        Unavailable: it is not ready, it broke down twice on these texts, it took too long, or too many wait.
    """

    def __init__(self, model: str, *, threads: int | None = None) -> None:
        self._model = model
        self._threads = threads or min(os.cpu_count() or 1, MAX_THREADS)
        self._places = {lane: asyncio.Semaphore(number) for lane, number in PLACES.items()}
        self._waiting = dict.fromkeys(PLACES, 0)
        self._starting: asyncio.Task[_Process] | None = None
        self._process: _Process | None = None
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
    def info(self) -> ModelInfo:
        if self._info is None:
            raise Unavailable("The embedding model is not ready yet. Try again shortly.", retry_after_s=5)
        return self._info

    async def embed(self, texts: Sequence[str], *, lane: Lane = "query", prompt: Prompt = "") -> Embedded:
        """Embed texts. More than a few belong into the lane `bulk`.

        Args:
            prompt: what they are, for models that want to be told.
        """
        if self._waiting[lane] >= MAX_WAITING[lane]:
            raise Unavailable("Too many texts wait for the embedding model. Try again shortly.", retry_after_s=5)
        self._waiting[lane] += 1
        try:
            groups = [
                await self._embed_group(list(texts[start : start + GROUP_TEXTS]), lane, prompt)
                for start in range(0, len(texts), GROUP_TEXTS)
            ]
        finally:
            self._waiting[lane] -= 1
        empty = np.empty((0, self.info.dimension), np.float32)
        return Embedded(
            np.concatenate([empty, *(group.vectors for group in groups)]),
            [count for group in groups for count in group.tokens],
            [cut for group in groups for cut in group.cut],
        )

    async def _embed_group(self, texts: list[str], lane: Lane, prompt: Prompt) -> Embedded:
        asked = {"lane": lane, "prompt": prompt, "texts": texts}
        try:
            async with _place(self._places[lane], TIMEOUT_S[lane]):
                try:
                    head, body = await self._ask(asked, TIMEOUT_S[lane])
                except _ProcessEnded:
                    head, body = await self._ask(asked, TIMEOUT_S[lane])
        except _ProcessEnded as error:
            raise Unavailable(BROKEN) from error
        except TimeoutError:
            raise Unavailable("The embedding model takes too long. Try again shortly.", retry_after_s=10) from None
        except ModelMissing as error:
            raise Unavailable(str(error)) from error
        vectors = np.frombuffer(body, np.float32).reshape(len(texts), -1)
        return Embedded(vectors, head["tokens"], head["cut"])

    async def _ask(self, asked: dict[str, Any], timeout_s: float) -> tuple[dict[str, Any], bytes]:
        async with asyncio.timeout(timeout_s):
            process = await self._find_process()
        try:
            async with asyncio.timeout(timeout_s):
                return await process.ask(asked)
        except TimeoutError:
            process.kill()  # it hangs: whoever asks next gets another one
            raise

    async def _find_process(self) -> "_Process":
        """The process that runs, or a new one: the same for all who ask, also when one of them leaves."""
        if self._closed:
            raise Unavailable("The server is stopping.")
        if self._process and self._process.alive:
            return self._process
        if self._starting is None or self._starting.done():
            if time.monotonic() - self._failed_at < RESTART_PAUSE_S:
                raise Unavailable(BROKEN, retry_after_s=RESTART_PAUSE_S)
            self._starting = asyncio.create_task(self._start_process())
        return await asyncio.shield(self._starting)

    async def _start_process(self) -> "_Process":
        if self._process:
            log.warning("rag: the process of the embedding model has ended: starting another one")
            await self._process.close()
        try:
            self._process = await _Process.start(self._model, self._threads)
        except BaseException:
            self._failed_at = time.monotonic()
            raise
        self._info = self._process.info
        return self._process


@contextlib.asynccontextmanager
async def _place(places: asyncio.Semaphore, timeout_s: float) -> AsyncIterator[None]:
    async with asyncio.timeout(timeout_s):
        await places.acquire()
    try:
        yield
    finally:
        places.release()


class _ProcessEnded(Exception):
    """The process crashed, or was killed because it hung."""


class _Process:
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
    async def start(cls, model: str, threads: int) -> "_Process":
        """
        Raises:
            ModelMissing, Unavailable
        """
        command = [sys.executable, "-m", "tools.rag.embedding_worker", model, str(threads)]
        pipe = asyncio.subprocess.PIPE
        process = cls(await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdin=pipe, stdout=pipe))
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                ready, _ = await process._read_frame()
        except (TimeoutError, asyncio.IncompleteReadError) as error:
            await process.close()
            raise Unavailable("The embedding model did not start. Tell whoever runs the server.") from error
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
            _ProcessEnded
            Unavailable: the model fails on these texts.
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
            raise _ProcessEnded from error
        finally:
            self._asked.pop(number, None)
        if "error" in head:
            log.error("rag: the embedding model fails: %s", head["error"])
            raise Unavailable(BROKEN)
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
                    answer.set_exception(_ProcessEnded())

    async def _read_frame(self) -> tuple[dict[str, Any], bytes]:
        head_size, body_size = HEAD.unpack(await self._output.readexactly(HEAD.size))
        return json.loads(await self._output.readexactly(head_size)), await self._output.readexactly(body_size)
