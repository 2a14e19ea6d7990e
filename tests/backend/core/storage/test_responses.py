"""Responses in the database: whose they are, how many are kept, and what they go with."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text

from backend.core.errors import NotFound
from backend.core.storage.database import Database
from backend.core.storage.responses import Responses, StoredResponse
from backend.core.storage.sessions import Sessions, new_session_id

NOBODY = "sess_" + "0" * 32


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = await asyncio.to_thread(Database, f"sqlite:///{tmp_path}/test.db")
    await database.open()
    for name in ("alice", "bob"):
        values = f"('{name}', 'x', 'user', 1.0, 0, 0)"
        insert = (
            f"INSERT INTO users (username, password_hash, role, created_at, disabled, token_version) VALUES {values}"
        )
        await database.write(lambda connection, insert=insert: connection.execute(text(insert)))
    yield database
    await database.close()


async def begin(database: Database, data_dir: Path, username: str = "alice") -> str:
    session_id = new_session_id()
    await Sessions(database, data_dir).create(username, session_id, [])
    return session_id


def made(number: int, session_id: str, username: str = "alice") -> StoredResponse:
    name = f"resp_{number:032x}"
    return StoredResponse(name, username, session_id, float(number), ((1, 2), (5, 6)), {"id": name}, [{"id": "msg_1"}])


async def test_what_is_kept_is_found_as_it_was(database: Database, tmp_path: Path) -> None:
    response = made(1, await begin(database, tmp_path))
    responses = Responses(database)
    await responses.keep(response)
    assert await responses.find("alice", response.id) == response


async def test_half_characters_from_a_model_can_be_kept(database: Database, tmp_path: Path) -> None:
    response = made(1, await begin(database, tmp_path))
    response.body["text"] = "a\ud800"
    await Responses(database).keep(response)
    assert (await Responses(database).find("alice", response.id)).body["text"] == "a\ufffd"


@pytest.mark.parametrize("name", ["resp_" + "0" * 31 + "1", "resp_1", "", "../etc", "resp_" + "g" * 32])
async def test_nobody_finds_or_deletes_what_is_not_theirs(database: Database, tmp_path: Path, name: str) -> None:
    responses = Responses(database)
    await responses.keep(made(1, await begin(database, tmp_path)))
    for act in (responses.find, responses.delete):
        with pytest.raises(NotFound):
            await act("bob", name)
    assert await responses.find("alice", made(1, "").id)


async def test_of_each_user_the_newest_are_kept(database: Database, tmp_path: Path) -> None:
    responses = Responses(database, max_per_user=3)
    alices, bobs = await begin(database, tmp_path), await begin(database, tmp_path, "bob")
    await responses.keep(made(0, bobs, "bob"))
    for number in range(1, 6):
        await responses.keep(made(number, alices))
    for number in (3, 4, 5):
        assert await responses.find("alice", made(number, "").id)
    for number in (1, 2):
        with pytest.raises(NotFound):
            await responses.find("alice", made(number, "").id)
    assert await responses.find("bob", made(0, "").id)


async def test_a_response_goes_with_its_session_and_with_its_user(database: Database, tmp_path: Path) -> None:
    responses, sessions = Responses(database), Sessions(database, tmp_path)
    first, second = await begin(database, tmp_path), await begin(database, tmp_path)
    await responses.keep(made(1, first))
    await responses.keep(made(2, second))
    await sessions.delete("alice", first)
    with pytest.raises(NotFound):
        await responses.find("alice", made(1, "").id)
    await database.write(lambda connection: connection.execute(text("DELETE FROM users WHERE username = 'alice'")))
    with pytest.raises(NotFound):
        await responses.find("alice", made(2, "").id)


async def test_an_answer_to_a_deleted_session_is_not_kept(database: Database, tmp_path: Path) -> None:
    responses = Responses(database)
    await responses.keep(made(1, NOBODY))
    with pytest.raises(NotFound):
        await responses.find("alice", made(1, "").id)
