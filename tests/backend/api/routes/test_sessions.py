import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from backend.core.messages import Message
from backend.core.storage.conversations import StoredMessage
from backend.core.storage.sessions import Sessions, new_session_id
from tests.support.server import make_settings, running_server

SESSIONS = "/api/chat/sessions"
HISTORY = "/api/chat/history"


@dataclass
class Served:
    alice: httpx.AsyncClient
    bob: httpx.AsyncClient
    stranger: httpx.AsyncClient
    sessions: Sessions

    async def begin(self, *words: str) -> str:
        """A session of alice's."""
        session_id = new_session_id()
        messages = [StoredMessage.from_message(Message("user", each)) for each in words]
        await self.sessions.create("alice", session_id, messages)
        return session_id

    async def begin_with_file(self, name: str, data: bytes) -> tuple[str, str]:
        """A session with one file, and the file's address."""
        session_id = await self.begin("hello")
        path = await self.sessions.scratch(session_id) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return session_id, (await self.alice.get(f"{SESSIONS}/{session_id}/files")).json()["files"][0]["url"]


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with (
        running_server(make_settings(tmp_path)) as server,
        await server.signed_in("alice") as alice,
        await server.signed_in("bob") as bob,
    ):
        yield Served(alice, bob, server.client, server.app.state.context.sessions)


def check_error(answer: httpx.Response, status: int, kind: str) -> None:
    assert (answer.status_code, answer.json()["error"]["type"]) == (status, kind)
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


async def test_sessions_are_listed_in_pages_newest_first(served: Served) -> None:
    ids = [await served.begin(f"number {number}") for number in range(5)]
    assert (await served.bob.get(SESSIONS)).json() == {"sessions": [], "next_cursor": None}
    first = (await served.alice.get(SESSIONS, params={"limit": 3})).json()
    second = (await served.alice.get(SESSIONS, params={"limit": 3, "cursor": first["next_cursor"]})).json()
    assert [entry["session_id"] for entry in first["sessions"] + second["sessions"]] == ids[::-1]
    assert second["next_cursor"] is None
    newest = first["sessions"][0]
    assert set(newest) == {"session_id", "title", "created_at", "updated_at", "message_count"}
    assert (newest["title"], newest["message_count"]) == ("number 4", 1)
    assert newest["created_at"].endswith("Z")
    age = datetime.now(UTC) - datetime.fromisoformat(newest["updated_at"])
    assert timedelta(0) <= age < timedelta(minutes=1)
    assert (await served.alice.get(f"{SESSIONS}/{ids[4]}")).json() == newest


async def test_a_page_that_makes_no_sense_is_refused(served: Served) -> None:
    for query in ("limit=0", "limit=201", "limit=x"):
        check_error(await served.alice.get(f"{SESSIONS}?{query}"), 422, "invalid_request_error")
    check_error(await served.alice.get(f"{SESSIONS}?cursor=x"), 400, "invalid_request_error")


async def test_the_history_comes_whole_or_in_pages(served: Served) -> None:
    session_id = await served.begin("one", 'two "quoted" \u2028 ☃', "three")
    answer = await served.alice.get(f"{HISTORY}/{session_id}")
    assert answer.headers["content-type"] == "application/json"
    history = answer.json()
    assert history["session_id"] == session_id
    assert [message["seq"] for message in history["messages"]] == [1, 2, 3]
    assert history["messages"][1]["content"] == 'two "quoted" \u2028 ☃'
    assert datetime.fromisoformat(history["messages"][0]["created_at"]).tzinfo == UTC
    page = (await served.alice.get(f"{HISTORY}/{session_id}", params={"limit": 1, "before": 3})).json()
    assert page["messages"] == history["messages"][1:2]
    check_error(await served.alice.get(f"{HISTORY}/{session_id}?limit=0"), 422, "invalid_request_error")


async def test_a_long_history_is_read_without_holding_up_others(served: Served) -> None:
    session_id = await served.begin(*("x" * 400 for _ in range(5000)))
    assert len((await served.alice.get(f"{HISTORY}/{session_id}")).json()["messages"]) == 5000


async def test_a_session_is_renamed(served: Served) -> None:
    session_id = await served.begin("hello")
    renamed = await served.alice.patch(f"{SESSIONS}/{session_id}", json={"title": "  My plan "})
    assert (renamed.status_code, renamed.json()["title"]) == (200, "My plan")
    assert (await served.alice.get(f"{SESSIONS}/{session_id}")).json()["title"] == "My plan"
    for body in ({}, {"title": ""}, {"title": "  "}, {"title": "x" * 201}, {"title": 5}, {"title": "a", "name": "b"}):
        check_error(await served.alice.patch(f"{SESSIONS}/{session_id}", json=body), 422, "invalid_request_error")


async def test_a_session_is_deleted_for_good(served: Served, tmp_path: Path) -> None:
    session_id, url = await served.begin_with_file("a.txt", b"x")
    deleted = await served.alice.delete(f"{SESSIONS}/{session_id}")
    assert deleted.json() == {"session_id": session_id, "deleted": True}
    for path in (f"{SESSIONS}/{session_id}", f"{HISTORY}/{session_id}", url):
        check_error(await served.alice.get(path), 404, "not_found_error")
    check_error(await served.alice.delete(f"{SESSIONS}/{session_id}"), 404, "not_found_error")
    assert [path for path in tmp_path.rglob("*") if session_id in str(path)] == []


async def test_nobody_reaches_the_session_of_another(served: Served) -> None:
    session_id, url = await served.begin_with_file("a.txt", b"secret")
    unknown = new_session_id()
    before = (await served.alice.get(f"{HISTORY}/{session_id}")).json()
    for method, path in [
        ("GET", f"{SESSIONS}/{session_id}"),
        ("PATCH", f"{SESSIONS}/{session_id}"),
        ("DELETE", f"{SESSIONS}/{session_id}"),
        ("GET", f"{HISTORY}/{session_id}"),
        ("GET", f"{SESSIONS}/{session_id}/files"),
        ("GET", url),
    ]:
        refused = await served.bob.request(method, path, json={"title": "mine"})
        check_error(refused, 404, "not_found_error")
        none = await served.bob.request(method, path.replace(session_id, unknown), json={"title": "mine"})
        assert none.json() == refused.json()
        check_error(await served.stranger.request(method, path), 401, "authentication_error")
    assert (await served.alice.get(f"{HISTORY}/{session_id}")).json() == before
    assert (await served.alice.get(url)).content == b"secret"


async def test_what_is_no_session_id_is_not_found(served: Served) -> None:
    for session_id in ("x", "..%2f..%2fapp.db", "%00", "sess_" + "0" * 31 + "%0a", "%f0%9f%98%80", "%ff"):
        for path in (f"{SESSIONS}/{session_id}", f"{HISTORY}/{session_id}", f"{SESSIONS}/{session_id}/files"):
            check_error(await served.alice.get(path), 404, "not_found_error")


async def test_a_file_of_a_tool_is_listed_and_downloaded(served: Served) -> None:
    name = 'charts/Umsatz "2025" ü%.html'
    session_id, url = await served.begin_with_file(name, b"<script>")
    [listed] = (await served.alice.get(f"{SESSIONS}/{session_id}/files")).json()["files"]
    assert (listed["name"], listed["size"]) == (name, 8)
    assert datetime.fromisoformat(listed["created_at"]).tzinfo == UTC
    answer = await served.alice.get(url)
    assert (answer.status_code, answer.content) == (200, b"<script>")
    assert answer.headers["x-content-type-options"] == "nosniff"
    disposition = answer.headers["content-disposition"]
    assert disposition == "attachment; filename*=UTF-8''Umsatz%20%222025%22%20%C3%BC%25.html"
    session_id, url = await served.begin_with_file("plain.csv", b"")
    empty = await served.alice.get(url)
    assert (empty.status_code, empty.content) == (200, b"")
    assert empty.headers["content-disposition"] == 'attachment; filename="plain.csv"'
    assert empty.headers["content-type"].startswith("text/csv")


DATA = bytes(range(256)) * 4096


async def test_a_part_of_a_file_is_sent(served: Served) -> None:
    _, url = await served.begin_with_file("a.bin", DATA)
    size = len(DATA)
    for wanted, start, stop in [
        ("bytes=0-9", 0, 10),
        ("bytes=1000-", 1000, size),
        ("bytes=-5", size - 5, size),
        ("bytes=-99999999", 0, size),
        ("bytes=5-99999999", 5, size),
        (f"bytes={size - 1}-", size - 1, size),
    ]:
        part = await served.alice.get(url, headers={"Range": wanted})
        assert part.status_code == 206
        assert part.content == DATA[start:stop]
        assert part.headers["content-range"] == f"bytes {start}-{stop - 1}/{size}"


async def test_a_range_that_cannot_be_served_is_refused_and_one_that_is_none_ignored(served: Served) -> None:
    _, url = await served.begin_with_file("a.bin", DATA)
    for wanted in ("bytes=-", "bytes=9-5", "bytes=a-b", "lines=1-2", "bytes=0-1,5-6"):
        whole = await served.alice.get(url, headers={"Range": wanted})
        assert (whole.status_code, len(whole.content)) == (200, len(DATA)), wanted
    unless = await served.alice.get(url, headers={"Range": "bytes=0-1", "If-Range": '"etag"'})
    assert unless.status_code == 200
    for wanted in (f"bytes={len(DATA)}-", "bytes=-0"):
        refused = await served.alice.get(url, headers={"Range": wanted})
        check_error(refused, 416, "invalid_request_error")
        assert refused.headers["content-range"] == f"bytes */{len(DATA)}"


async def test_no_name_leads_out_of_the_scratch_folder(served: Served, tmp_path: Path) -> None:
    session_id, _ = await served.begin_with_file("a.txt", b"x")
    folder = await served.sessions.scratch(session_id)
    (folder / "link").symlink_to(tmp_path / "app.db")
    (folder / "up").symlink_to(tmp_path)
    names = [
        "link",
        "up%2fapp.db",
        "up/app.db",
        "..%2f..%2fapp.db",
        "%2fetc%2fpasswd",
        "a.txt%00",
        ".%2fa.txt",
        "a.txt%2f",
    ]
    for name in [*names, "x" * 300, "%ff", "a.txt/x", "missing"]:
        check_error(await served.alice.get(f"{SESSIONS}/{session_id}/files/{name}"), 404, "not_found_error")
    listed = (await served.alice.get(f"{SESSIONS}/{session_id}/files")).json()["files"]
    assert [entry["name"] for entry in listed] == ["a.txt"]


async def test_a_session_whose_file_was_cut_by_hand_shows_its_whole_messages(served: Served, tmp_path: Path) -> None:
    session_id = await served.begin("one", "two")
    path = tmp_path / "sessions" / f"{session_id}.json"
    path.write_bytes(path.read_bytes()[:-30])
    history = (await served.alice.get(f"{HISTORY}/{session_id}")).json()
    assert [message["content"] for message in history["messages"]] == ["one"]
    assert json.loads(path.read_bytes())["messages"] == history["messages"]
    path.unlink()
    assert (await served.alice.get(f"{HISTORY}/{session_id}")).json() == {"session_id": session_id, "messages": []}
