"""The embedding model, in a process of its own: texts in, unit vectors out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Lane = Literal["query", "bulk"]


@dataclass(frozen=True, slots=True)
class ModelInfo:
    name: str  # as it is set, e.g. all-MiniLM-L6-v2
    fingerprint: str  # of name and weights: vectors with another one cannot be compared
    dimension: int
    window: int  # tokens that it reads of a text, its own marks included


@dataclass(frozen=True, slots=True)
class Embedded:
    vectors: Vectors  # a row for each text, of length 1
    tokens: list[int]  # that the model read of each text
    cut: list[bool]  # which texts were longer than the window


class Embedder:
    """The model named by `RAG_EMBEDDING_MODEL`.

    Raises (from `info` and `embed`):
        Unavailable: it is not ready in time, it broke down twice on these texts, or too many wait.
    """

    def __init__(self, model: str, *, threads: int | None = None) -> None: ...

    async def start(self) -> None:
        """Start the process and load the model.

        Raises:
            ModelMissing: with a sentence that says what is needed.
        """
        ...

    async def close(self) -> None: ...

    @property
    def info(self) -> ModelInfo: ...

    async def embed(self, texts: Sequence[str], *, lane: Lane = "query") -> Embedded:
        """Embed texts. Those of the lane `query` do not wait for those of `bulk`."""
        ...


class ModelMissing(Exception):
    """The embedding model cannot be loaded: one sentence that says what is needed."""
