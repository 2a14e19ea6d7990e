"""Whether the server is alive, ready, and what it counts."""

import asyncio
from pathlib import Path

from tests.support.fake_ollama import FakeOllama
from tests.support.server import make_settings, running_server


async def test_health_is_open_and_tells_what_is_up_and_how_old_that_knowledge_is(tmp_path: Path) -> None:
    async with FakeOllama() as ollama:
        settings = make_settings(tmp_path, LLM_BACKEND="ollama,llamacpp", OLLAMA_BASE_URL=ollama.url)
        async with running_server(settings) as server:
            await asyncio.sleep(0.2)
            response = await server.client.get("/health")
    body = response.json()
    assert response.status_code == 200
    assert [(backend["name"], backend["state"]) for backend in body["backends"]] == [
        ("ollama", "up"),
        ("llamacpp", "down"),
    ]
    assert body["tools"]["state"] == "down"
    assert all(backend["age_s"] is not None for backend in body["backends"])
    assert "127.0.0.1" not in response.text


async def test_ready_and_metrics_are_for_those_who_are_signed_in(tmp_path: Path) -> None:
    async with FakeOllama() as ollama, running_server(make_settings(tmp_path, OLLAMA_BASE_URL=ollama.url)) as server:
        for path in ("/ready", "/metrics"):
            response = await server.client.get(path)
            assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
        async with await server.signed_in() as alice:
            await alice.get("/v1/models")
            assert (await alice.get("/ready")).json() == {"status": "ready", "backends": ["ollama"]}
            assert "llm_backend_up" in (await alice.get("/metrics")).text
