"""`/v1/vector_stores` and `/api/documents`, with OpenAI's own client against both real servers."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI

from tests.support import documents
from tests.support.agents import NativeModel, RunningAgents, running_agents
from tests.support.tiny_bert import make_tiny_bert

TOOLS = {"rag": "tools.rag.tool:Rag"}
PAGES = ["# Rivers\nThe river Elbe rises in the mountains.", "# Bridges\nThe bridge of Prague has sixteen arches."]


@pytest.fixture(scope="module")
def embedding_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bert(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
async def server(tmp_path: Path, embedding_model: Path) -> AsyncIterator[RunningAgents]:
    async with (
        NativeModel() as model,
        running_agents(tmp_path / "data", model, tools=TOOLS, RAG_EMBEDDING_MODEL=str(embedding_model)) as running,
    ):
        yield running


@pytest.fixture
async def alice(server: RunningAgents) -> AsyncIterator[AsyncOpenAI]:
    async with client_of(server.alice) as client:
        yield client


@pytest.fixture
async def bob(server: RunningAgents) -> AsyncIterator[AsyncOpenAI]:
    async with client_of(server.bob) as client:
        yield client


def client_of(http: httpx.AsyncClient) -> AsyncOpenAI:
    key = http.headers["authorization"].removeprefix("Bearer ")
    return AsyncOpenAI(base_url=f"{http.base_url}/v1", api_key=key, max_retries=0, timeout=30)


async def upload(client: AsyncOpenAI, name: str, content: bytes) -> str:
    return (await client.files.create(file=(name, content), purpose="assistants")).id


async def test_a_store_is_made_shown_changed_listed_and_deleted(alice: AsyncOpenAI) -> None:
    made = await alice.vector_stores.create(name="año, 手册", metadata={"team": "blue"})
    assert (made.name, made.status, made.metadata, made.file_counts.total) == (
        "año, 手册",
        "completed",
        {"team": "blue"},
        0,
    )
    changed = await alice.vector_stores.update(made.id, name="manuals")
    assert (changed.name, changed.metadata) == ("manuals", {"team": "blue"})
    changed = await alice.vector_stores.update(made.id, metadata={})
    assert (changed.name, changed.metadata) == ("manuals", {})
    assert await alice.vector_stores.retrieve(made.id) == changed
    assert (await alice.vector_stores.delete(made.id)).to_dict() == {
        "id": made.id,
        "object": "vector_store.deleted",
        "deleted": True,
    }
    with pytest.raises(openai.NotFoundError):
        await alice.vector_stores.retrieve(made.id)


async def test_stores_are_listed_by_pages(alice: AsyncOpenAI) -> None:
    made = [(await alice.vector_stores.create()).id for _ in range(5)]
    assert [one.id async for one in alice.vector_stores.list(limit=2)] == made[::-1]
    assert [one.id async for one in alice.vector_stores.list(limit=2, order="asc")] == made
    page = await alice.vector_stores.list(limit=2, order="asc", before=made[3])
    assert [one.id for one in page.data] == made[1:3]
    with pytest.raises(openai.BadRequestError) as refused:
        await alice.vector_stores.list(after="vs_nobodys")
    assert refused.value.param == "after"


async def test_a_file_is_read_searched_and_taken_out_under_the_id_that_it_came_with(
    alice: AsyncOpenAI, server: RunningAgents, tmp_path: Path
) -> None:
    pdf = documents.make_pdf(tmp_path / "a.pdf", PAGES).read_bytes()
    file_id = await upload(alice, "the best año.pdf", pdf)
    store = await alice.vector_stores.create(name="manuals")
    added = await alice.vector_stores.files.create_and_poll(
        file_id, vector_store_id=store.id, attributes={"year": 2024}
    )
    assert (added.id, added.status, added.attributes) == (file_id, "completed", {"year": 2024})
    assert [one async for one in alice.vector_stores.files.list(store.id)] == [added]
    found = await alice.vector_stores.search(store.id, query="bridge of Prague")
    first = found.data[0]
    assert (first.file_id, first.filename) == (file_id, "the best año.pdf")
    assert first.attributes == {"page": 2, "section": "Bridges", "year": 2024}
    assert "sixteen arches" in first.content[0].text
    text = [part.text async for part in alice.vector_stores.files.content(file_id, vector_store_id=store.id)]
    assert "rises in the mountains" in " ".join(str(one) for one in text)
    assert (await alice.vector_stores.retrieve(store.id)).file_counts.completed == 1

    listed = (await server.alice.post(f"/v1/vector_stores/{store.id}/search", json={"query": "bridge"})).json()
    assert (listed["object"], listed["search_query"]) == ("vector_store.search_results.page", ["bridge"])

    await alice.vector_stores.files.delete(file_id, vector_store_id=store.id)
    with pytest.raises(openai.NotFoundError):
        await alice.vector_stores.files.retrieve(file_id, vector_store_id=store.id)
    assert [one async for one in alice.vector_stores.search(store.id, query="bridge")] == []
    assert (await alice.files.content(file_id)).content == pdf


async def test_a_search_keeps_to_its_filters_its_count_and_its_threshold(alice: AsyncOpenAI) -> None:
    store = await alice.vector_stores.create()
    for year in (2023, 2024):
        file_id = await upload(alice, f"{year}.txt", f"The river rose to {year} marks.".encode())
        await alice.vector_stores.files.create(store.id, file_id=file_id, attributes={"year": year})
    new: Any = {"type": "gte", "key": "year", "value": 2024}
    search = alice.vector_stores.search
    assert [one.filename async for one in search(store.id, query="river", filters=new)] == ["2024.txt"]
    assert len([one async for one in search(store.id, query=["river", "marks"])]) == 2
    assert len([one async for one in search(store.id, query="river", max_num_results=1)]) == 1
    assert [one async for one in search(store.id, query="river", ranking_options={"score_threshold": 1.1})] == []
    wrong: Any = {"type": "like", "key": "year", "value": 1}
    with pytest.raises(openai.BadRequestError) as refused:
        await search(store.id, query="river", filters=wrong)
    assert refused.value.param == "filters"
    await alice.vector_stores.files.update(file_id, vector_store_id=store.id, attributes={"year": 1999})
    assert [one.filename async for one in search(store.id, query="river", filters=new)] == []


async def test_a_store_is_made_from_files_and_counts_those_that_cannot_be_read(alice: AsyncOpenAI) -> None:
    good = await upload(alice, "good.md", b"# Rivers\n\nThe Elbe is a river.")
    empty = await upload(alice, "empty.pdf", b"")
    store = await alice.vector_stores.create(name="mixed", file_ids=[good, empty, "file-nobodys"])
    assert (store.file_counts.completed, store.file_counts.failed) == (1, 2)
    with pytest.raises(openai.BadRequestError) as refused:
        await alice.vector_stores.files.create(store.id, file_id=empty)
    assert refused.value.param == "file_id"


async def test_files_come_in_batches(alice: AsyncOpenAI) -> None:
    ids = [await upload(alice, f"{number}.txt", f"Note number {number}.".encode()) for number in range(3)]
    store = await alice.vector_stores.create()
    batch = await alice.vector_stores.file_batches.create_and_poll(store.id, file_ids=[*ids, "file-nobodys"])
    assert (batch.status, batch.file_counts.completed, batch.file_counts.failed) == ("completed", 3, 1)
    assert [one.id async for one in alice.vector_stores.files.list(store.id, limit=2)] == ids
    with pytest.raises(openai.NotFoundError):
        await alice.vector_stores.file_batches.retrieve("vsfb_1", vector_store_id=store.id)
    with pytest.raises(openai.BadRequestError):
        await alice.vector_stores.file_batches.create(store.id, file_ids=[])


async def test_the_same_file_twice_is_one_and_a_file_of_its_name_takes_its_place(alice: AsyncOpenAI) -> None:
    store = await alice.vector_stores.create()
    old = await upload(alice, "note.txt", b"The bridge is closed.")
    for _ in range(2):
        await alice.vector_stores.files.create(store.id, file_id=old)
    new = await upload(alice, "note.txt", b"The bridge is open.")
    await alice.vector_stores.files.create(store.id, file_id=new)
    assert [one.id async for one in alice.vector_stores.files.list(store.id)] == [new]
    found = [one.content[0].text async for one in alice.vector_stores.search(store.id, query="bridge")]
    assert found == ["The bridge is open."]


async def test_what_others_have_does_not_exist_until_they_share_it_and_then_it_is_for_reading(
    alice: AsyncOpenAI, bob: AsyncOpenAI, server: RunningAgents
) -> None:
    store = await alice.vector_stores.create(name="private")
    file_id = await upload(alice, "note.txt", b"The bridge is closed.")
    await alice.vector_stores.files.create(store.id, file_id=file_id)
    bobs = await upload(bob, "bob.txt", b"Bob was here.")
    for ask in (
        bob.vector_stores.retrieve(store.id),
        bob.vector_stores.delete(store.id),
        bob.vector_stores.update(store.id, name="mine"),
        bob.vector_stores.files.create(store.id, file_id=bobs),
        bob.vector_stores.files.retrieve(file_id, vector_store_id=store.id),
        bob.vector_stores.files.delete(file_id, vector_store_id=store.id),
        bob.vector_stores.search(store.id, query="bridge"),
        bob.vector_stores.files.list(store.id),
    ):
        with pytest.raises(openai.NotFoundError):
            await ask
    assert [one async for one in bob.vector_stores.list()] == []
    with pytest.raises(openai.NotFoundError):  # somebody else's file
        await bob.vector_stores.files.create((await bob.vector_stores.create()).id, file_id=file_id)

    collections = server.tools.toolbox.find("rag").tool.collections
    await collections.share("alice", store.id, ["bob"])
    assert [one.filename async for one in bob.vector_stores.search(store.id, query="bridge")] == ["note.txt"]
    for change in (
        bob.vector_stores.delete(store.id),
        bob.vector_stores.update(store.id, name="mine"),
        bob.vector_stores.files.create(store.id, file_id=bobs),
        bob.vector_stores.files.delete(file_id, vector_store_id=store.id),
    ):
        with pytest.raises(openai.PermissionDeniedError):
            await change


@pytest.mark.parametrize("store_id", ["%2e%2e", "vs_1", "..%2F..", "default", "vs_" + "0" * 24])
async def test_what_is_no_store_reaches_nothing(server: RunningAgents, store_id: str) -> None:
    for method, path in (("GET", ""), ("GET", "/files"), ("DELETE", "/files/doc_" + "0" * 24), ("POST", "/search")):
        response = await server.alice.request(method, f"/v1/vector_stores/{store_id}{path}", json={"query": "a"})
        assert response.status_code in {404, 405}, (store_id, path, response.text)
    body = {"query": "a" * 100_001}
    assert (await server.alice.post(f"/v1/vector_stores/{store_id}/search", json=body)).status_code in {400, 404}


async def test_what_a_store_cannot_do_is_refused_by_name(alice: AsyncOpenAI) -> None:
    for fields, param in (
        ({"expires_after": {"anchor": "last_active_at", "days": 1}}, "expires_after"),
        ({"metadata": {"a": "b" * 513}}, "metadata.a"),
        ({"name": "../secret"}, "name"),
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            await alice.vector_stores.create(**fields)  # type: ignore[arg-type]
        assert refused.value.param == param
    await alice.vector_stores.create(name="one")
    with pytest.raises(openai.ConflictError):
        await alice.vector_stores.create(name="one")


async def test_nobody_gets_in_without_a_token(server: RunningAgents) -> None:
    for path in ("/v1/vector_stores", f"/api/documents/vs_{'0' * 24}/doc_{'0' * 24}"):
        assert (await server.alice.get(path, headers={"Authorization": ""})).status_code == 401


async def test_without_tools_the_stores_say_so(tmp_path: Path) -> None:
    async with NativeModel() as model, running_agents(tmp_path, model, tools={}) as server:
        assert (await server.alice.get("/v1/vector_stores")).status_code == 404


# --- The originals ----------------------------------------------------------------------------------------------------


async def test_a_document_comes_as_it_was_handed_in_whole_or_in_parts(
    alice: AsyncOpenAI, server: RunningAgents
) -> None:
    content = b"<script>alert(1)</script> The bridge is closed." + b" more" * 20_000
    store = await alice.vector_stores.create()
    await alice.vector_stores.files.create(store.id, file_id=await upload(alice, "año.html", content))
    passages = (await server.alice.post(f"/v1/vector_stores/{store.id}/search", json={"query": "bridge"})).json()
    assert passages["data"]
    collections = server.tools.toolbox.find("rag").tool.collections
    (document,) = await collections.list_documents("alice", store.id)
    path = f"/api/documents/{store.id}/{document.id}"
    whole = await server.alice.get(path)
    assert (whole.status_code, whole.content) == (200, content)
    assert whole.headers["content-disposition"].startswith("attachment")
    assert whole.headers["x-content-type-options"] == "nosniff"
    part = await server.alice.get(path, headers={"Range": "bytes=1-6"})
    assert (part.status_code, part.content) == (206, b"script")
    assert part.headers["content-range"] == f"bytes 1-6/{len(content)}"
    assert (await server.alice.get(path, headers={"Range": "bytes=99999999-"})).status_code == 416
    assert (await server.bob.get(path)).status_code == 404
    assert (await server.alice.get(f"/api/documents/{store.id}/..%2F..")).status_code == 404
    assert (await server.alice.get(f"/api/documents/default/{document.id}")).status_code == 404


async def test_a_server_without_documents_says_so(tmp_path: Path) -> None:
    async with NativeModel() as model, running_agents(tmp_path, model) as running:
        for answer in (
            await running.alice.get("/v1/vector_stores"),
            await running.alice.post("/v1/vector_stores", json={}),
        ):
            assert answer.status_code == 404
            assert "tool" in answer.json()["error"]["message"]


async def test_uploads_and_searches_count_as_requests_once(tmp_path: Path, embedding_model: Path) -> None:
    settings = {"RAG_EMBEDDING_MODEL": str(embedding_model), "USER_REQUESTS_PER_MINUTE": 4}
    async with (
        NativeModel() as model,
        running_agents(tmp_path / "data", model, tools=TOOLS, **settings) as server,
        client_of(server.alice) as client,
        httpx.AsyncClient(base_url=server.main.settings.tools_url, headers=server.alice.headers, timeout=30) as tools,
    ):
        file = await upload(client, "rivers.md", PAGES[0].encode())
        store = await client.vector_stores.create(name="notes")
        await client.vector_stores.files.create(file_id=file, vector_store_id=store.id)
        assert (await client.vector_stores.search(store.id, query="Elbe")).data
        with pytest.raises(openai.RateLimitError) as refused:
            await client.vector_stores.search(store.id, query="Elbe")
        assert refused.value.response.headers["retry-after"]
        assert (await client.vector_stores.files.list(store.id)).data, "what only shows is not limited"

        search = f"/api/tools/rag/collections/{store.id}/search"
        codes = [(await tools.post(search, json={"query": "Elbe"})).status_code for _ in range(5)]
        assert codes == [200, 200, 200, 200, 429], "what the main API asked for is counted there alone"
