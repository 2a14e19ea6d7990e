"""What a user owns goes with the user, and nothing of anybody else's."""

import asyncio
import io
from pathlib import Path

from backend.core.storage.drafts import Drafts
from backend.core.storage.files import Files
from backend.core.storage.sessions import Sessions, new_session_id
from backend.core.storage.user_data import UserData, rag_folder
from tests.support.accounts import opened_accounts


def below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


async def test_a_users_sessions_files_and_collections_are_deleted_and_no_others(tmp_path: Path) -> None:
    async with opened_accounts(tmp_path) as opened:
        sessions = Sessions(opened.database, tmp_path)
        drafts = Drafts(tmp_path)
        files = Files(opened.database, drafts, tmp_path, quota_bytes=2**20)
        for name in ("Alice", "bob"):
            await opened.users.create(name, "a long password", "user")
            await sessions.create(name, new_session_id(), ())
            await files.create(name, io.BytesIO(b"x"), filename="a", purpose="batch")
            await asyncio.to_thread(rag_folder(tmp_path, name).mkdir, parents=True)
            await asyncio.to_thread((rag_folder(tmp_path, name) / "index").write_bytes, b"x")
        await UserData(sessions, files, tmp_path).delete("Alice")
        await UserData(sessions, files, tmp_path).delete("Alice")
        assert [len(await asyncio.to_thread(below, tmp_path / name)) for name in ("sessions", "uploads", "rag")] == [
            1,
            1,
            1,
        ]
        assert len((await files.list("bob", limit=10)).files) == 1
        await sessions.close()
        await drafts.close()


def test_a_name_has_one_folder_whatever_its_case_and_stays_below_it(tmp_path: Path) -> None:
    assert rag_folder(tmp_path, "Alice") == rag_folder(tmp_path, "aLICE") == tmp_path / "rag" / "alice"
    for name in ("a..b", "a@b.c", "0-_."):
        assert rag_folder(tmp_path, name).parent == tmp_path / "rag"
