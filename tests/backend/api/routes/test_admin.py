from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from backend.core.storage.conversations import StoredMessage
from backend.core.storage.sessions import new_session_id
from tests.support.sign_in_server import SignInServer, sign_in_server

USERS = "/api/admin/users"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[SignInServer]:
    async with sign_in_server(tmp_path) as running:
        yield running


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", USERS),
        ("POST", USERS),
        ("GET", f"{USERS}/root"),
        ("PATCH", f"{USERS}/root"),
        ("DELETE", f"{USERS}/root"),
    ],
)
async def test_the_admin_routes_are_for_admins(server: SignInServer, method: str, path: str) -> None:
    await server.add("root", "admin")
    body = {"username": "eve", "password": "x", "role": "admin"}
    assert (await server.client.request(method, path, json=body)).status_code == 401
    refused = await server.client.request(method, path, json=body, headers=await server.add("alice"))
    assert (refused.status_code, refused.json()["error"]["type"]) == (403, "permission_error")
    assert await server.opened.users.find("eve") is None
    assert await server.opened.users.find("root") is not None


async def test_an_admin_makes_shows_and_lists_accounts(tmp_path: Path) -> None:
    async with sign_in_server(tmp_path, ALLOW_SIGNUP=False) as server:
        root = await server.add("root", "admin")
        made = await server.client.post(USERS, json={"username": "Bob", "password": "x"}, headers=root)
        assert made.status_code == 201
        assert set(made.json()) == {"username", "role", "created_at", "disabled"}
        assert (made.json()["role"], made.json()["disabled"]) == ("user", False)
        assert (await server.client.get(f"{USERS}/bob", headers=root)).json() == made.json()
        listed = (await server.client.get(USERS, headers=root)).json()
        assert [user["username"] for user in listed["users"]] == ["Bob", "root"]
        page = (await server.client.get(USERS, params={"limit": 1, "offset": 1}, headers=root)).json()
        assert [user["username"] for user in page["users"]] == ["root"]
        assert "hash" not in made.text + str(listed)


async def test_a_user_made_by_an_admin_obeys_the_same_rules(server: SignInServer) -> None:
    root = await server.add("root", "admin")
    for body, status in [
        ({"username": "ROOT", "password": "x"}, 409),
        ({"username": "b ob", "password": "x"}, 422),
        ({"username": "bob", "password": "x" * 73}, 422),
        ({"username": "bob"}, 422),
    ]:
        assert (await server.client.post(USERS, json=body, headers=root)).status_code == status


async def test_disabling_ends_everything_at_once_and_enabling_lets_sign_in_again(server: SignInServer) -> None:
    root, alice = await server.add("root", "admin"), await server.add("alice")
    _, key = await server.opened.api_keys.create("alice", "laptop")
    with_key = {"x-api-key": key}
    for headers in (alice, with_key):
        assert (await server.client.get("/who", headers=headers)).status_code == 200
    changed = await server.client.patch(f"{USERS}/alice", json={"disabled": True}, headers=root)
    assert changed.json()["disabled"] is True
    for headers in (alice, with_key):
        assert (await server.client.get("/who", headers=headers)).status_code == 401
    sign_in = {"username": "alice", "password": "correct horse"}
    assert (await server.client.post("/api/auth/login", json=sign_in)).status_code == 403
    await server.client.patch(f"{USERS}/alice", json={"disabled": False}, headers=root)
    assert (await server.client.post("/api/auth/login", json=sign_in)).status_code == 200
    assert (await server.client.get("/who", headers=alice)).status_code == 401


async def test_a_new_password_ends_tokens_and_the_lock_out(server: SignInServer) -> None:
    root, alice = await server.add("root", "admin"), await server.add("alice")
    wrong = {"username": "alice", "password": "wrong"}
    for _ in range(server.opened.settings.LOGIN_MAX_FAILURES + 1):
        answer = await server.client.post("/api/auth/login", json=wrong)
    assert answer.status_code == 429
    changed = await server.client.patch(f"{USERS}/ALICE", json={"password": "battery staple"}, headers=root)
    assert changed.status_code == 200
    assert (await server.client.get("/who", headers=alice)).status_code == 401
    right = {"username": "alice", "password": "battery staple"}
    assert (await server.client.post("/api/auth/login", json=right)).status_code == 200


async def test_a_demoted_admin_is_none_with_the_next_request(server: SignInServer) -> None:
    root, other = await server.add("root", "admin"), await server.add("other", "admin")
    assert (await server.client.get(USERS, headers=other)).status_code == 200
    await server.client.patch(f"{USERS}/other", json={"role": "user"}, headers=root)
    assert (await server.client.get(USERS, headers=other)).status_code == 403
    await server.client.patch(f"{USERS}/other", json={"role": "admin"}, headers=root)
    assert (await server.client.get(USERS, headers=other)).status_code == 200


async def test_deleting_takes_keys_sessions_and_files_along(server: SignInServer) -> None:
    root, alice = await server.add("root", "admin"), await server.add("Alice")
    _, key = await server.opened.api_keys.create("Alice", "laptop")
    await server.sessions.create("Alice", new_session_id(), [StoredMessage("user", "Hello")])
    conversations = server.opened.settings.DATA_DIR / "sessions"
    assert len(list(conversations.iterdir())) == 1
    deleted = await server.client.delete(f"{USERS}/alice", headers=root)
    assert deleted.json() == {"username": "Alice", "deleted": True}
    assert list(conversations.iterdir()) == []
    for headers in (alice, {"x-api-key": key}):
        assert (await server.client.get("/who", headers=headers)).status_code == 401
    await server.add("alice")
    assert (await server.client.get("/who", headers=alice)).status_code == 401


@pytest.mark.parametrize(
    ("method", "body"), [("DELETE", None), ("PATCH", {"disabled": True}), ("PATCH", {"role": "user"})]
)
async def test_the_last_admin_cannot_be_taken_away(server: SignInServer, method: str, body: object) -> None:
    root = await server.add("root", "admin")
    await server.sessions.create("root", new_session_id(), [StoredMessage("user", "Hello")])
    answer = await server.client.request(method, f"{USERS}/root", json=body, headers=root)
    assert answer.status_code == 409
    assert "last admin" in answer.json()["error"]["message"]
    assert (await server.client.get(USERS, headers=root)).status_code == 200
    assert len((await server.sessions.list("root", limit=10)).sessions) == 1


async def test_an_admin_may_leave_while_another_stays(server: SignInServer) -> None:
    root = await server.add("root", "admin")
    await server.add("other", "admin")
    assert (await server.client.delete(f"{USERS}/root", headers=root)).status_code == 200
    assert (await server.client.get(USERS, headers=root)).status_code == 401


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"disable": True}, "disable"),
        ({"role": "root"}, "role"),
        ({"disabled": "perhaps"}, "disabled"),
        ({"password": ""}, "password"),
        ({"password": "🔑" * 19}, "password"),
    ],
)
async def test_a_bad_change_answers_422_and_changes_nothing(server: SignInServer, body: dict, param: str) -> None:
    root, alice = await server.add("root", "admin"), await server.add("alice")
    answer = await server.client.patch(f"{USERS}/alice", json={"role": "admin", **body}, headers=root)
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, param)
    assert (await server.client.get("/who", headers=alice)).json()["role"] == "user"


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
@pytest.mark.parametrize("name", ["nobody", "..%2F..", "%00", "x" * 500, "%F0%9F%94%91"])
async def test_an_unknown_name_answers_404(server: SignInServer, method: str, name: str) -> None:
    root = await server.add("root", "admin")
    answer = await server.client.request(method, f"{USERS}/{name}", json={}, headers=root)
    assert answer.status_code == 404
