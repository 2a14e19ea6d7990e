"""Scratch folders that no session owns are removed, and no others."""

import os
import time
from pathlib import Path

from backend.core.messages import Message
from backend.core.storage.conversations import StoredMessage
from backend.core.storage.database import Database
from backend.core.storage.scratch_sweep import AGE_S, sweep
from backend.core.storage.sessions import Sessions, new_session_id
from tests.support.accounts import opened_accounts


def age(folder: Path) -> None:
    then = time.time() - AGE_S - 60
    os.utime(folder, (then, then))


async def test_old_folders_without_a_session_go_with_all_that_is_in_them(tmp_path: Path) -> None:
    async with opened_accounts(tmp_path) as opened:
        await opened.users.create("alice", "pw", "user")
        database: Database = opened.database
        sessions = Sessions(database, tmp_path)
        kept, orphan, young, foreign = new_session_id(), new_session_id(), new_session_id(), "notes"
        await sessions.create("alice", kept, [StoredMessage.from_message(Message("user", "Hello"))])
        folders = {name: tmp_path / "scratch" / name for name in (kept, orphan, young, foreign)}
        for name, folder in folders.items():
            (folder / "inner").mkdir(parents=True)
            (folder / "inner" / "file").write_text("x")
            if name != young:
                age(folder)
        (folders[orphan] / "inner").chmod(0o500)
        age(folders[orphan])
        await sweep(database, tmp_path / "scratch")
        assert {name for name, folder in folders.items() if folder.exists()} == {kept, young, foreign}
        await sessions.close()


async def test_without_any_folder_there_is_nothing_to_do(tmp_path: Path) -> None:
    async with opened_accounts(tmp_path) as opened:
        await sweep(opened.database, tmp_path / "scratch")
