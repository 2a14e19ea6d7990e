"""The embedding model: texts in, unit vectors out.

One process serves everybody. Queries and bulk have a lane each, and a place in it is given in the order of asking, a
group of texts at a time: two who upload share the processor, and nobody's query waits for either. What a process that
crashed was working on is asked of the next one, once.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from backend.core.errors import Unavailable

from .model_files import ModelMissing
from .model_process import ModelFailed, ModelInfo, ProcessEnded, ServedModel, place_in

__all__ = ["Embedded", "Embedder", "ModelInfo", "ModelMissing"]

GROUP_TEXTS = 64
PLACES = {"query": 2, "bulk": 1}  # groups at the process at once
MAX_WAITING = {"query": 256, "bulk": 64}
TIMEOUT_S = {"query": 30.0, "bulk": 300.0}  # for one group, its wait for a place included

log = logging.getLogger(__name__)

Vectors = NDArray[np.float32]
Lane = Literal["query", "bulk"]
Prompt = Literal["", "query", "document"]


@dataclass(frozen=True, slots=True)
class Embedded:
    vectors: Vectors  # a row for each text, of length 1
    tokens: list[int]  # that the model read of each text
    cut: list[bool]  # which texts were longer than the window


class Embedder(ServedModel):
    """The model named by `RAG_EMBEDDING_MODEL`.

    Raises (from `info` and `embed`):
        Unavailable: it is not ready, it broke down twice on these texts, it took too long, or too many wait.
    """

    kind: ClassVar[str] = "embedding"

    def __init__(self, model: str, *, threads: int | None = None) -> None:
        super().__init__(model, threads=threads)
        self._places = {lane: asyncio.Semaphore(number) for lane, number in PLACES.items()}
        self._waiting = dict.fromkeys(PLACES, 0)

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
        asked: dict[str, Any] = {"lane": lane, "prompt": prompt, "texts": texts}
        try:
            async with place_in(self._places[lane], TIMEOUT_S[lane]):
                try:
                    head, body = await self._ask(asked, TIMEOUT_S[lane])
                except ProcessEnded:
                    head, body = await self._ask(asked, TIMEOUT_S[lane])
        except ProcessEnded as error:
            raise self._broken() from error
        except ModelFailed as error:
            log.error("rag: the embedding model fails: %s", error)
            raise self._broken() from error
        except TimeoutError:
            raise Unavailable("The embedding model takes too long. Try again shortly.", retry_after_s=10) from None
        except ModelMissing as error:
            raise Unavailable(str(error)) from error
        vectors = np.frombuffer(body, np.float32).reshape(len(texts), -1)
        return Embedded(vectors, head["tokens"], head["cut"])
