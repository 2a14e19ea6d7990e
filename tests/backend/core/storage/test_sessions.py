import asyncio
import json
import os
import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import delete, func, insert, select, text, update

from backend.core.errors import BadRequest, NotFound, StorageFailed
from backend.core.messages import Message
from backend.core.storage import sessions as module
from backend.core.storage.conversations import StoredMessage
from backend.core.storage.database import Database
from backend.core.storage.sessions import Sessions, new_session_id
from backend.core.storage.tables import session_prefixes, users
from backend.core.storage.tables import sessions as sessions_table

STRANGE_IDS = [
    "",
    "x",
    "../x",
    "sess_",
    "sess_" + "0" * 31,
    "sess_" + "0" * 33,
    "sess_" + "0" * 32 + "\n",
    "sess_" + "A" * 32,
    "sess_" + "٠" * 32,
    "sess_" + "0" * 27 + "/../x",
    "\x00" + "sess_" + "0" * 32,
    "sess_" + "0" * 32 + ".json",
    "\ud800",
    "x" * 10_000,
]


def said(words: str, role: str = "user") -> StoredMessage:
    return StoredMessage.from_message(Message(role, words))  # type: ignore[arg-type]


def texts(messages: Sequence[StoredMessage]) -> list[str]:
    return [message.to_message().text for message in messages]


@asynccontextmanager
async def opened(
    data_dir: Path, *, names: Sequence[str] = ("alice", "bob")
) -> AsyncIterator[tuple[Sessions, Database]]:
    database = await asyncio.to_thread(Database, f"sqlite:///{data_dir}/app.db")
    await database.open()
    sessions = Sessions(database, data_dir)
    try:
        rows = [
            {"username": name, "password_hash": "x", "role": "user", "created_at": time.time() - 60}
            | {"disabled": False, "token_version": 0}
            for name in names
        ]
        await database.write(lambda connection: connection.execute(insert(users).prefix_with("OR IGNORE"), rows))
        yield sessions, database
    finally:
        await sessions.close()
        await database.close()


@pytest.fixture
async def sessions(tmp_path: Path) -> AsyncIterator[Sessions]:
    async with opened(tmp_path) as (opened_sessions, _):
        yield opened_sessions


async def begin(sessions: Sessions, *words: str, username: str = "alice") -> str:
    session_id = new_session_id()
    await sessions.create(username, session_id, [said(each) for each in words])
    return session_id


async def recovered(sessions: Sessions) -> None:
    await sessions.start()
    recovery, _ = sessions._care
    await asyncio.wait_for(asyncio.shield(recovery), 10)


async def test_a_session_is_opened_continued_and_listed(sessions: Sessions, tmp_path: Path) -> None:
    session_id = await begin(sessions, "What is\n  the time?")
    assert re.fullmatch(r"sess_[0-9a-f]{32}", session_id)
    await sessions.append(session_id, [said("Noon.", "assistant")], durable=True)
    record = await sessions.open("alice", session_id)
    assert (record.title, record.message_count) == ("What is the time?", 2)
    assert record.updated_at >= record.created_at
    assert (await sessions.list("alice", limit=10)).sessions == [record]
    assert texts(await sessions.history(session_id, last=1)) == ["Noon."]
    assert texts(await sessions.messages("alice", session_id, before=2)) == ["What is\n  the time?"]
    assert json.loads((tmp_path / "sessions" / f"{session_id}.json").read_bytes())["username"] == "alice"


@pytest.mark.parametrize("session_id", [*STRANGE_IDS, "sess_" + "0" * 32])
async def test_what_is_no_session_is_not_found_everywhere(sessions: Sessions, session_id: str, tmp_path: Path) -> None:
    for attempt in (
        sessions.open("alice", session_id),
        sessions.append(session_id, [said("x")]),
        sessions.messages("alice", session_id),
        sessions.rename("alice", session_id, "x"),
        sessions.delete("alice", session_id),
        sessions.files("alice", session_id),
        sessions.open_file("alice", session_id, "x"),
    ):
        with pytest.raises(NotFound):
            await attempt
    if session_id in STRANGE_IDS:
        for attempt in (sessions.create("alice", session_id, []), sessions.scratch(session_id)):
            with pytest.raises(NotFound):
                await attempt
    assert {entry.name.split("-")[0] for entry in tmp_path.iterdir()} == {"app.db"}


async def test_a_session_of_somebody_else_is_not_found(sessions: Sessions) -> None:
    session_id = await begin(sessions, "mine", username="bob")
    for attempt in (
        sessions.open("alice", session_id),
        sessions.messages("alice", session_id),
        sessions.rename("alice", session_id, "x"),
        sessions.delete("alice", session_id),
        sessions.files("alice", session_id),
        sessions.open_file("alice", session_id, "x"),
    ):
        with pytest.raises(NotFound):
            await attempt
    assert (await sessions.list("alice", limit=10)).sessions == []
    assert (await sessions.open("bob", session_id)).title == "mine"


@pytest.mark.parametrize(
    ("first", "title"),
    [
        ("short", "short"),
        ("  a\n\tb  ", "a b"),
        ("word " * 40, "word " * 14 + "word word…"),
        ("x" * 200, "x" * 79 + "…"),
        ("x" * 80, "x" * 80),
        ("\x00\ud800\u202eabc", "\ufffd abc"),
        ("", "second"),
    ],
)
async def test_a_session_is_called_after_what_the_user_says_first(sessions: Sessions, first: str, title: str) -> None:
    session_id = new_session_id()
    await sessions.create("alice", session_id, [said("Be kind", "system"), said(first), said("second")])
    kept = (await sessions.open("alice", session_id)).title
    assert kept == title
    assert len(kept) <= 80


async def test_a_session_can_be_renamed_and_stays_where_it_is_in_the_list(sessions: Sessions) -> None:
    older, newer = await begin(sessions, "older"), await begin(sessions, "newer")
    assert (await sessions.rename("alice", older, " A\nname ")).title == "A name"
    assert [record.session_id for record in (await sessions.list("alice", limit=5)).sessions] == [newer, older]


async def test_the_list_is_paged_newest_first_without_gaps_or_repeats(sessions: Sessions) -> None:
    ids = [await begin(sessions, str(number)) for number in range(7)]
    await begin(sessions, "another's", username="bob")
    await sessions.append(ids[0], [said("again")])
    expected = [ids[0], *reversed(ids[1:])]
    seen: list[str] = []
    cursor = None
    while True:
        page = await sessions.list("alice", limit=3, cursor=cursor)
        seen += [record.session_id for record in page.sessions]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == expected
    assert (await sessions.list("alice", limit=7)).next_cursor is None


@pytest.mark.parametrize("cursor", ["", "x", "nan_sess_" + "0" * 32, "1.5", "1.5_x", "1e999_sess_" + "0" * 32])
async def test_a_cursor_that_is_none_is_refused(sessions: Sessions, cursor: str) -> None:
    with pytest.raises(BadRequest) as error:
        await sessions.list("alice", limit=5, cursor=cursor)
    assert error.value.param == "cursor"


async def test_when_the_clock_goes_back_nothing_is_lost_or_miscounted(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    session_id = await begin(sessions, "one")
    before = await sessions.open("alice", session_id)
    monkeypatch.setattr(module.time, "time", lambda: before.created_at - 3600)
    await sessions.append(session_id, [said("two"), said("three")])
    after = await sessions.open("alice", session_id)
    assert (after.message_count, after.updated_at) == (3, before.updated_at)
    assert texts(await sessions.history(session_id, last=9)) == ["one", "two", "three"]


async def test_two_hundred_conversations_at_once_are_all_kept(sessions: Sessions, tmp_path: Path) -> None:
    async def converse(number: int) -> str:
        session_id = await begin(sessions, f"question {number}")
        await sessions.append(session_id, [said(f"answer {number}", "assistant")], durable=number % 4 == 0)
        return session_id

    ids = await asyncio.gather(*(converse(number) for number in range(200)))
    page = await sessions.list("alice", limit=200)
    assert {record.session_id for record in page.sessions} == set(ids)
    assert {record.message_count for record in page.sessions} == {2}
    for number, session_id in enumerate(ids):
        assert texts(await sessions.history(session_id, last=5)) == [f"question {number}", f"answer {number}"]


async def test_many_appends_to_one_session_at_once_are_all_kept(sessions: Sessions) -> None:
    session_id = await begin(sessions, "start")
    await asyncio.gather(*(sessions.append(session_id, [said(str(number))]) for number in range(100)))
    kept = await sessions.messages("alice", session_id)
    assert [message.seq for message in kept] == list(range(1, 102))
    assert set(texts(kept)) == {"start", *map(str, range(100))}
    assert (await sessions.open("alice", session_id)).message_count == 101


async def test_deleting_removes_the_row_the_file_and_the_folders(sessions: Sessions, tmp_path: Path) -> None:
    session_id, other = await begin(sessions, "one"), await begin(sessions, "other")
    scratch = await sessions.scratch(session_id)
    (scratch / "deep").mkdir()
    (scratch / "deep" / "file").write_text("x")
    (scratch / "out").symlink_to(tmp_path)
    (tmp_path / "uploads" / session_id).mkdir(parents=True)
    (tmp_path / "sessions" / f"{session_id}.damaged").write_text("x")
    await sessions.append(session_id, [said("a", "assistant")], prefix_digest="d" * 32)
    await sessions.delete("alice", session_id)
    with pytest.raises(NotFound):
        await sessions.open("alice", session_id)
    assert [path for path in tmp_path.rglob("*") if session_id in path.name] == []
    assert await sessions.find_by_prefix("alice", "d" * 32) is None
    assert (await sessions.open("alice", other)).message_count == 1


async def test_deleting_all_of_a_user_leaves_those_of_others(
    sessions: Sessions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REMOVED_AT_ONCE", 2)
    for number in range(5):
        await begin(sessions, str(number))
    kept = await begin(sessions, "bob's", username="bob")
    await sessions.delete_all("alice")
    assert (await sessions.list("alice", limit=10)).sessions == []
    assert [path.name for path in (tmp_path / "sessions").iterdir()] == [f"{kept}.json"]


async def test_an_answer_to_a_deleted_session_brings_nothing_back(sessions: Sessions, tmp_path: Path) -> None:
    session_id = await begin(sessions, "one")
    await sessions.delete("alice", session_id)
    with pytest.raises(NotFound):
        await sessions.append(session_id, [said("late", "assistant")], durable=True, prefix_digest="d" * 32)
    assert list((tmp_path / "sessions").iterdir()) == []


async def test_deleting_while_answers_are_written_ends_with_nothing_left(sessions: Sessions, tmp_path: Path) -> None:
    for _ in range(10):
        session_id = await begin(sessions, "one")
        appends = [sessions.append(session_id, [said(str(number))]) for number in range(20)]
        outcomes = await asyncio.gather(
            *appends[:10], sessions.delete("alice", session_id), *appends[10:], return_exceptions=True
        )
        assert {type(outcome) for outcome in outcomes} <= {int, type(None), NotFound}
        assert list((tmp_path / "sessions").iterdir()) == []
        with pytest.raises(NotFound):
            await sessions.open("alice", session_id)


async def test_a_caller_that_goes_away_does_not_stop_a_deletion(sessions: Sessions, tmp_path: Path) -> None:
    session_id = await begin(sessions, "one")
    folder = await sessions.scratch(session_id)
    task = asyncio.create_task(sessions.delete("alice", session_id))
    while (tmp_path / "sessions" / f"{session_id}.json").exists():
        await asyncio.sleep(0)
    task.cancel()
    for _ in range(200):
        if not folder.exists():
            break
        await asyncio.sleep(0.01)
    assert not folder.exists()


async def test_a_session_whose_file_is_missing_is_empty_and_can_be_continued(
    sessions: Sessions, tmp_path: Path
) -> None:
    session_id = await begin(sessions, "one")
    (tmp_path / "sessions" / f"{session_id}.json").unlink()
    assert await sessions.history(session_id, last=5) == ()
    assert await sessions.messages("alice", session_id) == ()
    await sessions.append(session_id, [said("two")])
    assert texts(await sessions.history(session_id, last=5)) == ["two"]
    assert (await sessions.open("alice", session_id)).message_count == 1


async def test_a_stateless_client_finds_its_session_by_what_it_has_seen(sessions: Sessions) -> None:
    first, second = await begin(sessions, "hello"), await begin(sessions, "hello")
    await sessions.append(first, [said("hi", "assistant")], prefix_digest="a" * 32)
    assert await sessions.find_by_prefix("alice", "a" * 32) == first
    assert await sessions.find_by_prefix("bob", "a" * 32) is None
    assert await sessions.find_by_prefix("alice", "b" * 32) is None
    assert await sessions.find_by_prefix("alice", "") is None
    await sessions.append(second, [said("hi", "assistant")], prefix_digest="a" * 32)
    assert await sessions.find_by_prefix("alice", "a" * 32) == second  # the latest


async def test_old_prefixes_of_a_long_conversation_are_dropped(tmp_path: Path) -> None:
    async with opened(tmp_path) as (sessions, database):
        session_id = await begin(sessions)
        for number in range(300):
            exchange = [said("q"), said("a", "assistant")]
            await sessions.append(session_id, exchange, prefix_digest=f"{number:032x}")
        kept = await database.read(
            lambda connection: connection.execute(select(func.count()).select_from(session_prefixes)).scalar()
        )
        assert 200 <= kept <= 232
        assert await sessions.find_by_prefix("alice", f"{299:032x}") == session_id
        assert await sessions.find_by_prefix("alice", f"{0:032x}") is None


async def test_a_file_without_a_row_is_indexed_at_start_up(tmp_path: Path) -> None:
    async with opened(tmp_path) as (sessions, database):
        lost, behind = await begin(sessions, "lost", "two"), await begin(sessions, "behind", "two", "three")
        orphan = await begin(sessions, "of a deleted user", username="bob")
        before = await sessions.open("alice", lost)
        outdated = update(sessions_table).where(sessions_table.c.id == behind).values(message_count=1, updated_at=1.0)
        missing = delete(sessions_table).where(sessions_table.c.id == lost)
        for change in (outdated, missing, delete(users).where(users.c.username == "bob")):
            await database.write_rows([(change, {})])
    async with opened(tmp_path, names=["alice"]) as (sessions, _):
        (tmp_path / "sessions" / "notes.txt").write_text("not ours")
        (tmp_path / "sessions" / f"{new_session_id()}.json").write_bytes(b"")
        torn = tmp_path / "sessions" / f"{new_session_id()}.json"
        torn.write_bytes(b'{"session_id":"x","user')
        await recovered(sessions)
        found = await sessions.open("alice", lost)
        assert (found.title, found.message_count) == ("lost", 2)
        assert found.created_at == pytest.approx(before.created_at, abs=1e-5)
        assert (await sessions.open("alice", behind)).message_count == 3
        assert len((await sessions.list("alice", limit=10)).sessions) == 2
    async with opened(tmp_path) as (sessions, database):  # somebody new is called bob
        await database.write_rows([(update(users).values(created_at=time.time()), {})])
        await recovered(sessions)
        for name in ("alice", "bob"):
            with pytest.raises(NotFound):
                await sessions.open(name, orphan)


async def test_a_draft_that_a_crash_left_is_cleared_away_when_it_is_old(sessions: Sessions, tmp_path: Path) -> None:
    session_id = await begin(sessions, "one")
    old, young = (tmp_path / "sessions" / f"{session_id}.json.{name}.tmp" for name in ("old", "young"))
    old.touch()
    young.touch()
    os.utime(old, (0, 0))
    await recovered(sessions)
    assert not old.exists()
    assert young.exists()


async def test_what_cannot_be_written_is_an_error_and_leaves_nothing(sessions: Sessions, tmp_path: Path) -> None:
    (tmp_path / "sessions").write_text("in the way")
    with pytest.raises(StorageFailed):
        await begin(sessions, "one")
    assert (await sessions.list("alice", limit=10)).sessions == []


async def test_a_session_for_an_account_that_was_deleted_leaves_no_file(sessions: Sessions, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        await begin(sessions, "one", username="nobody")
    assert list((tmp_path / "sessions").iterdir()) == []


async def test_an_answer_on_the_disk_counts_also_if_the_index_fails(tmp_path: Path) -> None:
    async with opened(tmp_path) as (sessions, database):
        session_id = await begin(sessions, "one")
        broken = text("CREATE TRIGGER broken BEFORE UPDATE ON sessions BEGIN SELECT RAISE(FAIL, 'broken'); END")
        await database.write(lambda connection: connection.execute(broken))
        await sessions.append(session_id, [said("two")], durable=True)
        assert texts(await sessions.history(session_id, last=5)) == ["one", "two"]
        await database.write(lambda connection: connection.execute(text("DROP TRIGGER broken")))
        await sessions.append(session_id, [said("three")])
        assert (await sessions.open("alice", session_id)).message_count == 3


async def test_only_files_of_the_scratch_folder_itself_can_be_opened(sessions: Sessions, tmp_path: Path) -> None:
    session_id = await begin(sessions, "one")
    assert await sessions.files("alice", session_id) == []
    folder = await sessions.scratch(session_id)
    assert folder == tmp_path / "scratch" / session_id
    assert folder.stat().st_mode & 0o077 == 0
    (folder / "charts").mkdir()
    (folder / "charts" / "a b.png").write_bytes(b"png")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "x").touch()
    (folder / "link").symlink_to(tmp_path / "app.db")
    (folder / "up").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe")
    os.close(os.open(os.fsencode(folder) + b"/\xff", os.O_CREAT))
    assert [(file.name, file.size) for file in await sessions.files("alice", session_id)] == [("charts/a b.png", 3)]
    with await sessions.open_file("alice", session_id, "charts/a b.png") as file:
        assert file.fileno() > 0
    for name in (
        "link",
        "up/app.db",
        "pipe",
        "charts",
        "../x",
        "/etc/passwd",
        "",
        "a/../b",
        "\x00",
        "\ud800",
        "x" * 300,
    ):
        with pytest.raises(NotFound):
            await sessions.open_file("alice", session_id, name)


async def test_a_history_may_be_read_along_one_branch_and_its_newest_messages_come_first(sessions: Sessions) -> None:
    session_id = await begin(sessions, "1")
    assert [await sessions.append(session_id, [said(str(number))]) for number in range(2, 9)] == list(range(2, 9))
    branch = ((1, 2), (5, 5), (7, 8))
    whole = await sessions.history(session_id, last=20, spans=branch)
    assert [message.content for message in whole] == ["1", "2", "5", "7", "8"]
    newest = await sessions.history(session_id, last=3, spans=branch)
    assert [message.content for message in newest] == ["5", "7", "8"]
