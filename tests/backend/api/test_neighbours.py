"""Chat UIs in front: whose chat it is, which one, and what is no chat at all."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from jose import jwt

from backend.api.neighbours import is_ui_task
from tests.support.chat_server import MODEL, admin_of, ask, chat_server, code_of, with_key
from tests.support.fake_ollama import FakeModel, FakeOllama
from tests.support.server import RunningServer

SECRET = "shared by the UI and the server"
OTHER_SECRET = "shared by somebody else entirely"


@pytest.fixture
async def ollama() -> AsyncIterator[FakeOllama]:
    async with FakeOllama([FakeModel(capabilities=("completion", "tools"))]) as fake:
        yield fake


@pytest.fixture
async def server(tmp_path: Path, ollama: FakeOllama) -> AsyncIterator[RunningServer]:
    async with chat_server(tmp_path, ollama) as server:
        yield server


async def ui_key(server: RunningServer) -> str:
    """The key that an admin has made for a chat UI."""
    async with await admin_of(server) as admin:
        await admin.post("/api/admin/users", json={"username": "webui", "password": "correct horse"})
        made = await admin.post("/api/admin/users/webui/keys", json={"name": "UI", "forwards_users": True})
        assert made.status_code == 201, made.text
        key: str = made.json()["key"]
        return key


def person(user_id: str, email: str = "", **more: str) -> dict[str, str]:
    return {"X-OpenWebUI-User-Id": user_id, "X-OpenWebUI-User-Email": email or f"{user_id}@example.org", **more}


def signed(secret: str = SECRET, algorithm: str = "HS256", **changes: Any) -> dict[str, str]:
    claims = {"sub": "u-1", "email": "ann@example.org", "role": "admin", "iss": "open-webui", "exp": time.time() + 300}
    claims = {name: value for name, value in {**claims, **changes}.items() if value is not None}
    return {"X-OpenWebUI-User-Jwt": jwt.encode(claims, secret, algorithm)}


async def me(client: httpx.AsyncClient, headers: dict[str, str]) -> dict[str, Any]:
    answer: dict[str, Any] = (await client.get("/api/auth/me", headers=headers)).json()
    return answer


# --- Who it is -------------------------------------------------------------------------------------------------------


async def test_each_person_behind_a_ui_has_sessions_and_usage_of_their_own(server: RunningServer) -> None:
    async with with_key(server, await ui_key(server)) as ui:
        ann, ben = person("u-1"), person("u-2")
        session = (await ask(ui, headers=ann)).json()["session_id"]
        assert (await ui.get(f"/api/chat/history/{session}", headers=ann)).status_code == 200
        assert (await ui.get(f"/api/chat/history/{session}", headers=ben)).status_code == 404
        assert (await ui.get(f"/api/chat/history/{session}")).status_code == 404
        assert (await ask(ui, session_id=session, headers=ben)).status_code == 404
        assert (await ui.get("/api/usage", headers=ann)).json()["total"]["requests"] == 1
        assert (await ui.get("/api/usage", headers=ben)).json()["total"]["requests"] == 0
        assert (await me(ui, ann))["username"] == "u-1@example.org"
        assert (await me(ui, {}))["username"] == "webui"


async def test_a_person_is_known_by_the_id_whatever_name_they_take(server: RunningServer) -> None:
    async with with_key(server, await ui_key(server)) as ui:
        first = await me(ui, person("u-1", "ann@example.org"))
        assert await me(ui, person("u-1", "new@example.org")) == first
        assert (await me(ui, person("u-2", "ann@example.org")))["username"] != first["username"]


@pytest.mark.parametrize("name", ["root", "Root", "webui", "alice"])
async def test_no_name_reaches_an_account_that_is_there_already(server: RunningServer, name: str) -> None:
    key = await ui_key(server)
    async with await server.signed_in("alice"), with_key(server, key) as ui:
        forwarded = await me(ui, person(name, name, **{"X-OpenWebUI-User-Role": "admin"}))
        assert forwarded["username"].startswith(f"{name}-")
        assert forwarded["role"] == "user"
        for path in ("/api/admin/users", "/api/admin/usage"):
            assert (await ui.get(path, headers=person(name, name))).status_code == 403


async def test_an_admins_own_forwarding_key_is_no_admins_and_a_promoted_person_is_none_there(
    server: RunningServer,
) -> None:
    async with await admin_of(server) as admin:
        key = (await admin.post("/api/auth/keys", json={"name": "UI", "forwards_users": True})).json()["key"]
        async with with_key(server, key) as ui:
            assert (await ui.get("/api/admin/users")).status_code == 403
            name = (await me(ui, person("u-1")))["username"]
            await admin.patch(f"/api/admin/users/{name}", json={"role": "admin"})
            assert (await ui.get("/api/admin/users", headers=person("u-1"))).status_code == 403


async def test_only_an_admin_makes_a_key_that_is_believed(server: RunningServer) -> None:
    async with await server.signed_in("alice") as alice:
        refused = await alice.post("/api/auth/keys", json={"name": "mine", "forwards_users": True})
        assert code_of(refused) == (403, "permission_denied")
        key = (await alice.post("/api/auth/keys", json={"name": "mine"})).json()["key"]
        async with with_key(server, key) as plain:
            assert (await me(plain, person("u-1")))["username"] == "alice", "anybody else's headers mean nothing"
        assert (await me(alice, person("root", "root")))["username"] == "alice"


async def test_an_admin_can_shut_out_and_bound_a_forwarded_person(server: RunningServer) -> None:
    async with with_key(server, await ui_key(server)) as ui:
        name = (await me(ui, person("u-1")))["username"]
        user = await server.app.state.context.users.find("root")
        token = server.app.state.context.authenticator.make_token(user)
        async with with_key(server, token) as admin:
            await admin.put(f"/api/admin/users/{name}/limits", json={"requests_per_minute": 1})
            assert [(await ask(ui, headers=person("u-1"))).status_code for _ in range(2)] == [200, 429]
            assert (await ask(ui, headers=person("u-2"))).status_code == 200
            await admin.patch(f"/api/admin/users/{name}", json={"disabled": True})
            assert code_of(await ask(ui, headers=person("u-1"))) == (403, "account_disabled")
            await admin.delete(f"/api/admin/users/{name}")
            assert (await ask(ui, headers=person("u-1"))).status_code == 200, "a new account"


async def test_with_a_secret_only_what_is_signed_with_it_is_believed(tmp_path: Path, ollama: FakeOllama) -> None:
    async with (
        chat_server(tmp_path, ollama, FORWARDED_USER_SECRET=SECRET) as server,
        with_key(server, await ui_key(server)) as ui,
    ):
        assert (await me(ui, signed()))["username"] == "ann@example.org"
        assert (await me(ui, signed()))["role"] == "user"
        wrong = [
            signed(OTHER_SECRET),
            signed(algorithm="HS512"),
            signed(iss="somebody"),
            signed(iss=None),
            signed(exp=time.time() - 60),
            signed(exp=None),
            signed(exp="NaN"),
            signed(exp="inf"),
            signed(sub=""),
            signed(sub=None),
            {"X-OpenWebUI-User-Jwt": "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ1LTEifQ."},
            {"X-OpenWebUI-User-Jwt": "rubbish"},
            {"X-OpenWebUI-User-Jwt": ""},
            person("u-1"),
        ]
        for headers in wrong:
            assert code_of(await ask(ui, headers=headers)) == (401, "invalid_forwarded_user"), headers


async def test_what_is_signed_is_refused_where_no_secret_is_set(server: RunningServer) -> None:
    async with with_key(server, await ui_key(server)) as ui:
        refused = await ask(ui, headers=signed())
        assert code_of(refused) == (401, "invalid_forwarded_user")
        assert "FORWARDED_USER_SECRET" in refused.json()["error"]["message"]


async def test_the_same_person_seen_many_times_at_once_gets_one_account(server: RunningServer) -> None:
    async with with_key(server, await ui_key(server)) as ui:
        headers = person("u-1", "J%C3%BCrgen M.")  # as Open WebUI writes what a header cannot hold
        names = {user["username"] for user in await asyncio.gather(*(me(ui, headers) for _ in range(5)))}
        assert names == {"J-rgen-M"}


async def test_a_key_comes_in_either_header(server: RunningServer) -> None:
    key = await ui_key(server)
    models = await server.client.get("/v1/models/", headers={"x-api-key": key})
    assert models.status_code == 200
    assert MODEL in [model["id"] for model in models.json()["data"]]
    assert not models.history, "no redirect, at which clients drop their credentials"


# --- Which chat ------------------------------------------------------------------------------------------------------


async def chat(client: httpx.AsyncClient, chat_id: str, *said: str) -> httpx.Response:
    roles = ("user", "assistant")
    messages = [{"role": roles[place % 2], "content": text} for place, text in enumerate(said)]
    return await ask(client, messages=messages, headers={"X-OpenWebUI-Chat-Id": chat_id})


async def contents(client: httpx.AsyncClient, response: httpx.Response) -> list[str]:
    history = await client.get(f"/api/chat/history/{response.json()['session_id']}")
    return [message["content"] for message in history.json()["messages"]]


async def test_a_chat_id_names_the_session_and_nothing_is_kept_twice(server: RunningServer) -> None:
    async with await server.signed_in("alice") as alice, await server.signed_in("bob") as bob:
        first = await chat(alice, "chat-1", "Hi")
        second = await chat(alice, "chat-1", "Hi", "Echo: Hi (as the UI has changed it)", "Ho")
        third = await chat(alice, "chat-1", "Hi", "Edited", "Ho", "Edited too", "Ha")
        assert first.json()["session_id"] == second.json()["session_id"] == third.json()["session_id"]
        assert await contents(alice, third) == ["Hi", "Echo: Hi", "Ho", "Echo: Ho", "Ha", "Echo: Ha"]
        others = [await chat(alice, "chat-2", "Hi"), await chat(bob, "chat-1", "Hi")]
        assert len({response.json()["session_id"] for response in (first, *others)}) == 3


async def test_a_chat_that_began_before_its_id_was_sent_goes_on(server: RunningServer) -> None:
    async with await server.signed_in("alice") as alice:
        first = await ask(alice, "Hi")
        second = await chat(alice, "chat-1", "Hi", "Echo: Hi", "Ho")
        third = await chat(alice, "chat-1", "Hi", "changed", "Ho", "changed", "Ha")
        assert first.json()["session_id"] == second.json()["session_id"] == third.json()["session_id"]


async def test_a_chat_whose_session_was_deleted_begins_anew(server: RunningServer) -> None:
    async with await server.signed_in("alice") as alice:
        first = await chat(alice, "chat-1", "Hi")
        await alice.delete(f"/api/chat/sessions/{first.json()['session_id']}")
        again = await chat(alice, "chat-1", "Hi", "Echo: Hi", "Ho")
        assert again.json()["session_id"] != first.json()["session_id"]
        assert await contents(alice, again) == ["Hi", "Echo: Hi", "Ho", "Echo: Ho"]


@pytest.mark.parametrize("no_id", ["", "new", "{{CHAT_ID}}"])
async def test_chats_without_an_id_are_not_one_chat(server: RunningServer, no_id: str) -> None:
    async with await server.signed_in("alice") as alice:
        sessions = {(await chat(alice, no_id, text)).json()["session_id"] for text in ("Hi", "Ho")}
        assert len(sessions) == 2


async def test_a_task_header_that_is_empty_is_an_ordinary_question(server: RunningServer) -> None:
    async with await server.signed_in("alice") as alice:
        response = await ask(alice, headers={"X-OpenWebUI-Task": "", "X-OpenWebUI-Chat-Id": "chat-1"})
        assert response.json()["session_id"]


async def test_a_temporary_chat_leaves_nothing_behind(server: RunningServer) -> None:
    async with await server.signed_in("alice") as alice:
        response = await chat(alice, "local:abc", "Hi")
        assert response.json()["choices"][0]["message"]["content"] == "Echo: Hi"
        assert (await alice.get("/api/chat/sessions")).json()["sessions"] == []


# --- What is no chat -------------------------------------------------------------------------------------------------

TITLE = "### Task:\nGenerate a concise, 3-5 word title\n### Chat History:\n<chat_history>\nUSER: Hi\n</chat_history>"


TASKS: list[tuple[str, dict[str, str]]] = [
    (TITLE, {}),
    ("Anything", {"X-OpenWebUI-Task": "title_generation"}),
    ("Provide a concise, 5-word-or-less title for the conversation, using title case.\n\nConversation:\nHi", {}),
    ("Analyze this conversation and provide:\n1. The detected language of the conversation\n2. A title\n\nHi", {}),
]


async def test_titles_and_tags_are_plain_chat_without_a_session_whatever_the_agent(
    tmp_path: Path, ollama: FakeOllama
) -> None:
    async with chat_server(tmp_path, ollama, DEFAULT_AGENT="react") as server, await server.signed_in() as alice:
        for model in (f"react/{MODEL}", f"plan_execute/{MODEL}", MODEL, None):
            for prompt, headers in TASKS:
                headers = {"X-OpenWebUI-Chat-Id": "chat-1", **headers}
                response = await ask(alice, prompt, model=model, headers=headers)
                assert response.status_code == 200
                assert "x-run-id" not in response.headers
                assert response.json().get("session_id") is None
                assert ollama.chats[-1].body["messages"] == [{"role": "user", "content": prompt}]
        assert len(ollama.chats) == 4 * len(TASKS)
        assert (await alice.get("/api/chat/sessions")).json()["sessions"] == []


async def test_librechats_model_for_titles_is_one_that_is_there(server: RunningServer) -> None:
    async with await server.signed_in() as alice:
        assert (await ask(alice, TITLE, model="gpt-3.5-turbo")).status_code == 200


def test_a_question_that_open_webui_frames_with_documents_is_a_question() -> None:
    framed = (
        "### Task:\nRespond to the user query using the provided context, incorporating inline citations.\n<context>"
    )
    assert not is_ui_task({}, framed)
    assert not is_ui_task({}, "How do I write ### Task: in Markdown?")
    assert is_ui_task({}, "### Task:\nSuggest 3-5 relevant follow-up questions")
