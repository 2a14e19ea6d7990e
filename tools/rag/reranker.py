"""The re-ranking model: how well passages answer a query, read together with it.

A search never waits for its process to start and is never failed by it: a model that is not there, breaks down or is
slow is an `Unavailable`, and the order that was stands. One that was slow is left alone for a while.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from backend.core.errors import Unavailable

from .model_files import ModelMissing
from .model_process import ModelFailed, ModelProcess, ProcessEnded, ServedModel, place_in

START_WITHIN_S = 20.0  # then searches go on without it, and it goes on starting
PLACES = 2  # queries at the process at once
WAIT_S = 2.0  # for such a place
SCORE_WITHIN_S = 5.0
REST_S = 60.0  # behind a score that took longer

log = logging.getLogger(__name__)


class Reranker(ServedModel):
    """The model named by `RAG_RERANK_MODEL`."""

    kind: ClassVar[str] = "re-ranking"
    options: ClassVar[tuple[str, ...]] = ("--rerank",)

    def __init__(self, model: str, *, threads: int | None = None) -> None:
        super().__init__(model, threads=threads)
        self.missing = ""  # what keeps the model from being used
        self._places = asyncio.Semaphore(PLACES)
        self._rests_until = float("-inf")

    @property
    def state(self) -> str:
        return self.missing or ("ready" if self.is_ready else "not ready")

    async def start(self) -> None:
        """Start the process, and wait a while for it. A model that cannot be used is logged, and told in `missing`."""
        await asyncio.wait({self._begin()}, timeout=START_WITHIN_S)

    async def score(self, query: str, passages: Sequence[str]) -> list[float]:
        """How well each passage answers the query, 0 to 1.

        Raises:
            Unavailable
        """
        if self.missing:
            raise Unavailable(self.missing)
        if time.monotonic() < self._rests_until:
            raise Unavailable("The re-ranking model was too slow and is left alone for a while.")
        if not self.is_ready:
            self._begin()
            raise Unavailable("The re-ranking model is starting.")
        try:
            async with place_in(self._places, WAIT_S):
                _, body = await self._ask({"lane": "query", "query": query, "texts": list(passages)}, SCORE_WITHIN_S)
        except TimeoutError:
            self._rests_until = time.monotonic() + REST_S
            raise Unavailable("The re-ranking model takes too long.") from None
        except (ProcessEnded, ModelFailed, ModelMissing, OSError) as error:
            log.error("rag: the re-ranking model fails: %r", error)
            raise self._broken() from error
        return [float(score) for score in np.frombuffer(body, np.float32)]

    def _begin(self) -> asyncio.Task[ModelProcess]:
        before, task = self._starting, super()._begin()
        if task is not before:
            task.add_done_callback(self._note_start)
        return task

    def _note_start(self, task: asyncio.Task[ModelProcess]) -> None:
        if not task.cancelled() and (error := task.exception()):
            self.missing = str(error) if isinstance(error, ModelMissing) else ""
            log.warning("rag: found passages keep their order: %s", error)
