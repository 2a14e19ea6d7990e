"""The whole way from a question to the servers that run models: `Limited(Logged(Fallback(catalog of backends)))`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import aiohttp

from backend.core.llm.base import ModelStream
from backend.core.llm.call_log import CallObserver, Logged, PromptLog
from backend.core.llm.catalog import ModelCatalog
from backend.core.llm.chain import make_backends
from backend.core.llm.fallback import FailureObserver, Fallback
from backend.core.llm.http import open_http_session
from backend.core.llm.limited import Limited
from config import Settings

MAX_CALL_WAIT_S = 5.0


class ChainObserver(CallObserver, FailureObserver, Protocol):
    """Is told of each model call, and of each backend that failed."""


@dataclass(frozen=True, slots=True)
class ModelChain:
    llm: ModelStream
    catalog: ModelCatalog
    prompt_log: PromptLog | None  # None: it is switched off
    http: aiohttp.ClientSession  # the pool that the backends share


@asynccontextmanager
async def open_model_chain(
    settings: Settings, observer: ChainObserver, *call_observers: CallObserver
) -> AsyncIterator[ModelChain]:
    """Both servers may do this at once: they share the prompt log and the kept lists of models."""
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(open_http_session(max_connections=settings.MAX_OPEN_CHATS))
        catalog = ModelCatalog(
            make_backends(settings, http),
            aliases=settings.MODEL_ALIASES,
            model_map=dict(settings.BACKEND_MODEL_MAP.items()),
            cache_file=settings.DATA_DIR / "models.json",
            retry_s=settings.BACKEND_RETRY_S,
        )
        await catalog.start()
        stack.push_async_callback(catalog.close)
        log = None
        if settings.PROMPT_LOG:
            path = settings.DATA_DIR / "logs" / "prompts.log"
            max_bytes = settings.PROMPT_LOG_MAX_MB * 2**20
            log = await asyncio.to_thread(PromptLog, path, max_bytes=max_bytes, keep=settings.PROMPT_LOG_KEEP)
            stack.push_async_callback(log.close)
        chain = Fallback(catalog, retry_after_s=settings.BACKEND_RETRY_S, observer=observer)
        logged = Logged(chain, log, observer, *call_observers)
        llm = Limited(logged, max_calls=settings.MAX_OPEN_CHATS, wait_s=MAX_CALL_WAIT_S)
        yield ModelChain(llm, catalog, log, http)
