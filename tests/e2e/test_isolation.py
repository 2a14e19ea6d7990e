"""Nobody reaches what is somebody else's: every route of both real servers, by every id that alice has.

The table below knows each route of both descriptions; one that it does not know fails, until somebody says whose it is.
"""

import asyncio
import json
import re
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from backend.api.app import create_app
from backend.api.tools_app import create_tools_app
from backend.utils.shared_stamp import REREAD_S
from tests.support.agents import CHAT, NativeModel, RunningAgents, running_agents
from tests.support.tiny_bert import make_tiny_bert

TOOLS = {
    "toy": "tests.support.toy_tool.tool:ToyTool",
    "rag": "tools.rag.tool:Rag",
    "ppt_maker": "tools.ppt_maker.tool:PptMaker",
}
SECRET_TEXT = "The password of the vault is zebra-7319."
RAG = "/api/tools/rag/collections/{ref}"
STORE = "/v1/vector_stores/{store_id}"
SESSION = "/api/chat/sessions/{session_id}"
QUESTION = {"messages": [{"role": "user", "content": "Hello"}]}

# By an id in its address: 404 for everybody but its owner. With a body that its owner could send.
OWNED: dict[str, Any] = {
    "GET /v1/responses/{response_id}": None,
    "GET /v1/responses/{response_id}/input_items": None,
    "POST /v1/responses/{response_id}/cancel": None,
    "DELETE /v1/responses/{response_id}": None,
    "GET /v1/files/{file_id}": None,
    "GET /v1/files/{file_id}/content": None,
    "DELETE /v1/files/{file_id}": None,
    f"GET {STORE}": None,
    f"POST {STORE}": {"name": "stolen"},
    f"DELETE {STORE}": None,
    f"POST {STORE}/search": {"query": "the vault"},
    f"GET {STORE}/files": None,
    f"POST {STORE}/files": {"file_id": "{own_file}"},
    f"GET {STORE}/files/{{file_id}}": None,
    f"POST {STORE}/files/{{file_id}}": {"attributes": {"a": "b"}},
    f"GET {STORE}/files/{{file_id}}/content": None,
    f"DELETE {STORE}/files/{{file_id}}": None,
    f"POST {STORE}/file_batches": {"file_ids": ["{own_file}"]},
    f"GET {STORE}/file_batches/{{batch_id}}": None,
    "GET /api/documents/{collection_id}/{document_id}": None,
    "DELETE /api/auth/keys/{key_id}": None,
    f"GET {SESSION}": None,
    f"PATCH {SESSION}": {"title": "stolen"},
    f"DELETE {SESSION}": None,
    f"GET {SESSION}/files": None,
    f"GET {SESSION}/files/{{name}}": None,
    f"GET {SESSION}/runs/{{run_id}}": None,
    "GET /api/chat/history/{session_id}": None,
    f"GET {RAG}": None,
    f"PATCH {RAG}": {"name": "taken"},
    f"DELETE {RAG}": None,
    f"POST {RAG}/search": {"query": "the vault"},
    f"GET {RAG}/documents": None,
    f"GET {RAG}/documents/{{document}}": None,
    f"PATCH {RAG}/documents/{{document}}": {"attributes": {"a": "b"}},
    f"DELETE {RAG}/documents/{{document}}": None,
    f"GET {RAG}/documents/{{document}}/text": None,
    f"GET {RAG}/documents/{{document}}/file": None,
    f"POST {RAG}/reindex": None,
}
# For admins: 403 for others, also where there is no such user.
ADMINS: dict[str, Any] = {
    "GET /api/admin/users": None,
    "POST /api/admin/users": {"username": "mallory", "password": "correct horse"},
    "GET /api/admin/users/{username}": None,
    "PATCH /api/admin/users/{username}": {"role": "admin"},
    "DELETE /api/admin/users/{username}": None,
    "POST /api/admin/users/{username}/keys": {"name": "stolen"},
    "GET /api/admin/users/{username}/limits": None,
    "PUT /api/admin/users/{username}/limits": {},
    "GET /api/admin/usage": None,
}
# One's own, without an id: each sees what is theirs. What lists must not name anything of alice's.
LISTS = (
    "GET /v1/files",
    "GET /v1/vector_stores",
    "GET /api/auth/keys",
    "GET /api/auth/me",
    "GET /api/chat/sessions",
    "GET /api/usage",
    "GET /api/tools/rag/collections",
    "GET /v1/models",
    "GET /v1/models/{model_id}",
    "GET /api/tools/list",
)
# Ids come in bodies and headers, if at all: tried one by one below.
BODIES = (
    "POST /v1/chat/completions",
    "POST /v1/responses",
    "POST /v1/completions",
    "POST /v1/embeddings",
    "POST /v1/files",
    "POST /v1/vector_stores",
    "POST /api/auth/keys",
    "POST /api/auth/password",
    "POST /api/tools/rag/collections",
    "POST /api/tools/rag/upload",
    "POST /api/tools/rag",
    "POST /api/tools/toy",
    "POST /api/tools/ppt_maker",
)
# In no description: what the main API asks the tools API for, and what explains the routes.
HIDDEN = {"POST /api/tools/rag/embeddings": "tools", "POST /api/tools/{name}": "tools", "GET /v1/models/": "main"}
PAGES = ("/openapi.json", "/docs", "/docs/assets")
FOR_ALL = ("POST /api/auth/signup", "POST /api/auth/login", "GET /health", "GET /ready", "GET /metrics")


@dataclass
class Servers:
    agents: RunningAgents
    alice: dict[str, httpx.AsyncClient]  # by "main" and "tools"
    bob: dict[str, httpx.AsyncClient]
    nobody: dict[str, httpx.AsyncClient]
    dead_key: dict[str, httpx.AsyncClient]
    operations: dict[str, str]  # "GET /v1/files": "main"

    async def call(self, who: dict[str, httpx.AsyncClient], operation: str, ids: dict[str, str]) -> httpx.Response:
        method, path = operation.split(" ")
        body = (OWNED | ADMINS).get(operation)
        client = who[self.operations[operation]]
        return await client.request(method, fill(path, ids), json=filled(body, ids))


def fill(path: str, ids: dict[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: ids[found[1]], path)


def filled(body: Any, ids: dict[str, str]) -> Any:
    return None if body is None else json.loads(json.dumps(body).replace("{own_file}", ids.get("own_file", "")))


def routes_of(router: Any) -> Iterator[Any]:
    for route in router.routes:
        if included := getattr(route, "original_router", None):
            yield from routes_of(included)
        else:
            yield route


@pytest.fixture(scope="module")
def embedding_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bert(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
async def servers(tmp_path: Path, embedding_model: Path) -> AsyncIterator[Servers]:
    async with AsyncExitStack() as stack:
        model = await stack.enter_async_context(NativeModel())
        agents = await stack.enter_async_context(
            running_agents(tmp_path / "data", model, tools=TOOLS, RAG_EMBEDDING_MODEL=str(embedding_model))
        )
        urls = {"main": agents.url, "tools": f"http://127.0.0.1:{agents.main.settings.TOOLS_PORT}"}

        async def clients(authorization: str | None) -> dict[str, httpx.AsyncClient]:
            headers = {"Authorization": authorization} if authorization else {}
            return {
                name: await stack.enter_async_context(httpx.AsyncClient(base_url=url, headers=headers, timeout=30))
                for name, url in urls.items()
            }

        key = (await agents.alice.post("/api/auth/keys", json={"name": "gone"})).json()
        nobody = await clients(None)
        descriptions = {name: (await nobody[name].get("/openapi.json")).json() for name in urls}
        dead_key = await clients(f"Bearer {key['key']}")
        assert (await dead_key["main"].get("/v1/files")).status_code == 200
        assert (await dead_key["tools"].get("/api/tools/rag/collections")).status_code == 200
        assert (await agents.alice.delete(f"/api/auth/keys/{key['id']}")).status_code == 200
        yield Servers(
            agents,
            await clients(agents.alice.headers["authorization"]),
            await clients(agents.bob.headers["authorization"]),
            nobody,
            dead_key,
            {
                f"{method.upper()} {path}": name
                for name, description in descriptions.items()
                for path, operations in description["paths"].items()
                for method in operations
            },
        )


async def own_everything(who: dict[str, httpx.AsyncClient], data_dir: Path) -> dict[str, str]:
    """Make one of each kind. Returns their ids, by the names that addresses have for them."""
    main, tools = who["main"], who["tools"]
    note = ("secret.md", SECRET_TEXT.encode())
    file_id = (await main.post("/v1/files", files={"file": note}, data={"purpose": "assistants"})).json()["id"]
    part = {"type": "file", "file": {"file_id": file_id}}
    content = [{"type": "text", "text": SECRET_TEXT}, part]
    asked = await main.post(
        CHAT, json={"messages": [{"role": "user", "content": content}]}, headers={"X-OpenWebUI-Chat-Id": "chat-1"}
    )
    assert asked.status_code == 200, asked.text
    session_id = asked.headers["x-session-id"]
    responded = await main.post("/v1/responses", json={"input": SECRET_TEXT})
    assert responded.status_code == 200, responded.text
    store = await main.post("/v1/vector_stores", json={"name": "vault", "file_ids": [file_id]})
    assert store.json()["file_counts"]["completed"] == 1, store.text
    store_id = store.json()["id"]
    batch = await main.post(f"/v1/vector_stores/{store_id}/file_batches", json={"file_ids": [file_id]})
    uploaded = await tools.post("/api/tools/rag/upload", files={"files": note}, data={"collection": "tools vault"})
    assert uploaded.status_code == 200, uploaded.text
    ref, document = uploaded.json()["collection"]["id"], uploaded.json()["files"][0]["document"]["id"]
    key = await main.post("/api/auth/keys", json={"name": "laptop"})
    runs = await asyncio.to_thread(lambda: list((data_dir / "runs" / session_id).iterdir()))
    return {
        "file_id": file_id,
        "session_id": session_id,
        "name": "secret.md",
        "run_id": runs[0].name.partition(".")[0],
        "response_id": responded.json()["id"],
        "store_id": store_id,
        "batch_id": batch.json()["id"],
        "collection_id": ref,
        "document_id": document,
        "ref": ref,
        "document": document,
        "key_id": key.json()["id"],
    }


def made_up(ids: dict[str, str]) -> dict[str, str]:
    """Ids of the same form that nobody has."""
    return {name: re.sub(r"[0-9a-f]{16,}", lambda found: "0" * len(found[0]), value) for name, value in ids.items()}


async def snapshot(servers: Servers, ids: dict[str, str]) -> dict[str, tuple[int, bytes]]:
    """Everything that alice can read of what is hers."""
    reads = [one for one in OWNED if one.startswith("GET ")]
    answers = {one: await servers.call(servers.alice, one, ids) for one in (*reads, *LISTS[:7])}
    for one, answer in answers.items():
        assert answer.status_code == 200, (one, answer.text)
    return {one: (answer.status_code, answer.content) for one, answer in answers.items()}


async def test_every_route_of_both_servers_is_known_here(servers: Servers) -> None:
    known = {*OWNED, *ADMINS, *LISTS, *BODIES, *FOR_ALL}
    assert set(servers.operations) == known
    settings = servers.agents.main.settings
    apps = [create_app(settings), await asyncio.to_thread(create_tools_app, settings, TOOLS)]
    hidden = [
        route for app in apps for route in routes_of(app.router) if not getattr(route, "include_in_schema", False)
    ]
    assert {route.path for route in hidden} == {*PAGES, *(operation.split(" ")[1] for operation in HIDDEN)}
    for operation, server in HIDDEN.items():
        for stranger in (servers.nobody, servers.dead_key):
            method, path = operation.split(" ")
            assert (await stranger[server].request(method, path)).status_code == 401, operation


async def test_ids_of_others_lead_nowhere_and_change_nothing(servers: Servers) -> None:
    ids = await own_everything(servers.alice, servers.agents.data_dir)
    own_file = {"file": ("own.md", b"bob's own")}
    made = await servers.bob["main"].post("/v1/files", files=own_file, data={"purpose": "assistants"})
    theirs = ids | {"own_file": made.json()["id"]}
    before = await snapshot(servers, ids)
    for operation in OWNED:
        answer = await servers.call(servers.bob, operation, theirs)
        assert answer.status_code == 404, (operation, answer.status_code, answer.text)
        never_was = await servers.call(servers.bob, operation, made_up(theirs) | {"own_file": theirs["own_file"]})
        assert answer.json()["error"] == never_was.json()["error"], operation
        for stranger in (servers.nobody, servers.dead_key):
            assert (await servers.call(stranger, operation, theirs)).status_code == 401, operation
    assert await snapshot(servers, ids) == before
    # What was refused is refused for whose it is, and for nothing else: its owner may do it all.
    mine = ids | {"own_file": ids["file_id"]}
    changes = [one for one in OWNED if not one.startswith("GET ")]
    for operation in sorted(changes, key=lambda one: (one.startswith("DELETE"), -one.count("/"))):
        if operation == "DELETE /v1/files/{file_id}" or operation.endswith("/cancel"):
            continue  # its file is needed to the end; only what runs can be cancelled
        answer = await servers.call(servers.alice, operation, mine)
        assert answer.status_code == 200, (operation, answer.status_code, answer.text)


async def test_routes_of_admins_tell_others_nothing(servers: Servers) -> None:
    for operation in ADMINS:
        answers = [await servers.call(servers.bob, operation, {"username": name}) for name in ("alice", "no-one")]
        assert [answer.status_code for answer in answers] == [403, 403], operation
        assert answers[0].json()["error"] == answers[1].json()["error"]
        for stranger in (servers.nobody, servers.dead_key):
            assert (await servers.call(stranger, operation, {"username": "alice"})).status_code == 401, operation
    assert (await servers.bob["main"].get("/api/auth/me")).json()["role"] == "user"


async def test_lists_name_nothing_of_others_and_every_other_route_asks_who_calls(servers: Servers) -> None:
    ids = await own_everything(servers.alice, servers.agents.data_dir)
    model = {"model_id": "smollm2:135m"}
    for operation in LISTS:
        answer = await servers.call(servers.bob, operation, model)
        assert answer.status_code == 200, (operation, answer.text)
        assert not [one for one in set(ids.values()) if one in answer.text], operation
        assert not [word for word in ("alice", "vault") if word in answer.text], operation
    for operation in (*LISTS, *BODIES):
        for stranger in (servers.nobody, servers.dead_key):
            answer = await servers.call(stranger, operation, model)
            assert answer.status_code == 401, (operation, answer.status_code, answer.text)


async def test_ids_of_others_in_bodies_headers_and_queries_lead_nowhere(servers: Servers) -> None:
    ids = await own_everything(servers.alice, servers.agents.data_dir)
    before = await snapshot(servers, ids)
    main, tools = servers.bob["main"], servers.bob["tools"]

    def chat(**fields: Any) -> tuple[str, dict[str, Any]]:
        return CHAT, {"json": QUESTION | fields}

    def respond(**fields: Any) -> tuple[str, dict[str, Any]]:
        return "/v1/responses", {"json": {"input": "Hello"} | fields}

    file_part = {"type": "file", "file": {"file_id": ids["file_id"]}}
    input_file = {"type": "input_file", "file_id": ids["file_id"]}
    attempts = {
        "a session": chat(session_id=ids["session_id"]),
        "a file in a message": chat(messages=[{"role": "user", "content": [file_part]}]),
        "a response to go on from": respond(previous_response_id=ids["response_id"]),
        "a session as a conversation": respond(conversation=ids["session_id"]),
        "a file in an input": respond(input=[{"role": "user", "content": [input_file]}]),
        "an item of a response": respond(
            input=[{"type": "item_reference", "id": f"msg_{ids['response_id'].removeprefix('resp_')}_0"}]
        ),
    }
    for what, (path, request) in attempts.items():
        answer = await main.post(path, **request)
        assert answer.status_code in {400, 404}, (what, answer.status_code, answer.text)
        assert "zebra" not in answer.text, what
    for query in (f"/v1/files?after={ids['file_id']}", f"/v1/vector_stores?after={ids['store_id']}"):
        assert (await main.get(query)).status_code == 400, query

    made = await main.post("/v1/vector_stores", json={"name": "mine", "file_ids": [ids["file_id"]]})
    assert made.json()["file_counts"] | {"total": 0} == made.json()["file_counts"] | {"total": 0, "completed": 0}
    mine = made.json()["id"]
    assert (await main.post(f"/v1/vector_stores/{mine}/files", json={"file_id": ids["file_id"]})).status_code == 404
    batch = await main.post(f"/v1/vector_stores/{mine}/file_batches", json={"file_ids": [ids["file_id"]]})
    assert batch.status_code != 200 or batch.json()["file_counts"]["completed"] == 0, batch.text
    assert (await main.get(f"/v1/vector_stores/{mine}/files")).json()["data"] == []

    note = {"files": ("evil.md", b"evil")}
    answer = await tools.post("/api/tools/rag/upload", files=note, data={"collection": ids["ref"]})
    assert answer.status_code in {404, 422}, answer.text
    for tool, body in (("toy", {}), ("rag", {"query": "the vault"}), ("ppt_maker", {"instruction": "A deck"})):
        answer = await tools.post(f"/api/tools/{tool}", json=body, headers={"X-Session-ID": ids["session_id"]})
        assert answer.status_code == 404, (tool, answer.text)
    for ref in (ids["ref"], "tools vault", "alice/tools vault"):
        headers = {"X-RAG-Collection": ref}
        answer = await tools.post("/api/tools/rag", json={"query": "the vault", "raw": True}, headers=headers)
        assert not [word for word in ("zebra", "alice") if word in answer.text.replace(ref, "")], answer.text
        assert answer.status_code != 200 or answer.json()["success"] is False, answer.text
    elsewhere = f"../{ids['session_id']}/secret.md"
    for fields in ({"files": [elsewhere]}, {"deck": elsewhere}, {"template": elsewhere}):
        answer = await tools.post("/api/tools/ppt_maker", json={"instruction": "A deck"} | fields)
        assert answer.status_code != 200 or answer.json()["success"] is False, answer.text
        assert "zebra" not in answer.text
    assert await snapshot(servers, ids) == before


async def test_what_clients_call_their_chats_and_requests_is_their_own(servers: Servers) -> None:
    named = {"X-OpenWebUI-Chat-Id": "chat-1", "Idempotency-Key": "key-1"}
    answers = [await who["main"].post(CHAT, json=QUESTION, headers=named) for who in (servers.alice, servers.bob)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].headers["x-session-id"] != answers[1].headers["x-session-id"]
    assert answers[0].json()["id"] != answers[1].json()["id"]
    assert "idempotent-replayed" not in answers[1].headers


def rows_of(database: Path) -> dict[str, list[Any]]:
    """All rows of all tables."""
    with closing(sqlite3.connect(database)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {table: sorted(map(repr, connection.execute(f'SELECT * FROM "{table}"'))) for table in tables}


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


async def test_a_deleted_user_leaves_nothing_and_a_later_one_of_the_name_inherits_nothing(servers: Servers) -> None:
    agents, nobody = servers.agents, servers.nobody["main"]
    data_dir, database = agents.data_dir, agents.main.settings.DATA_DIR / "app.db"
    await own_everything(servers.bob, data_dir)
    shared = (await servers.bob["tools"].post("/api/tools/rag/collections", json={"name": "shared"})).json()["id"]
    await agents.main.users.create("admin", "correct horse", "admin")
    names = {"username": "admin", "password": "correct horse"}
    admin = {"Authorization": f"Bearer {(await nobody.post('/api/auth/login', json=names)).json()['access_token']}"}
    await settled(agents)
    before = await asyncio.to_thread(rows_of, database), await asyncio.to_thread(files_of, data_dir)

    carol = {"username": "carol", "password": "correct horse"}
    keyed = {"Idempotency-Key": "key-1"}
    async with AsyncExitStack() as stack:

        async def sign_up() -> dict[str, httpx.AsyncClient]:
            answer = await nobody.post("/api/auth/signup", json=carol)
            assert answer.status_code == 201, answer.text
            headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
            urls = {name: client.base_url for name, client in servers.nobody.items()}
            return {
                name: await stack.enter_async_context(httpx.AsyncClient(base_url=url, headers=headers, timeout=30))
                for name, url in urls.items()
            }

        first = await sign_up()
        ids = await own_everything(first, data_dir)
        share = {"share_with": ["carol", "alice"]}
        assert (await servers.bob["tools"].patch(fill(RAG, {"ref": shared}), json=share)).status_code == 200
        assert shared in (await first["tools"].get("/api/tools/rag/collections")).text
        assert (await first["main"].post(CHAT, json=QUESTION, headers=keyed)).status_code == 200
        for _ in range(3):
            await nobody.post("/api/auth/login", json=carol | {"password": "wrong"})
        limits = "/api/admin/users/carol/limits"
        assert (await nobody.put(limits, json={"requests_per_minute": 500}, headers=admin)).status_code == 200
        await settled(agents)
        assert (await nobody.delete("/api/admin/users/carol", headers=admin)).status_code == 200
        await settled(agents)

        rows, files = await asyncio.to_thread(rows_of, database), await asyncio.to_thread(files_of, data_dir)
        # What an address has failed is counted whatever name it tries.
        rows["login_failures"] = [row for row in rows["login_failures"] if not row.startswith("('* ")]
        assert rows == before[0]
        assert files - before[1] == set()
        found = (await servers.bob["tools"].get(fill(RAG, {"ref": shared}))).json()
        assert found["shared_with"] == ["alice"]

        second = await sign_up()
        for operation in (one for one in OWNED if one.startswith("GET ")):
            assert (await servers.call(first, operation, ids)).status_code == 401, operation
            assert (await servers.call(second, operation, ids)).status_code == 404, operation
        for operation in LISTS[:7]:
            answer = await servers.call(second, operation, {})
            assert not [one for one in {*ids.values(), shared} if one in answer.text], (operation, answer.text)
        assert (await second["main"].get("/v1/vector_stores")).json()["data"] == []
        again = await second["main"].post(CHAT, json=QUESTION, headers=keyed)
        assert "idempotent-replayed" not in again.headers


async def test_a_user_who_is_deleted_amid_their_requests_leaves_nothing_either(servers: Servers) -> None:
    agents, bob = servers.agents, servers.bob
    assert (await bob["tools"].get("/api/tools/rag/collections")).status_code == 200  # the tool has started
    before = await asyncio.to_thread(files_of, agents.data_dir)
    part = {"type": "file", "file": {"filename": "a.txt", "file_data": "aGVsbG8="}}
    content = [{"type": "text", "text": "Count from 1 to 2000"}, part]
    chat = {"messages": [{"role": "user", "content": content}], "stream": True}
    text = "\n\n".join(f"# Part {number}\n{f'word{number} ' * 300}" for number in range(1000)).encode()
    running = [
        bob["main"].post(CHAT, json=chat | {"agent_type": "chat"}),
        bob["tools"].post("/api/tools/rag/upload", files={"files": ("big.md", text)}, data={"collection": "mine"}),
        bob["tools"].post("/api/tools/toy", json={"act": "sleep", "seconds": 2}),
    ]
    tasks = [asyncio.create_task(request) for request in running]
    while not agents.toy.journal[1:]:
        await asyncio.sleep(0.01)
    await agents.main.users.delete("bob", delete_data=agents.main.user_data.delete)
    await asyncio.gather(*tasks, return_exceptions=True)
    await settled(agents)
    rows = await asyncio.to_thread(rows_of, agents.data_dir / "app.db")
    assert not [row for table in rows.values() for row in table if "'bob'" in row]
    left = await asyncio.to_thread(files_of, agents.data_dir) - before
    assert not [name for name in left if re.search("sess_|vs_|file-|bob/", name)]


async def test_files_that_arrive_after_their_user_was_deleted_make_no_collection(servers: Servers) -> None:
    agents, tools = servers.agents, servers.bob["tools"]
    assert (await tools.get("/api/tools/rag/collections")).status_code == 200  # the tool has started

    async def body() -> AsyncIterator[bytes]:
        yield b'--B\r\nContent-Disposition: form-data; name="files"; filename="a.md"\r\n\r\nhello'
        await agents.main.users.delete("bob", delete_data=agents.main.user_data.delete)
        await asyncio.sleep(2 * REREAD_S)  # until every process knows
        yield b"\r\n--B--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=B"}
    answer = await tools.post("/api/tools/rag/upload", content=body(), headers=headers)
    assert answer.status_code == 401, answer.text
    assert not await asyncio.to_thread(list, agents.data_dir.glob("rag/bob/*"))


async def settled(agents: RunningAgents) -> None:
    """What is counted in the background is written."""
    await agents.main.usage.flush()
