"""`/v1/files`, and files as parts of messages, with OpenAI's own client against the real server."""

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI

from tests.support import documents
from tests.support.fake_ollama import FakeOllama
from tests.support.server import RunningServer, make_settings, running_server

MODEL = "smollm2:135m"
FILES = "/v1/files"


@pytest.fixture
async def ollama() -> AsyncIterator[FakeOllama]:
    async with FakeOllama() as fake:
        yield fake


@pytest.fixture
async def server(tmp_path: Path, ollama: FakeOllama) -> AsyncIterator[RunningServer]:
    settings = make_settings(tmp_path, OLLAMA_BASE_URL=ollama.url, OLLAMA_MODEL=MODEL, USER_FILES_MB=2)
    async with running_server(settings) as server:
        yield server


@pytest.fixture
async def http(server: RunningServer) -> AsyncIterator[httpx.AsyncClient]:
    async with await server.signed_in("alice") as client:
        yield client


@pytest.fixture
async def alice(http: httpx.AsyncClient) -> AsyncIterator[AsyncOpenAI]:
    async with client_of(http) as client:
        yield client


def client_of(http: httpx.AsyncClient) -> AsyncOpenAI:
    key = http.headers["authorization"].removeprefix("Bearer ")
    return AsyncOpenAI(base_url=f"{http.base_url}/v1", api_key=key, max_retries=0, timeout=20)


def kept(tmp_path: Path) -> list[str]:
    """Every file below `uploads`."""
    return sorted(str(path.relative_to(tmp_path)) for path in (tmp_path / "uploads").rglob("*") if path.is_file())


def question(ollama: FakeOllama) -> str:
    """The last message that reached the model."""
    content: str = ollama.chats[-1].body["messages"][-1]["content"]
    return content


def user(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def data_url(content: bytes, media_type: str = "text/csv") -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


# --- The routes -------------------------------------------------------------------------------------------------------


async def test_a_file_can_be_kept_shown_listed_fetched_and_deleted(alice: AsyncOpenAI, tmp_path: Path) -> None:
    content = bytes(range(256)) * 100
    made = await alice.files.create(file=("año.bin", content), purpose="user_data")
    assert (made.bytes, made.filename, made.purpose, made.object) == (25_600, "año.bin", "user_data", "file")
    assert made.status == "processed"
    assert made.expires_at is None
    assert await alice.files.retrieve(made.id) == made
    assert [file async for file in alice.files.list()] == [made]
    assert (await alice.files.content(made.id)).content == content
    gone = await alice.files.delete(made.id)
    assert (gone.id, gone.deleted, gone.object) == (made.id, True, "file")
    with pytest.raises(openai.NotFoundError):
        await alice.files.retrieve(made.id)
    assert await asyncio.to_thread(kept, tmp_path) == []


async def test_files_are_listed_by_pages_and_purpose(alice: AsyncOpenAI) -> None:
    made = [
        await alice.files.create(file=(f"{number}.txt", b"x"), purpose="batch" if number % 2 else "user_data")
        for number in range(5)
    ]
    names = [f"{number}.txt" for number in range(5)]
    assert [file.filename async for file in alice.files.list(limit=2)] == names[::-1]
    assert [file.filename async for file in alice.files.list(limit=2, order="asc")] == names
    assert [file.filename async for file in alice.files.list(purpose="batch", order="asc")] == names[1::2]
    page = await alice.files.list(limit=2, order="asc", after=made[1].id)
    assert [file.filename for file in page.data] == names[2:4]
    assert page.has_more
    with pytest.raises(openai.BadRequestError) as refused:
        await alice.files.list(after="file-nobodys")
    assert refused.value.param == "after"


async def test_files_of_others_do_not_exist(server: RunningServer, alice: AsyncOpenAI) -> None:
    made = await alice.files.create(file=("a.txt", b"mine"), purpose="user_data")
    async with await server.signed_in("bob") as http, client_of(http) as bob:
        assert [file async for file in bob.files.list()] == []
        for ask in (bob.files.retrieve, bob.files.content, bob.files.delete):
            with pytest.raises(openai.NotFoundError):
                await ask(made.id)
        part: Any = {"type": "file", "file": {"file_id": made.id}}
        with pytest.raises(openai.NotFoundError) as refused:
            await bob.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": [part]}])
        assert refused.value.param == "messages.0.content.0.file.file_id"
    assert (await alice.files.content(made.id)).content == b"mine"


async def test_nobody_uploads_without_signing_in(server: RunningServer) -> None:
    response = await server.client.post(FILES, files={"file": b"x"}, data={"purpose": "user_data"})
    assert response.status_code == 401
    assert (await server.client.get(FILES)).status_code == 401


@pytest.mark.parametrize(
    ("form", "param"),
    [
        ({}, "purpose"),
        ({"purpose": "mischief"}, "purpose"),
        (
            {"purpose": "batch", "expires_after[anchor]": "created_at", "expires_after[seconds]": "5"},
            "expires_after.seconds",
        ),
        (
            {"purpose": "batch", "expires_after[anchor]": "now", "expires_after[seconds]": "9999"},
            "expires_after.anchor",
        ),
        ({"purpose": "batch", "expires_after": "soon"}, "expires_after"),
    ],
)
async def test_a_wrong_field_is_named(
    http: httpx.AsyncClient, form: dict[str, str], param: str, tmp_path: Path
) -> None:
    response = await http.post(FILES, files={"file": ("a.txt", b"x")}, data=form)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    assert await asyncio.to_thread(kept, tmp_path) == []


async def test_a_missing_file_and_another_content_type_are_named(http: httpx.AsyncClient) -> None:
    response = await http.post(FILES, files={"other": b"x"}, data={"purpose": "batch"})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "file")
    assert (await http.post(FILES, json={"purpose": "batch"})).status_code == 400


async def test_an_expired_file_is_gone(alice: AsyncOpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    lifetime: Any = {"anchor": "created_at", "seconds": 3600}
    made = await alice.files.create(file=("a.txt", b"x"), purpose="user_data", expires_after=lifetime)
    assert made.expires_at
    assert abs(made.expires_at - made.created_at - 3600) <= 1
    now = made.expires_at + 1.0
    monkeypatch.setattr("backend.core.storage.files.time.time", lambda: now)
    assert [file async for file in alice.files.list()] == []
    with pytest.raises(openai.NotFoundError):
        await alice.files.content(made.id)


async def test_the_quota_counts_all_files_of_a_user_and_deleting_makes_room(alice: AsyncOpenAI, tmp_path: Path) -> None:
    large = bytes(3 * 2**19)
    first = await alice.files.create(file=("a.bin", large), purpose="user_data")
    with pytest.raises(openai.APIStatusError) as refused:
        await alice.files.create(file=("b.bin", large), purpose="user_data")
    assert (refused.value.status_code, refused.value.code) == (413, "storage_quota_exceeded")
    assert await asyncio.to_thread(kept, tmp_path) == [f"uploads/files/{first.id}"]
    await alice.files.delete(first.id)
    assert (await alice.files.create(file=("b.bin", large), purpose="user_data")).bytes == len(large)


async def test_a_file_goes_out_in_parts_and_never_as_a_page(http: httpx.AsyncClient) -> None:
    made = (await http.post(FILES, files={"file": ("a.html", b"<p>0123")}, data={"purpose": "user_data"})).json()
    response = await http.get(f"{FILES}/{made['id']}/content", headers={"Range": "bytes=3-4"})
    assert (response.status_code, response.content) == (206, b"01")
    assert response.headers["content-disposition"] == 'attachment; filename="a.html"'
    assert response.headers["x-content-type-options"] == "nosniff"


async def test_a_name_is_no_path(http: httpx.AsyncClient) -> None:
    made = (await http.post(FILES, files={"file": ("../../etc/passwd", b"x")}, data={"purpose": "batch"})).json()
    assert made["filename"] == "passwd"


@pytest.mark.parametrize("file_id", ["..", "%2e%2e%2f%2e%2e", "file-", "drafts", "x" * 5000])
async def test_an_id_is_no_path(http: httpx.AsyncClient, file_id: str) -> None:
    assert (await http.get(f"{FILES}/{file_id}/content")).status_code == 404


async def test_a_deleted_user_leaves_no_file_behind(server: RunningServer, alice: AsyncOpenAI, tmp_path: Path) -> None:
    for number in range(3):
        await alice.files.create(file=(f"{number}.txt", b"x"), purpose="user_data")
    collection = tmp_path / "rag" / "alice" / "default"
    await asyncio.to_thread(collection.mkdir, parents=True)
    await server.app.state.context.users.delete("alice", delete_data=server.app.state.context.user_data.delete)
    assert await asyncio.to_thread(kept, tmp_path) == []
    assert not await asyncio.to_thread((tmp_path / "rag" / "alice").exists)


# --- Parts of messages ------------------------------------------------------------------------------------------------


async def test_a_file_in_a_message_is_described_and_kept_for_tools(
    http: httpx.AsyncClient, alice: AsyncOpenAI, ollama: FakeOllama
) -> None:
    kept_file = await alice.files.create(file=("kept.csv", b"day,price\n1,2\n"), purpose="user_data")
    parts: Any = [
        {"type": "text", "text": "Compare them."},
        {"type": "file", "file": {"filename": "sent.csv", "file_data": data_url(b"a,b\n1,2\n")}},
        {"type": "file", "file": {"filename": "bare.csv", "file_data": base64.b64encode(b"c,d\n1,2\n").decode()}},
        {"type": "file", "file": {"file_id": kept_file.id}},
    ]
    answer = await alice.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": parts}])
    asked = question(ollama)
    assert asked.startswith("Compare them.")
    for name, columns in (("sent.csv", "a (integer), b (integer)"), ("bare.csv", "c (integer)"), ("kept.csv", "day (")):
        assert f"Attached file '{name}' (text/csv, " in asked
        assert columns in asked
    session = answer.model_extra["session_id"] if answer.model_extra else ""
    listed = (await http.get(f"/api/chat/sessions/{session}/files")).json()["files"]
    assert sorted(file["name"] for file in listed) == ["bare.csv", "kept.csv", "sent.csv"]


async def test_responses_take_files_too(alice: AsyncOpenAI, ollama: FakeOllama, tmp_path: Path) -> None:
    path = await asyncio.to_thread(documents.make_docx, tmp_path / "a.docx")
    kept_file = await alice.files.create(file=path, purpose="user_data")
    parts: Any = [
        {"type": "input_text", "text": "What is it?"},
        {"type": "input_file", "file_id": kept_file.id},
        {"type": "input_file", "filename": "b.json", "file_data": data_url(b'{"key": 1}', "application/json")},
    ]
    await alice.responses.create(model=MODEL, input=[{"role": "user", "content": parts}])
    assert "An arch carries its load" in question(ollama)
    assert "1 keys: key" in question(ollama)


async def test_chat_understands_the_spelling_of_responses(http: httpx.AsyncClient, ollama: FakeOllama) -> None:
    part = {"type": "input_file", "filename": "a.csv", "file_data": data_url(b"a,b\n1,2\n")}
    response = await http.post("/v1/chat/completions", json={"messages": [user(part)]})
    assert response.status_code == 200
    assert "a (integer)" in question(ollama)


@pytest.mark.parametrize(
    ("file", "status", "param"),
    [
        ({}, 400, "messages.0.content.0.file"),
        ({"file_data": "§§§"}, 400, "messages.0.content.0.file.file_data"),
        ({"file_data": "data:text/plain,hello"}, 400, "messages.0.content.0.file.file_data"),
        ({"file_data": "data:text/plain;base64"}, 400, "messages.0.content.0.file.file_data"),
        ({"file_id": "file-nobodys"}, 404, "messages.0.content.0.file.file_id"),
        ({"file_id": "../../app.db"}, 404, "messages.0.content.0.file.file_id"),
    ],
)
async def test_a_part_that_is_no_file_is_named(
    http: httpx.AsyncClient, file: dict[str, str], status: int, param: str
) -> None:
    response = await http.post("/v1/chat/completions", json={"messages": [user({"type": "file", "file": file})]})
    assert (response.status_code, response.json()["error"]["param"]) == (status, param)


async def test_a_client_that_says_everything_again_finds_its_session_and_the_work_on_its_file(
    http: httpx.AsyncClient, ollama: FakeOllama, tmp_path: Path
) -> None:
    asked = user(
        {"type": "text", "text": "Sum"},
        {"type": "file", "file": {"filename": "a.csv", "file_data": data_url(b"a\n1\n")}},
    )
    first = (await http.post("/v1/chat/completions", json={"messages": [asked]})).json()
    scratch = tmp_path / "scratch" / first["session_id"] / "a.csv"
    await asyncio.to_thread(scratch.write_bytes, b"changed by a tool")
    again = [asked, first["choices"][0]["message"], {"role": "user", "content": "And now?"}]
    second = (await http.post("/v1/chat/completions", json={"messages": again})).json()
    assert second["session_id"] == first["session_id"]
    assert await asyncio.to_thread(scratch.read_bytes) == b"changed by a tool"
    sent = ollama.chats[-1].body["messages"]
    assert "a (integer)" in sent[-3]["content"]
    assert sent[-1]["content"] == "And now?"


async def test_names_that_are_no_names_fail_nothing(http: httpx.AsyncClient, ollama: FakeOllama) -> None:
    names = [
        "../../etc/passwd",
        "",
        "..",
        "a\x00b.txt",
        "é" * 300 + ".csv",
        "same.txt",
        "same.txt",
        ".hidden",
        "a\\b.md",
    ]
    parts = [{"type": "file", "file": {"filename": name, "file_data": "aGVsbG8="}} for name in names]
    response = await http.post("/v1/chat/completions", json={"messages": [user(*parts)]})
    assert response.status_code == 200, response.text
    listed = (await http.get(f"/api/chat/sessions/{response.json()['session_id']}/files")).json()["files"]
    found = sorted(file["name"] for file in listed)
    assert len(found) == len(names)
    assert {"passwd", "attachment", "attachment (2)", "same.txt", "same (2).txt", "hidden"} <= set(found)
    assert all("hello" in question(ollama) for _ in found)


async def test_a_question_that_is_not_to_be_stored_leaves_nothing_of_its_files(
    http: httpx.AsyncClient, ollama: FakeOllama, tmp_path: Path
) -> None:
    part = {"type": "file", "file": {"filename": "a.csv", "file_data": data_url(b"a,b\n1,2\n")}}
    response = await http.post("/v1/chat/completions", json={"messages": [user(part)], "store": False})
    assert response.status_code == 200
    assert "a (integer)" in question(ollama)
    assert await asyncio.to_thread(kept, tmp_path) == []
    assert not await asyncio.to_thread(lambda: list((tmp_path / "scratch").rglob("*")))
