"""langchain-openai, by the standard tests that LangChain has for chat models."""

from importlib.metadata import version
from typing import Any

import httpx
import pytest
from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests

from tests.e2e.clients.conformance import Client
from tests.e2e.clients.model import LLAMACPP_MODEL, OLLAMA_MODEL, PLAIN_MODEL

CLIENT = Client(
    "langchain-openai",
    version("langchain-openai"),
    f"the standard tests for chat models of langchain-tests {version('langchain-tests')}, but for "
    "three that need the internet",
)

NOT_HERE = {
    "test_image_inputs": "fetches its picture from the internet",
    "test_pdf_inputs": "fetches its document from the internet",
    "test_stream_time": "needs a recorded conversation with a paid service",
}


class TestChatModel(ChatModelIntegrationTests):
    @pytest.fixture(autouse=True, params=[OLLAMA_MODEL, PLAIN_MODEL])
    def _server(self, request: pytest.FixtureRequest, server: httpx.Client, token: str) -> None:
        if reason := NOT_HERE.get(request.node.originalname):
            pytest.skip(reason)
        # A client of its own: LangChain shares one between instances, and with it the event loop of an earlier test.
        own = httpx.AsyncClient(timeout=60)
        fields = {"base_url": f"{server.base_url}/v1", "api_key": token, "http_async_client": own}
        self._params = {"model": request.param, **fields}

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"temperature": 0, "max_retries": 0, "stream_usage": True, **self._params}

    @property
    def standard_chat_model_params(self) -> dict[str, Any]:
        return {}

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_image_inputs(self) -> bool:
        return True

    @property
    def supports_pdf_inputs(self) -> bool:
        return True

    @property
    def supports_model_override(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return LLAMACPP_MODEL
