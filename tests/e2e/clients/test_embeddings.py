"""langchain-openai's embeddings, by LangChain's standard tests, with the embedding model of the tools process."""

from importlib.metadata import version
from typing import Any

import httpx
import pytest
from langchain_openai import OpenAIEmbeddings
from langchain_tests.integration_tests import EmbeddingsIntegrationTests

from tests.e2e.clients.conformance import Client

CLIENT = Client(
    "langchain-openai, embeddings",
    version("langchain-openai"),
    f"the standard tests for embeddings of langchain-tests {version('langchain-tests')}, with "
    "`check_embedding_ctx_length=False`",
)


class TestEmbeddings(EmbeddingsIntegrationTests):
    @pytest.fixture(autouse=True)
    def _server(self, server: httpx.Client, token: str, tools_url: str) -> None:
        self._params = {"base_url": f"{server.base_url}/v1", "api_key": token}

    @property
    def embeddings_class(self) -> type[OpenAIEmbeddings]:
        return OpenAIEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        own = httpx.AsyncClient(timeout=60)  # LangChain shares one, and with it the event loop of an earlier test
        return {
            "model": "text-embedding-3-small",
            "check_embedding_ctx_length": False,  # otherwise it sends tokens of OpenAI's models in place of text
            "http_async_client": own,
            **self._params,
        }
