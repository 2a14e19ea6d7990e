"""`/v1/embeddings`: by the embedding model of the tools API, and by models of the backends."""

import base64
import math
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI

from tests.support.agents import NativeModel, RunningAgents, running_agents
from tests.support.fake_llamacpp import FakeLlamaCpp
from tests.support.fake_ollama import FakeModel, FakeOllama
from tests.support.tiny_bert import HIDDEN, make_tiny_bert

URL = "/v1/embeddings"


@pytest.fixture(scope="module")
def embedding_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bert(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
async def server(tmp_path: Path, embedding_model: Path) -> AsyncIterator[RunningAgents]:
    async with (
        NativeModel() as model,
        running_agents(
            tmp_path, model, tools={"rag": "tools.rag.tool:Rag"}, RAG_EMBEDDING_MODEL=str(embedding_model)
        ) as running,
    ):
        yield running


async def embed(server: RunningAgents, given: Any, **fields: Any) -> dict[str, Any]:
    response = await server.alice.post(URL, json={"input": given, **fields})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def refusal(server: RunningAgents, given: Any, **fields: Any) -> tuple[int, str, str]:
    response = await server.alice.post(URL, json={"input": given, **fields})
    error = response.json()["error"]
    return response.status_code, error["param"], error["message"]


async def test_texts_become_unit_vectors_in_their_order(server: RunningAgents) -> None:
    one = await embed(server, "a river")
    several = await embed(server, ["a bridge", "a river"], model="text-embedding-3-small")
    assert [entry["index"] for entry in several["data"]] == [0, 1]
    assert several["data"][1]["embedding"] == pytest.approx(one["data"][0]["embedding"], abs=1e-5)
    assert len(one["data"][0]["embedding"]) == HIDDEN
    assert math.hypot(*one["data"][0]["embedding"]) == pytest.approx(1, abs=1e-5)
    assert several["usage"]["prompt_tokens"] > one["usage"]["prompt_tokens"] > 0
    assert "truncated" not in one


async def test_base64_holds_the_same_numbers(server: RunningAgents) -> None:
    floats = (await embed(server, "a river"))["data"][0]["embedding"]
    data = base64.b64decode((await embed(server, "a river", encoding_format="base64"))["data"][0]["embedding"])
    assert struct.unpack(f"<{HIDDEN}f", data) == pytest.approx(floats)


async def test_the_openai_client_embeds(server: RunningAgents) -> None:
    key = server.alice.headers["authorization"].removeprefix("Bearer ")
    async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0) as client:
        answer = await client.embeddings.create(model="default", input=["a river", "a bridge"])
    assert [len(entry.embedding) for entry in answer.data] == [HIDDEN, HIDDEN]


async def test_fewer_dimensions_are_a_unit_vector_again(server: RunningAgents) -> None:
    whole = (await embed(server, "a river"))["data"][0]["embedding"]
    short = (await embed(server, "a river", dimensions=8))["data"][0]["embedding"]
    length = math.hypot(*whole[:8])
    assert short == pytest.approx([number / length for number in whole[:8]], abs=1e-5)
    assert (await refusal(server, "a river", dimensions=HIDDEN + 1))[:2] == (400, "dimensions")


async def test_a_text_that_is_too_long_is_told(server: RunningAgents) -> None:
    assert (await embed(server, ["short", "long " * 500]))["truncated"] == [1]


async def test_an_odd_text_is_embedded_and_does_no_harm(server: RunningAgents) -> None:
    assert len((await embed(server, ["\0", "  ", "글자 🙂", "\u202e"]))["data"]) == 4


@pytest.mark.parametrize("given", [None, "", [], [""], ["a", ""], {"a": 1}, 7, ["a"] * 2049])
async def test_what_is_no_text_is_refused(server: RunningAgents, given: Any) -> None:
    assert (await refusal(server, given))[:2] == (400, "input")


@pytest.mark.parametrize("tokens", [[1, 2, 3], [[1, 2], [3]]])
async def test_tokens_are_refused_with_the_setting_that_avoids_them(server: RunningAgents, tokens: Any) -> None:
    status, param, message = await refusal(server, tokens)
    assert (status, param) == (400, "input")
    assert "check_embedding_ctx_length=False" in message


async def test_an_unknown_model_is_told_which_there_is(server: RunningAgents, embedding_model: Path) -> None:
    response = await server.alice.post(URL, json={"input": "a", "model": "nope"})
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (404, "model_not_found", "model")


async def test_nobody_embeds_without_a_token(server: RunningAgents) -> None:
    response = await server.alice.post(URL, json={"input": "a"}, headers={"Authorization": ""})
    assert response.status_code == 401


async def test_what_was_embedded_is_counted(server: RunningAgents) -> None:
    await embed(server, "a river")
    usage = (await server.alice.get("/api/usage")).json()
    assert usage["total"]["requests"] == 1
    assert usage["tokens_today"] > 0


async def test_a_server_without_documents_says_so(tmp_path: Path) -> None:
    async with NativeModel() as model, running_agents(tmp_path, model, tools={}) as server:
        assert (await server.alice.post(URL, json={"input": "a"})).status_code == 404


async def test_models_of_ollama_and_llamacpp_embed_by_their_own_names(tmp_path: Path) -> None:
    embedder = FakeModel("all-minilm:latest", capabilities=("embedding",))
    async with FakeOllama([FakeModel(), embedder]) as ollama, running_agents(tmp_path, ollama, tools={}) as server:
        answer = await embed(server, ["a", "b"], model="all-minilm")
        assert [len(entry["embedding"]) for entry in answer["data"]] == [4, 4]
        assert answer["model"] == "all-minilm:latest"
        status, param, message = await refusal(server, "a", model="smollm2:135m")
        assert (status, param) == (400, "model")
        assert "makes no vectors" in message
    async with (
        FakeLlamaCpp(embeddings=True) as llamacpp,
        running_agents(tmp_path / "other", llamacpp, tools={}) as server,
    ):
        name = (await server.alice.get("/v1/models")).json()["data"][0]["id"]
        answer = await embed(server, ["a", "b"], model=name)
        assert [entry["embedding"][0] for entry in answer["data"]] == [0.0, 1.0]
