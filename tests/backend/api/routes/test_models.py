"""`GET /v1/models`: what chat UIs ask first, also on a bad day."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.support.fake_ollama import FakeModel, FakeOllama
from tests.support.server import make_settings, running_server

MODELS = [FakeModel("qwen2.5:14b", context=32768), FakeModel("hf.co/some/model:Q4_K_M")]


@pytest.fixture
async def alice(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        FakeOllama(MODELS) as ollama,
        running_server(make_settings(tmp_path, OLLAMA_BASE_URL=ollama.url)) as server,
        await server.signed_in() as client,
    ):
        yield client


async def test_the_list_has_openais_shape_and_what_is_known_of_each_model(alice: httpx.AsyncClient) -> None:
    body = (await alice.get("/v1/models")).json()
    assert body["object"] == "list"
    by_id = {model["id"]: model for model in body["data"]}
    assert {"qwen2.5:14b", "hf.co/some/model:Q4_K_M"} <= set(by_id)
    model = by_id["qwen2.5:14b"]
    assert (model["object"], model["owned_by"], type(model["created"])) == ("model", "ollama", int)
    assert model["context_length"] > 0


@pytest.mark.parametrize("name", ["qwen2.5:14b", "hf.co/some/model:Q4_K_M", "hf.co%2Fsome%2Fmodel:Q4_K_M"])
async def test_one_model_is_found_whatever_its_id_holds(alice: httpx.AsyncClient, name: str) -> None:
    response = await alice.get(f"/v1/models/{name}")
    assert response.status_code == 200
    assert response.json()["id"] == name.replace("%2F", "/")


async def test_an_unknown_model_is_not_found_by_the_code_that_clients_know(alice: httpx.AsyncClient) -> None:
    response = await alice.get("/v1/models/no/such:model")
    assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")


async def test_the_last_known_list_is_there_while_the_backend_is_down_and_after_a_restart(tmp_path: Path) -> None:
    async with FakeOllama(MODELS) as ollama:
        settings = make_settings(tmp_path, OLLAMA_BASE_URL=ollama.url)
        async with running_server(settings) as server, await server.signed_in() as alice:
            known = {model["id"] for model in (await alice.get("/v1/models")).json()["data"]}
            await ollama.stop()
            assert {model["id"] for model in (await alice.get("/v1/models")).json()["data"]} == known
    async with running_server(settings) as server, await server.signed_in() as alice:
        assert {model["id"] for model in (await alice.get("/v1/models")).json()["data"]} == known


async def test_an_alias_is_answered_by_the_model_that_it_means(alice: httpx.AsyncClient) -> None:
    response = await alice.post(
        "/v1/chat/completions", json={"model": "gpt-3.5-turbo", "messages": [{"role": "user", "content": "Hi"}]}
    )
    assert response.json()["model"] == "qwen2.5:14b"
