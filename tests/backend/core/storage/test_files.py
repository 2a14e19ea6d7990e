"""Users' files across crashes: never a row without its file, and nothing left of what was not finished."""

import asyncio
import errno
import io
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from backend.core.errors import NotFound, PayloadTooLarge, StorageFailed
from backend.core.storage.drafts import Drafts
from backend.core.storage.files import Files
from tests.support.accounts import opened_accounts

ROOT = Path(__file__).parents[4]

# Stops at the place that the first argument names, and waits to be killed.
VICTIM = """
import asyncio, io, sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from backend.core.storage import files as module
from backend.core.storage.database import Database
from backend.core.storage.drafts import Drafts

async def main(place, data_dir):
    database = Database(f"sqlite:///{{data_dir / 'app.db'}}")
    await database.open()
    drafts = Drafts(data_dir)
    files = module.Files(database, drafts, data_dir, quota_bytes=2**20)

    def stop(*_):
        print("here", flush=True)
        time.sleep(60)

    if place == "copying":
        class Endless(io.BytesIO):
            def read(self, size=-1):
                stop()
        await files.create("alice", Endless(), filename="a", purpose="batch")
    elif place == "published":
        database.write = stop
        await files.create("alice", io.BytesIO(b"new"), filename="a", purpose="batch")
    elif place == "deleting":
        database.write = stop
        await files.delete("alice", sys.argv[3])
    elif place == "deleted":
        write = database.write
        async def write_and_stop(change):
            await write(change)
            stop()
        database.write = write_and_stop
        await files.delete("alice", sys.argv[3])

asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
"""


@pytest.fixture
async def files(tmp_path: Path) -> AsyncIterator[Files]:
    async with opened_accounts(tmp_path) as opened:
        await opened.users.create("alice", "a long password", "user")
        drafts = Drafts(tmp_path)
        files = Files(opened.database, drafts, tmp_path, quota_bytes=2**20)
        yield files
        await files.close()
        await drafts.close()


def below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def kill_at(place: str, data_dir: Path, file_id: str = "") -> None:
    """Run the victim until it stops, and kill it there."""
    command = [sys.executable, "-c", VICTIM.format(root=str(ROOT)), place, str(data_dir), file_id]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as victim:
        assert victim.stdout
        assert victim.stdout.readline() == b"here\n"
        os.killpg(victim.pid, signal.SIGKILL)


async def settled(files: Files, tmp_path: Path) -> None:
    """Start, and wait until nothing is left of others."""
    await files.start()
    async with asyncio.timeout(10):
        while await asyncio.to_thread(lambda: list((tmp_path / "uploads" / "drafts").iterdir())):
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("place", ["copying", "published"])
async def test_an_upload_that_was_killed_leaves_nothing(files: Files, tmp_path: Path, place: str) -> None:
    await asyncio.to_thread(kill_at, place, tmp_path)
    assert await asyncio.to_thread(below, tmp_path / "uploads")
    await settled(files, tmp_path)
    assert await asyncio.to_thread(below, tmp_path / "uploads") == []
    assert not (await files.list("alice", limit=10)).files


@pytest.mark.parametrize(("place", "stays"), [("deleting", True), ("deleted", False)])
async def test_a_deletion_that_was_killed_is_done_or_undone(tmp_path: Path, place: str, stays: bool) -> None:
    async with opened_accounts(tmp_path) as opened:
        await opened.users.create("alice", "a long password", "user")
        before = Drafts(tmp_path)
        files = Files(opened.database, before, tmp_path, quota_bytes=2**20)
        stored = await files.create("alice", io.BytesIO(b"content"), filename="a", purpose="batch")
        await before.close()
        await asyncio.to_thread(kill_at, place, tmp_path, stored.id)
        files = Files(opened.database, Drafts(tmp_path), tmp_path, quota_bytes=2**20)
        await settled(files, tmp_path)
        if stays:
            _, file = await files.open("alice", stored.id)
            assert await asyncio.to_thread(file.read) == b"content"
            file.close()
        else:
            with pytest.raises(NotFound):
                await files.get("alice", stored.id)
            assert await asyncio.to_thread(below, tmp_path / "uploads") == []
        await files.close()


async def test_the_drafts_of_a_process_that_lives_are_left_alone(files: Files, tmp_path: Path) -> None:
    other = Drafts(tmp_path)
    async with other.take(io.BytesIO(b"on its way"), "draft") as draft:
        await files.start()
        await asyncio.sleep(0.2)
        assert await asyncio.to_thread(draft.path.read_bytes) == b"on its way"
    await other.close()


async def test_an_upload_that_is_cancelled_leaves_a_whole_file_or_nothing(files: Files, tmp_path: Path) -> None:
    for delay_s in (0, 0.001, 0.002, 0.005, 0.01):
        upload = asyncio.create_task(files.create("alice", io.BytesIO(bytes(100_000)), filename="a", purpose="batch"))
        await asyncio.sleep(delay_s)
        upload.cancel()
        await asyncio.wait([upload])
    kept = [file.id for file in (await files.list("alice", limit=10)).files]
    await asyncio.sleep(0.1)
    assert await asyncio.to_thread(below, tmp_path / "uploads" / "files") == sorted(kept)


async def test_two_uploads_at_once_do_not_break_the_quota(files: Files, tmp_path: Path) -> None:
    uploads = [files.create("alice", io.BytesIO(bytes(400_000)), filename="a", purpose="batch") for _ in range(6)]
    outcomes = await asyncio.gather(*uploads, return_exceptions=True)
    assert len([one for one in outcomes if isinstance(one, PayloadTooLarge)]) == 4
    assert len(await asyncio.to_thread(below, tmp_path / "uploads" / "files")) == 2


async def test_a_deleted_user_gets_no_more_files(files: Files, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        await files.create("nobody", io.BytesIO(b"x"), filename="a", purpose="batch")
    assert await asyncio.to_thread(below, tmp_path / "uploads") == []


async def test_an_expired_file_is_removed_by_the_next_sweep(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = await files.create("alice", io.BytesIO(b"x"), filename="a", purpose="batch", lifetime_s=3600)
    later = stored.created_at + 3601
    monkeypatch.setattr("backend.core.storage.files.time.time", lambda: later)
    await files.start()
    async with asyncio.timeout(10):
        while await asyncio.to_thread(below, tmp_path / "uploads"):
            await asyncio.sleep(0.02)


async def test_a_file_that_cannot_be_written_is_an_error_of_the_storage(files: Files, tmp_path: Path) -> None:
    await asyncio.to_thread((tmp_path / "uploads").mkdir)
    await asyncio.to_thread((tmp_path / "uploads" / "files").write_bytes, b"in the way")
    with pytest.raises(StorageFailed):
        await files.create("alice", io.BytesIO(b"x"), filename="a", purpose="batch")


async def test_files_are_kept_where_the_file_system_has_no_links(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    stored = await files.create("alice", io.BytesIO(b"content"), filename="a", purpose="batch")
    _, file = await files.open("alice", stored.id)
    assert await asyncio.to_thread(file.read) == b"content"
    file.close()
