"""What every response has, whatever its route did."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.server import RunningServer, make_settings, running_server


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RunningServer]:
    async with running_server(make_settings(tmp_path, CORS_ORIGINS="https://chat.example.org")) as server:
        yield server


@pytest.mark.parametrize(
    ("sent", "kept"), [("abc-1.2_3", True), ("x" * 128, True), ("x" * 129, False), ("a b", False), ("", False)]
)
async def test_a_request_has_an_id_of_the_client_or_a_new_one(server: RunningServer, sent: str, kept: bool) -> None:
    response = await server.client.get("/health", headers={"X-Request-ID": sent})
    assert (response.headers["x-request-id"] == sent) == kept
    assert response.headers["x-request-id"]


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("DELETE", "/health", 405)])
async def test_what_no_route_answers_has_the_shape_of_every_error(
    server: RunningServer, method: str, path: str, status: int
) -> None:
    response = await server.client.request(method, path)
    assert response.status_code == status
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    assert response.headers["x-request-id"]


SIGNED_IN_ONLY = [
    *("/v1/models", "/v1/models/x", "/ready", "/metrics", "/api/auth/me", "/api/auth/keys", "/api/admin/users"),
    *("/api/chat/sessions", "/api/chat/history/x", "/api/chat/sessions/x/files"),
]


@pytest.mark.parametrize("path", SIGNED_IN_ONLY)
async def test_without_a_token_every_route_answers_401(server: RunningServer, path: str) -> None:
    for headers in ({}, {"Authorization": "Bearer nonsense"}, {"Authorization": "Basic YTpi"}, {"X-API-Key": "sk-x"}):
        response = await server.client.get(path, headers=headers)
        assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
        assert response.json()["error"]["type"] == "authentication_error"


async def test_only_a_named_origin_may_call_from_a_browser(server: RunningServer) -> None:
    for origin, allowed in (("https://chat.example.org", True), ("https://evil.example.org", False)):
        headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        response = await server.client.options("/v1/chat/completions", headers=headers)
        assert (response.headers.get("access-control-allow-origin") == origin) == allowed


async def test_the_wildcard_origin_never_goes_with_credentials(tmp_path: Path) -> None:
    async with running_server(make_settings(tmp_path, CORS_ORIGINS="*")) as server:
        response = await server.client.get("/health", headers={"Origin": "https://any.example.org"})
    assert response.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in response.headers


async def test_an_unexpected_failure_is_a_500_without_details_and_the_server_goes_on(server: RunningServer) -> None:
    @server.app.get("/broken")
    async def broken() -> None:
        raise ValueError("/secret/path")

    response = await server.client.get("/broken")
    assert (response.status_code, response.json()["error"]["type"]) == (500, "server_error")
    assert "secret" not in response.text
    assert response.headers["x-request-id"]
    assert (await server.client.get("/health")).status_code == 200


async def test_the_description_of_the_api_is_open_and_says_how_to_sign_in(server: RunningServer) -> None:
    assert (await server.client.get("/docs")).status_code == 200
    described = (await server.client.get("/openapi.json")).json()
    chat = described["paths"]["/v1/chat/completions"]["post"]
    assert "messages" in chat["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert chat["security"]
