import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from backend.utils.shared_stamp import REREAD_S, SharedStamp


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "identity.generation"


async def committed() -> str:
    return "committed"


def count_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_the_stamp_stays_until_it_is_renewed(path: Path) -> None:
    stamp = SharedStamp(path)
    before = stamp.read()
    assert stamp.read() == before
    stamp.renew()
    assert stamp.read() != before


def test_another_process_sees_and_makes_a_new_stamp(path: Path) -> None:
    stamp = SharedStamp(path)
    before = stamp.read()
    code = "import pathlib, sys, backend.utils.shared_stamp as s; s.SharedStamp(pathlib.Path(sys.argv[1])).renew()"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, timeout=30)
    assert stamp.read() != before


def test_others_may_not_write_the_stamp(path: Path) -> None:
    SharedStamp(path)
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("size", [0, 3])
def test_a_truncated_file_reads_as_another_stamp_and_is_whole_after_the_next_change(path: Path, size: int) -> None:
    stamp = SharedStamp(path)
    stamp.renew()
    before = stamp.read()
    os.truncate(path, size)
    time.sleep(REREAD_S)
    cut = stamp.read()
    assert cut != before
    stamp.renew()
    assert stamp.read() not in {before, cut}
    assert path.stat().st_size == 8


def test_a_file_made_anew_is_followed_once_somebody_looks(path: Path) -> None:
    reader = SharedStamp(path)
    path.unlink()
    writer = SharedStamp(path)
    writer.renew()
    reader.reopen_if_replaced()
    assert reader.read() == writer.read()


def test_a_missing_file_is_made_again_by_the_next_change(path: Path) -> None:
    stamp = SharedStamp(path)
    stamp.renew()
    before = stamp.read()
    path.unlink()
    stamp.renew()
    assert stamp.read() != before
    assert SharedStamp(path).read() == stamp.read()


def test_following_a_new_file_leaks_no_descriptor(path: Path) -> None:
    stamp = SharedStamp(path)
    before = count_descriptors()
    for _ in range(20):
        path.unlink()
        stamp.reopen_if_replaced()
    assert count_descriptors() == before


async def test_the_stamp_is_renewed_after_the_change_and_not_before(path: Path) -> None:
    stamp = await asyncio.to_thread(SharedStamp, path)
    before = stamp.read()
    seen: list[bytes] = []

    async def change() -> int:
        await asyncio.sleep(0)
        seen.append(stamp.read())
        return 7

    assert await stamp.renew_after(change()) == 7
    assert seen == [before]
    assert stamp.read() != before


async def test_a_caller_who_goes_away_does_not_keep_the_stamp_from_being_renewed(path: Path) -> None:
    stamp = await asyncio.to_thread(SharedStamp, path)
    before = stamp.read()
    release = asyncio.Event()
    caller = asyncio.create_task(stamp.renew_after(release.wait()))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert stamp.read() == before
    release.set()
    async with asyncio.timeout(5):
        while stamp.read() == before:
            await asyncio.sleep(0.005)


async def test_closing_waits_for_changes_whose_callers_went_away(path: Path) -> None:
    stamp = await asyncio.to_thread(SharedStamp, path)
    before = stamp.read()
    caller = asyncio.create_task(stamp.renew_after(asyncio.sleep(0.05)))
    await asyncio.sleep(0)
    caller.cancel()
    await stamp.close()
    assert path.read_bytes() != before


async def test_a_change_that_is_done_is_reported_as_done_when_the_folder_is_gone(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stamp = await asyncio.to_thread(SharedStamp, path)
    path.unlink()
    path.parent.rmdir()
    assert await stamp.renew_after(committed()) == "committed"
    assert "Cannot renew" in caplog.text
