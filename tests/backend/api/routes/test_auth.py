import asyncio
import re
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.sign_in_server import SignInServer, sign_in_server


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[SignInServer]:
    async with sign_in_server(tmp_path) as running:
        yield running


def new(username: str = "alice", password: str = "correct horse", **more: Any) -> dict[str, Any]:
    return {"username": username, "password": password, **more}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_signing_up_gives_a_token_that_works(server: SignInServer) -> None:
    answer = await server.client.post("/api/auth/signup", json=new())
    assert answer.status_code == 201
    body = answer.json()
    assert set(body) == {"access_token", "token_type", "username", "role"}
    assert (body["token_type"], body["username"], body["role"]) == ("bearer", "alice", "user")
    me = (await server.client.get("/api/auth/me", headers=bearer(body["access_token"]))).json()
    assert set(me) == {"username", "role", "created_at"}
    assert (me["username"], me["role"]) == ("alice", "user")
    assert abs(me["created_at"] - time.time()) < 10


async def test_a_name_that_is_taken_answers_409(server: SignInServer) -> None:
    await server.client.post("/api/auth/signup", json=new())
    answer = await server.client.post("/api/auth/signup", json=new("ALICE"))
    assert answer.status_code == 409
    assert "taken" in answer.json()["error"]["message"]


async def test_of_two_who_sign_up_with_one_name_at_once_one_gets_it(server: SignInServer) -> None:
    answers = await asyncio.gather(*(server.client.post("/api/auth/signup", json=new()) for _ in range(2)))
    assert sorted(answer.status_code for answer in answers) == [201, 409]


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        (new(password="🔑" * 18 + "x"), "password", "73 bytes"),
        (new(password="x" * 73), "password", "73 bytes"),
        (new(password=""), "password", "empty"),
        (new(password="a\0b"), "password", "NUL"),
        (new(username=""), "username", "1 to 64 characters"),
        (new(username="al ice"), "username", "1 to 64 characters"),
        (new(username="x" * 65), "username", "1 to 64 characters"),
        (new(username=7), "username", "string"),
        (new(password=["x"]), "password", "string"),
        (new(role="root"), "role", "admin"),
        ({"username": "alice"}, "password", "required"),
        ([], None, ""),
        ("text", None, ""),
    ],
)
async def test_a_bad_sign_up_answers_422_and_says_why(
    server: SignInServer, body: Any, param: str | None, said: str
) -> None:
    answer = await server.client.post("/api/auth/signup", json=body)
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert error["param"] == param
    assert said.lower() in error["message"].lower()
    assert await server.opened.users.list(limit=10) == []


@pytest.mark.parametrize("path", ["/api/auth/signup", "/api/auth/login"])
async def test_a_password_that_is_no_unicode_is_refused_and_does_not_break_the_server(
    server: SignInServer, path: str
) -> None:
    raw = b'{"username": "alice", "password": "\\ud800"}'
    answer = await server.client.post(path, content=raw, headers={"Content-Type": "application/json"})
    assert answer.status_code in {401, 422}


@pytest.mark.parametrize("allow", [True, False])
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer rubbish"}, {"x-api-key": "sk-" + "x" * 48}])
async def test_a_stranger_never_becomes_an_admin(tmp_path: Path, allow: bool, headers: dict[str, str]) -> None:
    async with sign_in_server(tmp_path, ALLOW_SIGNUP=allow) as server:
        answer = await server.client.post("/api/auth/signup", json=new(role="admin"), headers=headers)
        assert answer.status_code == 403
        assert answer.json()["error"]["type"] == "permission_error"
        assert await server.opened.users.list(limit=10) == []


async def test_a_user_does_not_make_an_admin_and_an_admin_does(server: SignInServer) -> None:
    alice, root = await server.add("alice"), await server.add("root", "admin")
    answer = await server.client.post("/api/auth/signup", json=new("bob", role="admin"), headers=alice)
    assert answer.status_code == 403
    answer = await server.client.post("/api/auth/signup", json=new("bob", role="admin"), headers=root)
    assert (answer.status_code, answer.json()["role"]) == (201, "admin")


async def test_sign_up_can_be_closed_to_all_but_admins(tmp_path: Path) -> None:
    async with sign_in_server(tmp_path, ALLOW_SIGNUP=False) as server:
        alice, root = await server.add("alice"), await server.add("root", "admin")
        for headers in ({}, alice):
            answer = await server.client.post("/api/auth/signup", json=new("bob"), headers=headers)
            assert answer.status_code == 403
            assert "closed" in answer.json()["error"]["message"]
        answer = await server.client.post("/api/auth/signup", json=new("bob"), headers=root)
        assert answer.status_code == 201


@pytest.mark.parametrize("how", ["json", "data"])
async def test_signing_in_takes_json_and_a_form(server: SignInServer, how: str) -> None:
    await server.add("alice")
    answer = await server.client.post("/api/auth/login", **{how: new(grant_type="password", scope="")})
    assert answer.status_code == 200
    assert set(answer.json()) == {"access_token", "token_type"}
    assert answer.json()["token_type"] == "bearer"
    who = await server.client.get("/who", headers=bearer(answer.json()["access_token"]))
    assert who.json()["username"] == "alice"


async def test_signing_in_takes_a_multipart_form(server: SignInServer) -> None:
    await server.add("alice")
    fields = {name: (None, value) for name, value in new().items()}
    assert (await server.client.post("/api/auth/login", files=fields)).status_code == 200


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"json": {}}, 422),
        ({"json": {"username": "alice"}}, 422),
        ({"json": []}, 422),
        ({"json": new(password=7)}, 422),
        ({"data": {"username": "alice"}}, 422),
        ({"content": b"{", "headers": {"Content-Type": "application/json"}}, 400),
        ({"content": b"\xff", "headers": {"Content-Type": "application/json"}}, 400),
        ({"content": b""}, 400),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400),
        ({"files": {"username": ("f", b"alice"), "password": ("g", b"x")}}, 400),
        ({"data": {f"field{number}": "x" for number in range(50)}}, 400),
    ],
)
async def test_a_broken_sign_in_answers_what_is_wrong_with_it(
    server: SignInServer, sent: dict[str, Any], status: int
) -> None:
    answer = await server.client.post("/api/auth/login", **sent)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


async def test_a_wrong_name_and_a_wrong_password_answer_the_same_bytes(server: SignInServer) -> None:
    await server.add("alice")
    wrong = await server.client.post("/api/auth/login", json=new(password="wrong"))
    unknown = await server.client.post("/api/auth/login", json=new("nobody"))
    long = await server.client.post("/api/auth/login", json=new(password="🔑" * 30))
    assert {answer.status_code for answer in (wrong, unknown, long)} == {401}
    assert wrong.content == unknown.content == long.content


async def test_repeated_failures_answer_429_with_the_time_to_wait(server: SignInServer) -> None:
    await server.add("alice")
    for _ in range(server.opened.settings.LOGIN_MAX_FAILURES):
        assert (await server.client.post("/api/auth/login", json=new(password="wrong"))).status_code == 401
    answer = await server.client.post("/api/auth/login", json=new())
    assert answer.status_code == 429
    assert answer.json()["error"]["type"] == "rate_limit_error"
    assert 0 < int(answer.headers["Retry-After"]) <= 300


async def test_an_own_new_password_ends_the_old_tokens_and_gives_a_new_one(server: SignInServer) -> None:
    headers = await server.add("alice")
    _, key = await server.opened.api_keys.create("alice", "laptop")
    change = {"current_password": "correct horse", "new_password": "battery staple"}
    answer = await server.client.post("/api/auth/password", json=change, headers=headers)
    assert answer.status_code == 200
    assert (await server.client.get("/who", headers=headers)).status_code == 401
    assert (await server.client.get("/who", headers=bearer(answer.json()["access_token"]))).status_code == 200
    assert (await server.client.get("/who", headers=bearer(key))).status_code == 200
    assert (await server.client.post("/api/auth/login", json=new())).status_code == 401
    assert (await server.client.post("/api/auth/login", json=new(password="battery staple"))).status_code == 200


async def test_an_own_new_password_needs_the_current_one_and_guessing_it_is_counted(server: SignInServer) -> None:
    headers = await server.add("alice")
    wrong = {"current_password": "wrong", "new_password": "battery staple"}
    for _ in range(server.opened.settings.LOGIN_MAX_FAILURES):
        answer = await server.client.post("/api/auth/password", json=wrong, headers=headers)
        assert answer.status_code == 403
        assert answer.json()["error"]["param"] == "current_password"
    right = {"current_password": "correct horse", "new_password": "battery staple"}
    assert (await server.client.post("/api/auth/password", json=right, headers=headers)).status_code == 429
    assert (await server.client.get("/who", headers=headers)).status_code == 200


async def test_an_own_new_password_must_obey_the_rules(server: SignInServer) -> None:
    headers = await server.add("alice")
    change = {"current_password": "correct horse", "new_password": "🔑" * 19}
    answer = await server.client.post("/api/auth/password", json=change, headers=headers)
    assert answer.status_code == 422
    assert "76 bytes" in answer.json()["error"]["message"]
    assert (await server.client.get("/who", headers=headers)).status_code == 200


async def test_a_key_is_shown_once_works_and_ends_with_the_next_request(server: SignInServer) -> None:
    headers = await server.add("alice")
    made = await server.client.post("/api/auth/keys", json={"name": " laptop "}, headers=headers)
    assert made.status_code == 201
    body = made.json()
    assert set(body) == {"id", "name", "key", "hint", "created_at"}
    assert re.fullmatch(r"sk-[A-Za-z0-9_-]{48}", body["key"])
    assert (body["name"], body["key"][-4:]) == ("laptop", body["hint"])
    assert (await server.client.get("/who", headers=bearer(body["key"]))).json()["key_id"] == body["id"]
    await server.opened.authenticator.close()

    listed = await server.client.get("/api/auth/keys", headers=bearer(body["key"]))
    assert body["key"] not in listed.text
    (shown,) = listed.json()["keys"]
    assert set(shown) == {"id", "name", "hint", "created_at", "last_used_at", "limits", "forwards_users"}
    assert shown["last_used_at"] >= shown["created_at"]

    deleted = await server.client.delete(f"/api/auth/keys/{body['id']}", headers=headers)
    assert deleted.json() == {"id": body["id"], "deleted": True}
    assert (await server.client.get("/who", headers=bearer(body["key"]))).status_code == 401
    assert (await server.client.get("/api/auth/keys", headers=headers)).json() == {"keys": []}


async def test_somebody_elses_key_is_neither_listed_nor_deleted(server: SignInServer) -> None:
    alice, root = await server.add("alice"), await server.add("root", "admin")
    key = (await server.client.post("/api/auth/keys", json={"name": "laptop"}, headers=alice)).json()
    assert (await server.client.get("/api/auth/keys", headers=root)).json() == {"keys": []}
    assert (await server.client.delete(f"/api/auth/keys/{key['id']}", headers=root)).status_code == 404
    assert (await server.client.get("/who", headers=bearer(key["key"]))).status_code == 200


@pytest.mark.parametrize("name", ["", "   ", "x" * 101, None, 7])
async def test_a_key_needs_a_name(server: SignInServer, name: object) -> None:
    answer = await server.client.post("/api/auth/keys", json={"name": name}, headers=await server.add("alice"))
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "name")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/auth/me"),
        ("POST", "/api/auth/password"),
        ("GET", "/api/auth/keys"),
        ("POST", "/api/auth/keys"),
        ("DELETE", "/api/auth/keys/key_1"),
    ],
)
async def test_ones_own_account_needs_a_token(server: SignInServer, method: str, path: str) -> None:
    answer = await server.client.request(method, path, json={})
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_a_change_on_the_command_line_ends_a_running_servers_token_with_the_next_request(
    server: SignInServer,
) -> None:
    headers = await server.add("alice")
    assert (await server.client.get("/who", headers=headers)).status_code == 200
    program = Path(__file__).parents[4] / "create_user_direct.py"
    environment = {"DATA_DIR": str(server.opened.settings.DATA_DIR), "PATH": "/usr/bin:/bin"}
    cli = await asyncio.create_subprocess_exec(sys.executable, program, "--disable", "alice", env=environment)
    async with asyncio.timeout(30):
        assert await cli.wait() == 0
    assert (await server.client.get("/who", headers=headers)).status_code == 401
