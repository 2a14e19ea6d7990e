"""A llama.cpp server, the embedded engine included.

It runs one model, whatever name a request has. What its chat template can do, and its window, are in `/props`; they are
read again with every listing, since a server may come back with another model.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence
from functools import partial
from typing import Any

import aiohttp

from backend.core.errors import ApiError, BackendUnavailable, BadRequest, NotFound
from backend.core.events import BackendEvent
from backend.core.llm.base import Embedding, LLMRequest, ModelInfo
from backend.core.llm.healing import find_healing
from backend.core.llm.http import BackendConnection, StreamedCall, Timeouts
from backend.core.llm.llamacpp_wire import ChatDecoder, chat_body, refusal
from backend.core.llm.raw_wires import CompletionDecoder, completion_body
from backend.core.llm.wire import MALFORMED

LIST_TIMEOUT_S = 3.0
PROPS_TIMEOUT_S = 3.0
EMBED_TIMEOUT_S = 300.0


class LlamaCpp:
    kind = "llamacpp"

    def __init__(
        self,
        session: aiohttp.ClientSession,
        base_url: str,
        *,
        name: str = "llamacpp",
        default_model: str | None = None,
        api_key: str = "",
        timeouts: Timeouts = Timeouts(),  # noqa: B008 - frozen
    ) -> None:
        self.name = name
        self.default_model = default_model
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else None
        self._connection = BackendConnection(session, base_url, name=name, timeouts=timeouts, headers=headers)
        self._props: dict[str, Any] | None = None

    def stream(self, request: LLMRequest) -> AsyncGenerator[BackendEvent, None]:
        path = "/v1/chat/completions" if request.prompt is None else "/v1/completions"
        return self._connection.stream(path, lambda: self._prepare(request))

    async def list_models(self) -> list[ModelInfo]:
        deadline = asyncio.get_running_loop().time() + LIST_TIMEOUT_S
        listed = await self._connection.fetch_json("/v1/models", deadline=deadline, refusal=partial(refusal, model=""))
        self._props = props = await self._fetch_props(deadline)
        try:
            return [self._info(model, props) for model in listed["data"]]
        except MALFORMED as error:
            raise self._not_llamacpp() from error

    async def continues(self, model: str) -> bool:
        return True

    async def embed(self, model: str, texts: Sequence[str]) -> Embedding:
        deadline = asyncio.get_running_loop().time() + EMBED_TIMEOUT_S
        body = {"model": model, "input": list(texts), "encoding_format": "float"}
        told = partial(refusal, model=model)
        answer = await self._connection.fetch_json("/v1/embeddings", body, deadline=deadline, refusal=told)
        try:
            entries = sorted(answer["data"], key=lambda entry: int(entry["index"]))
            vectors = [[float(number) for number in entry["embedding"]] for entry in entries]
            embedding = Embedding(vectors, int((answer.get("usage") or {}).get("prompt_tokens") or 0))
        except MALFORMED as error:
            raise self._not_llamacpp() from error
        if len(vectors) != len(texts):
            raise self._not_llamacpp()
        return embedding

    async def _prepare(self, request: LLMRequest) -> StreamedCall:
        if request.prompt is not None:
            told = partial(refusal, model=request.model)
            return StreamedCall(completion_body(request), CompletionDecoder(request), told)
        if request.tools and request.tool_choice != "none" and not await self._knows_tools():
            raise BadRequest(
                "This model's chat template has no tool calling: leave `tools` out or choose another model.",
                param="tools",
            )
        thinks = request.response_format is None or _may_think(await self._known_props())
        healing = find_healing(request)
        return StreamedCall(
            body=chat_body(request, healing, thinks=thinks),
            decoder=ChatDecoder(request, healing),
            refusal=partial(refusal, model=request.model),
        )

    async def _knows_tools(self) -> bool:
        """Whether the template shows tools to the model: where it does not, the server would drop them silently."""
        return _has_tools(await self._known_props())

    async def _known_props(self) -> dict[str, Any]:
        if self._props is None:
            self._props = await self._fetch_props(asyncio.get_running_loop().time() + PROPS_TIMEOUT_S)
        return self._props

    def _info(self, model: dict[str, Any], props: dict[str, Any]) -> ModelInfo:
        window = (props.get("default_generation_settings") or {}).get("n_ctx")
        window = window or (model.get("meta") or {}).get("n_ctx")
        capabilities = {"completion"}
        if props.get("chat_template_caps") and _has_tools(props):
            capabilities.add("tools")
        if (props.get("modalities") or {}).get("vision"):
            capabilities.add("vision")
        return ModelInfo(
            id=str(model["id"]),
            owned_by="llamacpp",
            created=int(model.get("created") or 0),
            context_tokens=int(window) if window else None,
            capabilities=frozenset(capabilities),
        )

    def _not_llamacpp(self) -> BackendUnavailable:
        return BackendUnavailable(f"The model server `{self.name}` does not answer like llama.cpp.")

    async def _fetch_props(self, deadline: float) -> dict[str, Any]:
        """What the server says of itself; nothing where it is too old, or was told not to say it."""
        try:
            props = await self._connection.fetch_json("/props", deadline=deadline, refusal=_props_refusal)
        except NotFound:
            return {}
        return props if isinstance(props, dict) else {}


def _props_refusal(status: int, body: bytes) -> ApiError:
    return NotFound("no /props") if status in {404, 501} else refusal(status, body, model="")


def _has_tools(props: dict[str, Any]) -> bool:
    """A server too old to tell gets the benefit of the doubt."""
    return (props.get("chat_template_caps") or {}).get("supports_tools") is not False


def _may_think(props: dict[str, Any]) -> bool:
    """Whether an answer may begin with thoughts: the template of a model that has them knows their marks."""
    template = props.get("chat_template")
    return not isinstance(template, str) or re.search("think|reason|channel", template) is not None
