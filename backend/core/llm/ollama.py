"""A model server that speaks Ollama's native API.

What is known of a model is kept until its digest changes: the window, what it can do, and whether it goes on with an
answer that was begun. `backend.core.llm.ollama_wire` holds the shapes of the requests and answers.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any

import aiohttp

from backend.core.errors import ApiError, BackendUnavailable
from backend.core.events import BackendEvent
from backend.core.llm.base import Embedding, LLMRequest, ModelInfo, Sampling
from backend.core.llm.http import BackendConnection, StreamedCall, Timeouts
from backend.core.llm.ollama_wire import ChatDecoder, chat_body, refusal
from backend.core.llm.raw_wires import GenerateDecoder, generate_body
from backend.core.llm.wire import MALFORMED
from backend.core.messages import Message

LIST_TIMEOUT_S = 3.0
SHOW_TIMEOUT_S = 5.0
CONTINUES_TIMEOUT_S = 8.0
EMBED_TIMEOUT_S = 300.0  # a cold model has to be loaded
PARALLEL_SHOWS = 4

# An answer that stops half-way and can go on in one way only: nobody begins a new one with a comma.
_PROBE = (
    Message("user", "Count from 1 to 9, with commas: 1, 2, 3, 4, 5, 6, 7, 8, 9"),
    Message("assistant", "1, 2, 3, 4, 5"),
)
_PROBE_GOES_ON = re.compile(r"\s*,\s*6\b")


@dataclass(slots=True)
class _Model:
    digest: str | None  # None: asked for before it was listed
    context_tokens: int | None
    capabilities: frozenset[str]
    template: str = ""  # only where it was asked for
    continues: bool | None = None  # None: not found out yet


class Ollama:
    kind = "ollama"

    def __init__(
        self,
        session: aiohttp.ClientSession,
        base_url: str,
        *,
        name: str = "ollama",
        default_model: str | None = None,
        num_ctx: int = 8192,
        keep_alive: str = "5m",
        timeouts: Timeouts = Timeouts(),  # noqa: B008 - frozen
    ) -> None:
        self.name = name
        self.default_model = default_model
        self._num_ctx = num_ctx
        # A number is in seconds and must go as one: as text Ollama wants a unit with it.
        self._keep_alive = int(keep_alive) if re.fullmatch(r"-?\d+", keep_alive) else keep_alive
        self._connection = BackendConnection(session, base_url, name=name, timeouts=timeouts)
        self._models: dict[str, _Model] = {}
        self._probing = asyncio.Lock()

    def stream(self, request: LLMRequest) -> AsyncGenerator[BackendEvent, None]:
        path = "/api/chat" if request.prompt is None else "/api/generate"
        return self._connection.stream(path, lambda: self._prepare(request))

    async def list_models(self) -> list[ModelInfo]:
        deadline = _in(LIST_TIMEOUT_S)
        try:
            tags = (await self._fetch("/api/tags", deadline=deadline))["models"]
            listed = {str(tag["name"]): tag for tag in tags}
            limit = asyncio.Semaphore(PARALLEL_SHOWS)
            looks = (self._look_up(name, tag, limit, deadline) for name, tag in listed.items())
            models = dict(zip(listed, await asyncio.gather(*looks), strict=True))
        except MALFORMED as error:
            raise self._not_ollama() from error
        self._models = {name: model for name, model in models.items() if model is not None}
        return [self._info(name, tag, models[name]) for name, tag in listed.items()]

    async def continues(self, model: str) -> bool:
        try:
            async with asyncio.timeout(CONTINUES_TIMEOUT_S):
                known = await self._model(model)
                async with self._probing:
                    if known.continues is None:
                        known.continues = await self._find_out_whether_continues(model, known)
                return known.continues
        except (ApiError, TimeoutError):
            return False  # not known, so not remembered

    async def embed(self, model: str, texts: Sequence[str]) -> Embedding:
        body = {"model": model, "input": list(texts), "truncate": False, "keep_alive": self._keep_alive}
        answer = await self._fetch("/api/embed", body, deadline=_in(EMBED_TIMEOUT_S))
        try:
            vectors = [[float(number) for number in vector] for vector in answer["embeddings"]]
            embedding = Embedding(vectors, int(answer.get("prompt_eval_count") or 0))
        except MALFORMED as error:
            raise self._not_ollama() from error
        if len(vectors) != len(texts):
            raise self._not_ollama()
        return embedding

    async def _prepare(self, request: LLMRequest) -> StreamedCall:
        model = await self._model(request.model)
        told = partial(refusal, model=request.model)
        if request.prompt is not None:
            thinks = "thinking" in model.capabilities
            body = generate_body(request, num_ctx=self._window(model), thinks=thinks, keep_alive=self._keep_alive)
            return StreamedCall(body, GenerateDecoder(request), told)
        return StreamedCall(self._body(request, model), ChatDecoder(request), told)

    def _body(self, request: LLMRequest, model: _Model) -> dict[str, Any]:
        thinks = "thinking" in model.capabilities
        return chat_body(request, num_ctx=self._window(model), thinks=thinks, keep_alive=self._keep_alive)

    def _window(self, model: _Model | None) -> int:
        return min(self._num_ctx, (model and model.context_tokens) or self._num_ctx)

    async def _model(self, name: str) -> _Model:
        full_name = name if ":" in name.rpartition("/")[2] else f"{name}:latest"
        if full_name not in self._models:
            self._models[full_name] = await self._show(name, _in(SHOW_TIMEOUT_S))
        return self._models[full_name]

    async def _look_up(
        self, name: str, tag: dict[str, Any], limit: asyncio.Semaphore, deadline: float
    ) -> _Model | None:
        """What is known of a listed model: from before, from the list, or by asking. None: it cannot be shown."""
        digest = str(tag.get("digest"))
        known = self._models.get(name)
        if known is not None and known.digest in {digest, None}:
            known.digest = digest
            return known
        context, capabilities = (tag.get("details") or {}).get("context_length"), tag.get("capabilities")
        if context and capabilities is not None:
            return _Model(digest, int(context), frozenset(capabilities))
        async with limit:
            try:
                return replace(await self._show(name, deadline), digest=digest)
            except ApiError:
                return None

    def _info(self, name: str, tag: dict[str, Any], model: _Model | None) -> ModelInfo:
        return ModelInfo(
            id=name,
            owned_by="ollama",
            created=_unix_time(tag.get("modified_at")),
            context_tokens=self._window(model),  # what the model gets from us, not what it could take
            capabilities=model.capabilities if model else frozenset(),
        )

    async def _show(self, name: str, deadline: float) -> _Model:
        shown = await self._fetch("/api/show", {"model": name}, deadline=deadline)
        try:
            facts = shown.get("model_info") or {}
            context = facts.get(f"{facts.get('general.architecture')}.context_length")
            capabilities = frozenset(shown.get("capabilities") or ())
            return _Model(None, int(context) if context else None, capabilities, shown.get("template") or "")
        except MALFORMED as error:
            raise self._not_ollama() from error

    def _not_ollama(self) -> BackendUnavailable:
        return BackendUnavailable(f"The model server `{self.name}` does not answer like Ollama.")

    async def _find_out_whether_continues(self, name: str, model: _Model) -> bool:
        """Read the template, since most close every message; where one may leave the last open, try."""
        template = (await self._show(name, _in(SHOW_TIMEOUT_S))).template
        if ".Messages" in template and "slice" not in template:
            return False  # without `slice` a template cannot tell the last message from the others
        request = LLMRequest(name, _PROBE, sampling=Sampling(temperature=0, max_tokens=8, seed=1))
        body = self._body(request, model) | {"stream": False}
        answer = await self._fetch("/api/chat", body, deadline=_in(CONTINUES_TIMEOUT_S))
        try:
            return bool(_PROBE_GOES_ON.match(answer["message"]["content"]))
        except MALFORMED:
            return False

    async def _fetch(self, path: str, body: dict[str, Any] | None = None, *, deadline: float) -> Any:
        model = str(body["model"]) if body else ""
        return await self._connection.fetch_json(path, body, deadline=deadline, refusal=partial(refusal, model=model))


def _in(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


def _unix_time(text: object) -> int:
    try:
        return int(datetime.fromisoformat(str(text)).timestamp())
    except ValueError:
        return 0
