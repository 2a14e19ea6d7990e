"""The chain of backends that the settings ask for, first choice first."""

import aiohttp

from backend.core.llm.base import LLMBackend
from backend.core.llm.http import Timeouts
from backend.core.llm.llamacpp import LlamaCpp
from backend.core.llm.ollama import Ollama
from config import Settings

AUTO_ORDER = ("ollama", "llamacpp")


def make_backends(settings: Settings, http: aiohttp.ClientSession) -> list[LLMBackend]:
    """One backend for each address; a second one of a kind is called `ollama-2`, and so on.

    The embedded engine comes last, when the start script has started it.
    """
    is_auto = "auto" in settings.LLM_BACKEND
    timeouts = Timeouts(settings.CONNECT_TIMEOUT_S, settings.FIRST_TOKEN_TIMEOUT_S, settings.STREAM_IDLE_TIMEOUT_S)
    backends: list[LLMBackend] = []
    for kind in AUTO_ORDER if is_auto else settings.LLM_BACKEND:
        urls = settings.OLLAMA_BASE_URL if kind == "ollama" else settings.LLAMACPP_BASE_URL
        for number, url in enumerate(urls, start=1):
            name = kind if number == 1 else f"{kind}-{number}"
            if kind == "ollama":
                backends.append(
                    Ollama(
                        http,
                        url,
                        name=name,
                        default_model=settings.OLLAMA_MODEL,
                        num_ctx=settings.OLLAMA_NUM_CTX,
                        keep_alive=settings.OLLAMA_KEEP_ALIVE,
                        timeouts=timeouts,
                    )
                )
            else:
                backends.append(
                    LlamaCpp(
                        http,
                        url,
                        name=name,
                        default_model=settings.LLAMACPP_MODEL or None,
                        api_key=settings.LLAMACPP_API_KEY,
                        timeouts=timeouts,
                    )
                )
    if settings.EMBEDDED_LLM_URL and (is_auto or "llamacpp" in settings.LLM_BACKEND):
        backends.append(
            LlamaCpp(http, settings.EMBEDDED_LLM_URL, name="embedded", default_model=None, timeouts=timeouts)
        )
    return backends
