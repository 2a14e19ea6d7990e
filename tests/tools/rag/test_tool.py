"""The rag tool over the real tools API, and in an agent's run over both servers."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.support import documents
from tests.support.agents import NativeModel, RunningAgents, running_agents
from tests.support.llm_script import Reply
from tests.support.tools_server import RunningTools, running_tools

TOOLS = {"rag": "tools.rag.tool:Rag"}
CALL = "/api/tools/rag"
UPLOAD = "/api/tools/rag/upload"
PAGES = ["# Rivers\nThe river Elbe rises in the mountains.", "# Bridges\nThe bridge of Prague has sixteen arches."]


@pytest.fixture
async def tools(tmp_path: Path, tiny_model: Path) -> AsyncIterator[RunningTools]:
    async with running_tools(tmp_path / "data", TOOLS, RAG_EMBEDDING_MODEL=str(tiny_model)) as running:
        yield running


async def fill(client: Any, collection: str, **files: bytes) -> str:
    """Upload files; return the collection's id."""
    made = await client.post("/api/tools/rag/collections", json={"name": collection})
    assert made.status_code == 201, made.text
    sent = [("files", (name.replace("_", "."), content)) for name, content in files.items()]
    response = await client.post(UPLOAD, files=sent, data={"collection": collection})
    assert response.json()["failed"] == 0, response.text
    identity: str = made.json()["id"]
    return identity


async def ask(tools: RunningTools, query: str, *, bound_to: str = "", **arguments: Any) -> dict[str, Any]:
    headers = {"X-RAG-Collection": quote(bound_to)} if bound_to else {}
    response = await tools.alice.post(CALL, json={"query": query, "raw": True, **arguments}, headers=headers)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def test_a_passage_comes_with_its_document_its_page_and_an_address(tools: RunningTools, tmp_path: Path) -> None:
    pdf = documents.make_pdf(tmp_path / "a.pdf", PAGES).read_bytes()
    collection = await fill(tools.alice, "manuals", a_pdf=pdf)
    answer = await ask(tools, "bridge of Prague", collection="manuals")
    first = answer["data"]["sources"][0]
    assert (first["document"], first["page"], first["section"]) == ("a.pdf", 2, "Bridges")
    assert first["url"] == f"/api/documents/{collection}/{first['id']}#page=2"
    assert "sixteen arches" in first["text"]
    assert "[1] a.pdf, page 2" in answer["answer"]


async def test_an_unknown_collection_is_answered_with_those_that_there_are(tools: RunningTools) -> None:
    await fill(tools.alice, "manuals", a_txt=b"A note.")
    answer = await ask(tools, "note", collection="manual")
    assert (answer["success"], "'manual'" in answer["error"], "manuals" in answer["error"]) == (False, True, True)


async def test_the_request_binds_the_model_to_its_collections_also_with_commas_in_their_names(
    tools: RunningTools,
) -> None:
    await fill(tools.alice, "rivers, large", a_txt=b"The river Elbe.")
    await fill(tools.alice, "bridges", b_txt=b"The bridge over the river.")
    await fill(tools.alice, "other", c_txt=b"The river of another.")
    answer = await ask(tools, "river", bound_to="rivers, large\nbridges", collection="other")
    assert {source["document"] for source in answer["data"]["sources"]} == {"a.txt", "b.txt"}


async def test_where_nothing_is_found_the_answer_says_so(tools: RunningTools) -> None:
    answer = await ask(tools, "anything")
    assert (answer["success"], answer["data"]["sources"]) == (True, [])
    assert "Nothing" in answer["answer"]


async def test_a_long_query_and_an_odd_one_are_searched(tools: RunningTools) -> None:
    await fill(tools.alice, "manuals", a_txt=b"The river Elbe.")
    assert (await ask(tools, "river " * 16_666, collection="manuals"))["data"]["sources"]
    assert (await ask(tools, '"river" AND (NOT * OR ~', collection="manuals"))["success"]
    too_long = await tools.alice.post(CALL, json={"query": "a" * 100_001})
    assert too_long.status_code == 400


async def test_what_others_have_does_not_exist_until_it_is_shared(tools: RunningTools) -> None:
    collection = await fill(tools.bob, "secrets", b_txt=b"The river of Bob.")
    path = f"/api/tools/rag/collections/{collection}"
    assert not (await ask(tools, "river", collection=collection))["success"]
    for method, rest in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("GET", "/documents"), ("POST", "/reindex")):
        assert (await tools.alice.request(method, path + rest, json={})).status_code == 404
    assert (await tools.bob.patch(path, json={"share_with": ["alice"]})).status_code == 200
    assert (await ask(tools, "river", collection=collection))["data"]["sources"][0]["document"] == "b.txt"
    for method, rest in (("PATCH", ""), ("DELETE", ""), ("DELETE", "/documents/b.txt"), ("POST", "/reindex")):
        refused = await tools.alice.request(method, path + rest, json={"name": "mine"} if not rest else None)
        assert refused.status_code == 403, (method, rest)
    files = [("files", ("x.txt", b"x"))]
    assert (await tools.alice.post(UPLOAD, files=files, data={"collection": collection})).status_code == 403
    assert (await tools.alice.get(f"{path}/documents/b.txt/file")).content == b"The river of Bob."


async def test_an_upload_streams_how_far_it_is_and_one_bad_file_fails_alone(
    tools: RunningTools, tmp_path: Path
) -> None:
    secret = documents.make_pdf(tmp_path / "s.pdf", ["hidden"], password="x").read_bytes()
    pages = documents.make_pdf(tmp_path / "p.pdf", PAGES).read_bytes()
    files = [
        ("files", (name, content)) for name, content in (("s.pdf", secret), ("e.pdf", b""), ("../文 p.pdf", pages))
    ]
    form = {"collection": "manuals", "attributes": '{"year": 2024}'}
    response = await tools.alice.post(UPLOAD, files=files, data=form, headers={"Accept": "text/event-stream"})
    kinds = [line.removeprefix("event: ") for line in response.text.splitlines() if line.startswith("event: ")]
    assert [kind for kind in kinds if kind != "progress"] == ["file", "file", "file", "result"]
    assert kinds[-2] == "file"
    assert "progress" in kinds
    (document,) = (await tools.alice.get("/api/tools/rag/collections/manuals/documents")).json()["documents"]
    assert (document["name"], document["pages"], document["attributes"]) == ("文 p.pdf", 2, {"year": 2024})
    wrong = await tools.alice.post(UPLOAD, files=files, data={"attributes": '{"year": []}'})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "attributes")


async def test_a_client_that_leaves_takes_its_upload_along(tools: RunningTools) -> None:
    long = "".join(f"Sentence number {number} tells of the river.\n\n" for number in range(30_000)).encode()
    files = [("files", ("long.txt", long))]
    async with tools.alice.stream("POST", UPLOAD, files=files, headers={"Accept": "text/event-stream"}) as response:
        async for line in response.aiter_lines():
            if line == "event: progress":
                break
    folder = tools.context.settings.DATA_DIR
    async with asyncio.timeout(20):
        while list(folder.glob("uploads/drafts/*/rag_*")):
            await asyncio.sleep(0.05)
    assert (await tools.alice.get("/api/tools/rag/collections/default/documents")).json()["documents"] == []
    assert [path.name for path in folder.glob("rag/alice/vs_*/files/*") if path.name != ".lock"] == []


# --- In a chat --------------------------------------------------------------------------------------------------------


def search_then_answer(messages: list[dict[str, Any]]) -> Reply:
    if messages[-1]["role"] == "tool":
        return Reply(text="Sixteen arches [1].")
    return Reply(tool_calls=(("rag", {"query": "bridge of Prague", "raw": True}),))


@pytest.fixture
async def servers(tmp_path: Path, tiny_model: Path) -> AsyncIterator[RunningAgents]:
    async with (
        NativeModel() as model,
        running_agents(tmp_path / "data", model, tools=TOOLS, RAG_EMBEDDING_MODEL=str(tiny_model)) as running,
    ):
        model.choose = search_then_answer
        yield running


async def put_in(servers: RunningAgents, name: str, path: Path) -> str:
    loaded = servers.tools.toolbox.find("rag")
    await loaded.wait_until_usable()
    collections = loaded.tool.collections
    collection = await collections.create("alice", name)
    await collections.add("alice", collection.id, path, path.name)
    identity: str = collection.id
    return identity


async def test_an_agents_answer_has_the_page_as_an_annotation_and_its_link_opens_the_document(
    servers: RunningAgents, tmp_path: Path
) -> None:
    pdf = documents.make_pdf(tmp_path / "bridges.pdf", PAGES)
    collection = await put_in(servers, "manuals, all", pdf)
    await put_in(servers, "other", pdf)
    answer = await servers.ask("How many arches?", agent_type="react", rag_collection=["manuals, all"])
    message = answer["choices"][0]["message"]
    (citation,) = [one["url_citation"] for one in message["annotations"]]
    assert citation["title"] == "bridges.pdf, page 2"
    assert citation["url"].startswith(f"/api/documents/{collection}/doc_")
    assert citation["url"].endswith("#page=2")
    assert message["content"][citation["start_index"] : citation["end_index"]] == "[1]"
    original = await servers.alice.get(citation["url"])
    assert original.content == await asyncio.to_thread(pdf.read_bytes)
    assert (await servers.bob.get(citation["url"])).status_code == 404


async def test_a_response_names_the_document_by_an_id_that_vector_stores_know(
    servers: RunningAgents, tmp_path: Path
) -> None:
    collection = await put_in(servers, "manuals", documents.make_pdf(tmp_path / "bridges.pdf", PAGES))
    body = {
        "input": "How many arches?",
        "tools": [{"type": "file_search", "vector_store_ids": [collection]}],
        "include": ["file_search_call.results"],
    }
    response = (await servers.alice.post("/v1/responses", json=body)).json()
    (search,) = [item for item in response["output"] if item["type"] == "file_search_call"]
    found = search["results"][0]
    assert (found["filename"], found["attributes"]) == ("bridges.pdf", {"page": 2})
    shown = await servers.alice.get(f"/v1/vector_stores/{collection}/files/{found['file_id']}")
    assert shown.status_code == 200


async def test_a_file_in_a_conversation_goes_into_no_collection(servers: RunningAgents) -> None:
    files = [("files", ("note.txt", b"The bridge is closed.", "text/plain"))]
    form = {"messages": '[{"role": "user", "content": "What is this?"}]', "agent_type": "chat"}
    assert (await servers.alice.post("/v1/chat/completions", data=form, files=files)).status_code == 200
    assert (await servers.alice.get("/v1/vector_stores")).json()["data"] == []


async def test_a_deleted_user_leaves_no_collection_behind(servers: RunningAgents, tmp_path: Path) -> None:
    collection = await put_in(servers, "manuals", documents.make_pdf(tmp_path / "bridges.pdf", PAGES))
    uploaded = await servers.alice.post("/v1/files", files={"file": ("a.txt", b"A.")}, data={"purpose": "assistants"})
    body = {"file_id": uploaded.json()["id"]}
    assert (await servers.alice.post(f"/v1/vector_stores/{collection}/files", json=body)).status_code == 200
    assert (servers.data_dir / "rag" / "alice").exists()
    await servers.main.users.delete("alice", delete_data=servers.main.user_data.delete)
    assert not (servers.data_dir / "rag" / "alice").exists()
    signup = await servers.bob.post("/api/auth/signup", json={"username": "alice", "password": "another one"})
    headers = {"Authorization": f"Bearer {signup.json()['access_token']}"}
    assert (await servers.bob.get("/v1/vector_stores", headers=headers)).json()["data"] == []
    assert (await servers.bob.get(f"/v1/vector_stores/{collection}", headers=headers)).status_code == 404
    made = await servers.bob.post("/v1/vector_stores", json={"name": "manuals"}, headers=headers)
    assert made.status_code == 200
