"""What is broken on purpose: processes killed, files removed and cut, disks full."""

import asyncio
import os
import random
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from backend.core.documents.records import Progress
from backend.core.errors import NotFound, StorageFailed
from tests.tools.rag.conftest import collections_over, opened_collections, opened_embedder
from tools.rag.embedder import Embedder

ROOT = Path(__file__).parents[3]
OLD = "\n\n".join(f"The old harbour has {number} boats and a crane." for number in range(60))
NEW = "\n\n".join(f"The new marina has {number} yachts and a cafe." for number in range(90))
Write = Callable[[str, str], Path]


async def run_upload(data_dir: Path, model: Path, old: Path, new: Path, kill_at: int) -> tuple[int, str]:
    arguments = ["-m", "tests.tools.rag.uploading", data_dir, model, old, new, str(kill_at)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(50):
        out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


async def test_an_upload_that_is_killed_leaves_the_old_document_or_the_new_one(
    tmp_path: Path, tiny_model: Path, write: Write
) -> None:
    old, new = write("old.txt", OLD), write("new.txt", NEW)
    status, said = await run_upload(tmp_path / "whole", tiny_model, old, new, 0)
    assert status == 0
    instants = {1, 2, *random.sample(range(3, int(said)), 4)}  # other ones each time
    places = asyncio.Semaphore(3)
    left: set[str] = set()

    async def kill_and_look(embedder: Embedder, instant: int) -> None:
        data_dir = tmp_path / f"killed-{instant}"
        async with places:
            status, _ = await run_upload(data_dir, tiny_model, old, new, instant)
        async with collections_over(embedder, data_dir) as collections:
            (document,) = await collections.list_documents("alice")
            kept = (await collections.original("alice", "default", document.id))[1].read_text()
            text = "".join(await collections.text("alice", "default", document.id))
            passages = await collections.search("alice", ["default"], "crane cafe", limit=100)
            found = {"old" if "harbour" in passage.text else "new" for passage in passages}
            verified = await collections.verify("alice")
            files = [path.name for path in data_dir.rglob("files/doc_*")]
        version = "old" if kept == OLD else "new"
        assert status == -signal.SIGKILL
        assert kept in (OLD, NEW), instant
        assert found == {version}, instant
        assert text.count("boats" if version == "old" else "yachts") == (60 if version == "old" else 90), instant
        assert (verified.problems, files) == ((), [document.id]), instant
        left.add(version)

    async with opened_embedder(tiny_model) as embedder:
        await asyncio.gather(*(kill_and_look(embedder, instant) for instant in instants))
    assert "old" in left


@pytest.mark.parametrize("kind", ["Flat", "HNSW", "IVF"])
async def test_a_damaged_cache_is_made_anew(
    tmp_path: Path, tiny_model: Path, write: Write, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tools.rag.shelf.EXACT_BELOW", 20)
    data_dir = tmp_path / "data"
    text = "\n\n".join(f"# Berth {number}\n\nThe marina has {number * 7} yachts." for number in range(40))

    async def find(embedder: Embedder) -> str:
        async with collections_over(embedder, data_dir, RAG_INDEX_TYPE=kind) as collections:
            found = await collections.search("alice", ["default"], "77", limit=100)
            await collections._upkeep.finish()
            assert len(found) > 1
            return found[0].text

    async with opened_embedder(tiny_model) as embedder:
        async with collections_over(embedder, data_dir, RAG_INDEX_TYPE=kind) as collections:
            await collections.add("alice", "default", write("marina.md", text), "marina.md")
        for damage in (None, truncate, scribble, Path.unlink):
            caches = [path for path in data_dir.rglob("*") if path.is_file() and is_cache(path)]
            for path in caches if damage else ():
                damage(path)
            assert await find(embedder) == "The marina has 77 yachts."
            assert any(path.name == "dense.index" for path in data_dir.rglob("*")) == (kind != "Flat")


def is_cache(path: Path) -> bool:
    return path.parent.name == "words" or path.name == "dense.index"


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def scribble(path: Path) -> None:
    size = path.stat().st_size
    path.write_bytes(random.randbytes(size))


async def test_a_full_disk_is_said_and_leaves_what_was_there(tmp_path: Path, tiny_model: Path, write: Write) -> None:
    old, large = write("old.txt", OLD), write("large.txt", OLD + "x " * 70_000)
    async with opened_collections(tmp_path / "data", tiny_model) as collections:
        await collections.add("alice", "default", old, "note.txt")
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**17, hard))  # Python ignores the signal: writes fail
        try:
            with pytest.raises(StorageFailed):
                await collections.add("alice", "default", large, "note.txt")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        (document,) = await collections.list_documents("alice")
        assert document.size == len(OLD)
        assert len(list((tmp_path / "data").rglob("files/doc_*"))) == 1
        assert (await collections.verify("alice")).problems == ()
        assert (await collections.add("alice", "default", large, "note.txt")).outcome == "replaced"


async def test_two_processes_work_on_one_collection(tmp_path: Path, tiny_model: Path, write: Write) -> None:
    data_dir = tmp_path / "data"
    async with opened_collections(data_dir, tiny_model) as one, opened_collections(data_dir, tiny_model) as other:
        for number in range(6):
            path = write(f"{number}.txt", f"Pier {number} is painted in colour{number}.")
            await (one, other)[number % 2].add("alice", "default", path, path.name)
        for reader in (one, other):
            for number in range(6):
                found = await reader.search("alice", ["default"], f"colour{number}")
                assert found[0].document == f"{number}.txt"
        await one.delete_document("alice", "default", "3.txt")
        assert "3.txt" not in {one.document for one in await other.search("alice", ["default"], "colour3", limit=50)}
        assert (await other.verify("alice")).problems == ()
        assert (await one.search("alice", ["default"], "colour4"))[0].document == "4.txt"


async def test_an_upload_and_searches_do_not_wait_for_each_other(
    tmp_path: Path, tiny_model: Path, write: Write
) -> None:
    async with opened_collections(tmp_path / "data", tiny_model) as collections:
        await collections.add("bob", "default", write("note.txt", OLD), "note.txt")
        text = "\n\n".join(f"Page {number} of the log of the ship, with weather and wind." for number in range(6000))
        upload = asyncio.create_task(collections.add("alice", "default", write("log.txt", text), "log.txt"))
        searched = 0
        while not upload.done():
            for username, query in (("bob", "harbour crane"), ("alice", "weather")):
                async with asyncio.timeout(20):
                    await collections.search(username, ["default"], query)
                searched += 1
            await asyncio.sleep(0.02)
        assert searched > 3
        assert (await upload).document.chunks > 300


async def test_a_collection_whose_folder_is_deleted_in_the_middle_of_an_upload_stays_deleted(
    tmp_path: Path, tiny_model: Path, write: Write
) -> None:
    async with opened_collections(tmp_path / "data", tiny_model) as collections:
        await collections.get("alice")

        async def delete_user(progress: Progress) -> None:
            await asyncio.to_thread(shutil.rmtree, tmp_path / "data" / "rag" / "alice", ignore_errors=True)

        with pytest.raises(NotFound):
            await collections.add("alice", "default", write("old.txt", OLD), "old.txt", progress=delete_user)
        assert not (tmp_path / "data" / "rag" / "alice").exists()
