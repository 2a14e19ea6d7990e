"""What is left on the disk of what was deleted: every file of a collection is searched for a rare word and for vectors.

Another process's view of the same collection, which has it open, is a second `Collections`.
"""

import asyncio
import json
import os
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import pytest
import tantivy

from tests.tools.rag.conftest import collections_over, opened_embedder
from tools.rag.collections import Collections
from tools.rag.lexical import _make_analyzer, _make_schema

WORD = "zanzibarquoll"
OTHERS = "\n\n".join(f"# Berth {number}\n\nBerth {number} is let to boat {number * 7}." for number in range(60))
SECRET = "\n\n".join(f"# Vault {number}\n\nThe codeword {number} is {WORD}." for number in range(30))
WITHIN_S = 20
Write = Callable[[str, str], Path]


@dataclass(frozen=True)
class Traces:
    """A document's: what is looked for in every file of its collection."""

    folder: Path
    vectors: list[bytes]

    @classmethod
    def of(cls, folder: Path, name: str) -> "Traces":
        query = "SELECT vector FROM vectors JOIN chunks ON chunk = chunks.id JOIN documents ON number = document"
        with closing(sqlite3.connect(f"file:{folder / 'collection.db'}?mode=ro", uri=True)) as database:
            return cls(folder, [row[0] for row in database.execute(f"{query} WHERE name = ?", (name,))])

    def find(self) -> list[str]:
        """What is left, and where."""
        found = []
        paths = [Path(place, name) for place, _, names in os.walk(self.folder) for name in names]
        for path in paths:
            try:
                data = path.read_bytes()
            except FileNotFoundError:  # it was just removed
                continue
            found += [f"word in {path.name}"] if WORD.encode() in data.lower() else []
            found += [f"vector in {path.name}"] if any(vector in data for vector in self.vectors) else []
        return found + self._find_in_words([path.parent for path in paths if path.name == "meta.json"])

    def _find_in_words(self, folders: list[Path]) -> list[str]:
        """Terms are compressed in an index: tantivy, which counts what is only marked as removed, is asked."""
        found = []
        for folder in folders:
            try:
                segments = json.loads((folder / "meta.json").read_text())["segments"]
                live = {segment["segment_id"].replace("-", "") for segment in segments}
                files = {path.stem.partition(".")[0] for path in folder.glob("*.idx")}
                index = tantivy.Index(_make_schema(), str(folder))
                index.register_tokenizer("words", _make_analyzer())
                term = _make_analyzer().analyze(WORD)[0]
                if index.searcher().doc_freq("text", term):
                    found.append(f"term in {folder.name}")
            except (FileNotFoundError, ValueError, NotADirectoryError):
                found.append(f"{folder.name} is being changed")
                continue
            found += [f"files of no segment in {folder.name}"] if files - live else []
        return found

    async def are_gone(self) -> None:
        left: list[str] = []
        for _ in range(WITHIN_S * 10):
            left = await asyncio.to_thread(self.find)
            if not left:
                return
            await asyncio.sleep(0.1)
        raise AssertionError(left)


@pytest.fixture(params=["Flat", "HNSW", "IVF"])
async def two(
    request: pytest.FixtureRequest, tmp_path: Path, tiny_model: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Collections, Collections]]:
    """Two over one collection, both of which have found in it; `secret.md` is to go."""
    monkeypatch.setattr("tools.rag.shelf.EXACT_BELOW", 20)
    async with AsyncExitStack() as stack:
        embedder = await stack.enter_async_context(opened_embedder(tiny_model))
        one, other = [
            await stack.enter_async_context(collections_over(embedder, tmp_path / "data", RAG_INDEX_TYPE=request.param))
            for _ in range(2)
        ]
        await one.add("alice", "default", write("others.md", OTHERS), "others.md")
        await one.add("alice", "default", write("secret.md", SECRET), "secret.md")
        await one.verify("alice")  # the words of both are in one segment then
        for each in (one, other):
            assert "secret.md" in {found.document for found in await each.search("alice", [], WORD, limit=100)}
        yield one, other


def folder_in(data_dir: Path) -> Path:
    (path,) = data_dir.rglob("collection.db")
    return path.parent


@pytest.mark.parametrize("way", ["delete", "replace", "delete by another"])
async def test_nothing_of_a_document_is_left_on_the_disk(
    two: tuple[Collections, Collections], tmp_path: Path, write: Write, way: str
) -> None:
    one, other = two
    traces = await asyncio.to_thread(Traces.of, folder_in(tmp_path / "data"), "secret.md")
    assert traces.vectors
    assert {"word in collection.db", "term in words"} & set(traces.find())
    if way == "replace":
        await one.add("alice", "default", write("new.md", "The vault is empty."), "secret.md")
    else:
        await (other if way == "delete by another" else one).delete_document("alice", "default", "secret.md")
    for each in two:
        passages = await each.search("alice", ["default"], WORD, limit=100)
        assert not [one for one in passages if WORD in one.text]
    await traces.are_gone()
    for each in two:
        assert len(await each.search("alice", ["default"], "berth boat", limit=100)) > 1
        assert (await each.verify("alice")).problems == ()
    await traces.are_gone()


async def test_what_a_kill_left_goes_when_the_collection_is_opened_again(
    tmp_path: Path, tiny_model: Path, write: Write
) -> None:
    data_dir = tmp_path / "data"
    async with opened_embedder(tiny_model) as embedder:
        async with collections_over(embedder, data_dir) as collections:
            await collections.add("alice", "default", write("others.md", OTHERS), "others.md")
            await collections.add("alice", "default", write("secret.md", SECRET), "secret.md")
            await collections.verify("alice")
            folder = folder_in(data_dir)
            traces = await asyncio.to_thread(Traces.of, folder, "secret.md")
            await collections._upkeep.finish()
        async with collections_over(embedder, data_dir) as killed:  # it deletes, and cleans nothing
            document = await killed.document("alice", "default", "secret.md")
            store = killed._open(await killed.get("alice")).store
            await asyncio.to_thread(store.delete, document.id)
            (folder / "dense.index.1.tmp").write_bytes(traces.vectors[0])
        left = await asyncio.to_thread(traces.find)
        assert {"word in " + document.id, "vector in dense.index.1.tmp", "term in words"} <= set(left)
        async with collections_over(embedder, data_dir) as collections:
            passages = await collections.search("alice", ["default"], WORD, limit=100)
            assert not [one for one in passages if WORD in one.text]
            await traces.are_gone()
            assert (await collections.verify("alice")).problems == ()


async def test_a_reader_keeps_nothing_that_was_deleted_once_it_is_done(
    collections: Collections, tmp_path: Path, write: Write
) -> None:
    await collections.add("alice", "default", write("secret.md", SECRET), "secret.md")
    traces = await asyncio.to_thread(Traces.of, folder_in(tmp_path / "data"), "secret.md")
    with closing(sqlite3.connect(traces.folder / "collection.db", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM documents").fetchone()
        async with asyncio.timeout(5):  # it does not wait for who reads
            await collections.delete_document("alice", "default", "secret.md")
        assert await asyncio.to_thread(traces.find)
        reader.execute("COMMIT")
        await traces.are_gone()
