from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.sign_in_server import SignInServer, sign_in_server


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[SignInServer]:
    async with sign_in_server(tmp_path) as running:
        yield running


async def test_a_credential_is_taken_from_either_header(server: SignInServer) -> None:
    headers = await server.add("alice")
    key, secret = await server.opened.api_keys.create("alice", "laptop")
    token = headers["Authorization"].removeprefix("Bearer ")
    for sent in (
        {"Authorization": f"Bearer {token}"},
        {"Authorization": f"bearer  {token}"},
        {"x-api-key": token},
        {"Authorization": "Basic YTpi", "x-api-key": token},
    ):
        answer = await server.client.get("/who", headers=sent)
        assert answer.json() == {"username": "alice", "role": "user", "key_id": None, "same": True}
    for sent in ({"Authorization": f"Bearer {secret}"}, {"x-api-key": secret}):
        assert (await server.client.get("/who", headers=sent)).json()["key_id"] == key.id


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({}, "No token or API key was sent"),
        ({"Authorization": ""}, "No token or API key was sent"),
        ({"Authorization": "Bearer"}, "No token or API key was sent"),
        ({"Authorization": "Basic YTpi"}, "No token or API key was sent"),
        ({"Authorization": "Bearer abc"}, "not one of this server"),
        ({"x-api-key": "abc"}, "not one of this server"),
        ({"Authorization": "Bearer a b c"}, "not one of this server"),
        ({"Authorization": b"Bearer \xff\xfe\xed"}, "not one of this server"),
        ({"Authorization": "Bearer " + "x" * 20_000}, "not one of this server"),
        ({"Authorization": "Bearer sk-" + "x" * 48}, "revoked"),
    ],
)
async def test_without_a_good_one_the_answer_is_401_in_our_shape(
    server: SignInServer, headers: dict[str, str], said: str
) -> None:
    answer = await server.client.get("/who", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "authentication_error"
    assert said in error["message"]


async def test_the_description_offers_a_form_to_sign_in_and_a_field_for_a_key(server: SignInServer) -> None:
    description = (await server.client.get("/openapi.json")).json()
    schemes = description["components"]["securitySchemes"]
    assert schemes["password"]["flows"]["password"]["tokenUrl"] == "/api/auth/login"
    assert (schemes["bearer"]["type"], schemes["bearer"]["scheme"]) == ("http", "bearer")
    paths = description["paths"]
    for path, method in [("/who", "get"), ("/api/auth/keys", "post"), ("/api/admin/users", "get")]:
        assert {name for option in paths[path][method]["security"] for name in option} == {"password", "bearer"}
    for path in ("/api/auth/login", "/api/auth/signup"):
        assert "security" not in paths[path]["post"]
    assert set(paths["/api/auth/login"]["post"]["requestBody"]["content"]) == {
        "application/json",
        "application/x-www-form-urlencoded",
    }
