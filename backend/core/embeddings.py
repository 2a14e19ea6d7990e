"""Texts as vectors, for clients: by the embedding model of the tools API, or by a model of the backends."""

import base64
import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace

from backend.core.documents.records import shown_model
from backend.core.errors import BackendUnavailable, BadRequest, ModelNotFound
from backend.core.llm.base import TextEmbedder
from backend.core.llm.catalog import ModelCatalog, nobody_answers, shown_name
from backend.core.tools_api import ToolsApi

TIMEOUT_S = 300.0
STAND_INS = frozenset({"", "default", "text-embedding-ada-002", "text-embedding-3-small", "text-embedding-3-large"})


@dataclass(frozen=True, slots=True)
class Embedded:
    model: str
    vectors: "Sequence[array[float]]"  # of 32-bit floats, one for each text
    tokens: int
    cut: Sequence[int] = ()  # which texts were too long to be read whole


class Embeddings:
    """
    Args:
        own_model: of the tools API; it also stands in for the models of OpenAI that clients have set.
    """

    def __init__(self, tools: ToolsApi, catalog: ModelCatalog, own_model: str) -> None:
        self._tools = tools
        self._catalog = catalog
        self._own_model = shown_model(own_model)
        self._own_names = STAND_INS | {own_model, self._own_model, f"sentence-transformers/{own_model}"}

    async def embed(
        self, username: str, texts: Sequence[str], *, model: str = "", dimensions: int | None = None
    ) -> Embedded:
        """
        Args:
            dimensions: keep so many of each vector, and make it a unit vector again.

        Raises:
            ModelNotFound: nobody has the model.
            BadRequest: the model makes no vectors, or has fewer dimensions.
            Unavailable: who has the model does not answer.
        """
        own = model in self._own_names
        embedded = await (self._embed_here(username, texts) if own else self._embed_by_backend(model, texts))
        if dimensions is None:
            return embedded
        if any(dimensions > len(vector) for vector in embedded.vectors):
            most = min(map(len, embedded.vectors))
            raise BadRequest(f"The model {embedded.model} has {most} dimensions: ask for fewer.", param="dimensions")
        return replace(embedded, vectors=[_shorten(vector, dimensions) for vector in embedded.vectors])

    async def _embed_here(self, username: str, texts: Sequence[str]) -> Embedded:
        path = "/api/tools/rag/embeddings"
        answer = await self._tools.send(username, "POST", path, json={"texts": texts}, timeout_s=TIMEOUT_S)
        numbers = array("f", base64.b64decode(answer["vectors"]))
        size = answer["dimension"]
        vectors = [numbers[start : start + size] for start in range(0, len(numbers), size)]
        return Embedded(self._own_model, vectors, answer["tokens"], answer["cut"])

    async def _embed_by_backend(self, model: str, texts: Sequence[str]) -> Embedded:
        try:
            candidates = await self._catalog.candidates(model)
        except ModelNotFound:
            hint = f"This server's own embedding model is {self._own_model}; GET /v1/models lists the others."
            raise ModelNotFound(shown_name(model), hint) from None
        failures: dict[str, str] = {}
        for backend, name in [(candidate.backend, candidate.model_name) for candidate in candidates]:
            if not isinstance(backend, TextEmbedder):
                continue
            try:
                embedding = await backend.embed(name, texts)
            except BackendUnavailable as error:
                failures[backend.name] = error.message
                continue
            return Embedded(name, [array("f", vector) for vector in embedding.vectors], embedding.tokens)
        raise nobody_answers(failures, retry_after_s=5)


def _shorten(vector: "array[float]", dimensions: int) -> "array[float]":
    kept = vector[:dimensions]
    length = math.sqrt(sum(number * number for number in kept)) or 1.0
    return array("f", (number / length for number in kept))
