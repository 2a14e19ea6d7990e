import asyncio
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from backend.core.documents.filters import parse_filter
from backend.core.documents.records import Progress
from backend.core.errors import Conflict, Forbidden, NotFound, Unavailable, Unprocessable
from tests.support.tiny_bert import make_tiny_bert
from tests.tools.rag.conftest import opened_collections
from tools.rag.collections import Collections

Write = Callable[[str, str], Path]
HARBOUR = (
    "# Harbour\n\nThe lighthouse keeper feeds forty gulls at noon.\n\n## Boats\n\nThe blue trawler is named Ondine.\n"
)
GARDEN = "# Garden\n\nRhubarb is harvested in May. The compost heap stands behind the shed.\n"


async def names(collections: Collections, username: str, *refs: str, query: str) -> list[str]:
    return [passage.document for passage in await collections.search(username, refs, query)]


async def test_a_document_is_found_by_its_words_with_its_section(collections: Collections, write: Write) -> None:
    added = await collections.add("alice", "default", write("harbour.md", HARBOUR), "harbour.md")
    await collections.add("alice", "default", write("garden.md", GARDEN), "garden.md")
    assert (added.outcome, added.document.title) == ("added", "Harbour")
    best = (await collections.search("alice", ["default"], "what is the trawler called"))[0]
    assert (best.document, best.section) == ("harbour.md", "Harbour > Boats")
    assert "Ondine" in best.text
    assert 0 < best.score <= 1


async def test_a_name_may_be_in_any_script_and_may_not_lead_anywhere(collections: Collections) -> None:
    for name in ("Größe", "日本語", "عربي", "two words", "default"):
        made = await collections.create("alice", name)
        assert (await collections.get("alice", made.id)).name == name
    for name in ("", " ", "..", "../bob", "a/b", "a\\b", "a\nb", "x" * 101, "vs_" + "0" * 24, "\ud800/"):
        with pytest.raises(Unprocessable):
            await collections.create("alice", name)
    with pytest.raises(Conflict):
        await collections.create("alice", "Größe")
    for name in ("../alice", "..", "/etc/passwd", "\x00"):
        with pytest.raises(NotFound):
            await collections.get("bob", name)


async def test_anothers_collection_does_not_exist_until_it_is_shared(collections: Collections, write: Write) -> None:
    await collections.add("alice", "default", write("garden.md", GARDEN), "garden.md")
    mine = await collections.create("alice", "plants")
    await collections.add("alice", "plants", write("garden.md", GARDEN), "garden.md")
    for call in (
        lambda ref: collections.get("bob", ref),
        lambda ref: collections.search("bob", [ref], "rhubarb"),
        lambda ref: collections.list_documents("bob", ref),
        lambda ref: collections.original("bob", ref, "garden.md"),
        lambda ref: collections.delete("bob", ref),
        lambda ref: collections.share("bob", ref, everyone=True),
        lambda ref: collections.add("bob", ref, write("x.txt", "x"), "x.txt"),
    ):
        for ref in (mine.id, "plants", "alice/plants"):
            with pytest.raises(NotFound):
                await call(ref)  # type: ignore[no-untyped-call]
    await collections.share("alice", "plants", ["bob"])
    for ref in (mine.id, "plants", "alice/plants"):
        assert await names(collections, "bob", ref, query="rhubarb") == ["garden.md"]
    assert [one.id for one in await collections.list_all("bob")] == [mine.id]
    assert await collections.list_all("carol") == []
    for change in (collections.delete("bob", mine.id), collections.delete_document("bob", mine.id, "garden.md")):
        with pytest.raises(Forbidden):
            await change
    await collections.share("alice", "plants")
    with pytest.raises(NotFound):
        await collections.search("bob", [mine.id], "rhubarb")
    await collections.share("alice", "plants", everyone=True)
    assert await names(collections, "carol", mine.id, query="rhubarb") == ["garden.md"]
    assert await names(collections, "carol", "default", query="rhubarb") == []  # her own, and empty


async def test_a_document_of_the_same_name_takes_the_place_of_the_old_one(
    collections: Collections, write: Write
) -> None:
    await collections.add("alice", "default", write("note.txt", "The password of the boat is kelp."), "note.txt")
    same = await collections.add("alice", "default", write("note.txt", "The password of the boat is kelp."), "note.txt")
    assert (same.outcome, same.embedded) == ("unchanged", 0)
    new = await collections.add("alice", "default", write("note.txt", "The boat was sold to Ines."), "note.txt")
    assert new.outcome == "replaced"
    passages = await collections.search("alice", ["default"], "boat")
    assert [passage.text for passage in passages] == ["The boat was sold to Ines."]
    copy = await collections.add("alice", "default", write("note.txt", "The boat was sold to Ines."), "copy.txt")
    assert (copy.outcome, copy.embedded) == ("added", 0)  # what the model has read once, it does not read again
    folded = await collections.search("alice", ["default"], "boat")
    assert [(passage.document, passage.also_in) for passage in folded] in (
        [("note.txt", ("copy.txt",))],
        [("copy.txt", ("note.txt",))],
    )


async def test_nothing_of_a_deleted_document_is_left(collections: Collections, write: Write, tmp_path: Path) -> None:
    secret = "Zanzibarquoll"
    await collections.add("alice", "default", write("garden.md", GARDEN), "garden.md")
    await collections.add("alice", "default", write("secret.txt", f"The codeword is {secret}."), "secret.txt")
    document, original = await collections.original("alice", "default", "secret.txt")
    assert secret in original.read_text()
    await collections.delete_document("alice", "default", document.id)
    assert not original.exists()
    assert await names(collections, "alice", query=secret) in ([], ["garden.md"])
    with pytest.raises(NotFound):
        await collections.document("alice", "default", document.id)
    databases = [path for path in (tmp_path / "data").rglob("*.db*") if path.is_file()]
    assert databases
    assert not [path for path in databases if secret.encode() in path.read_bytes()]
    assert (await collections.verify("alice")).problems == ()


async def test_a_deleted_collection_and_a_deleted_user_leave_nothing(
    collections: Collections, write: Write, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        await collections.create("alice", name)
        await collections.add("alice", name, write("garden.md", GARDEN), "garden.md")
    gone = await collections.delete("alice", "one")
    assert not list((tmp_path / "data" / "rag").rglob(f"*{gone.id}*"))
    two = await collections.get("alice", "two")
    assert await names(collections, "alice", "two", query="rhubarb") == ["garden.md"]
    shutil.rmtree(tmp_path / "data" / "rag" / "alice")  # as the main API does while we run
    for ref in (two.id, "two"):
        with pytest.raises(NotFound):
            await collections.search("alice", [ref], "rhubarb")
    assert await collections.list_all("alice") == []
    assert await names(collections, "alice", query="rhubarb") == []  # whoever gets the name next begins with nothing
    await collections.create("alice", "two")
    assert await names(collections, "alice", "two", query="rhubarb") == []


async def test_filters_choose_among_documents(collections: Collections, write: Write) -> None:
    for year, name in ((2024, "a.txt"), (2025, "b.txt")):
        path = write(name, f"The harvest of rhubarb was {year * 3} kilos.")
        await collections.add("alice", "default", path, name, attributes={"year": year})
    everything = await collections.search("alice", ["default"], "rhubarb harvest")
    assert {passage.document for passage in everything} == {"a.txt", "b.txt"}
    chosen = parse_filter({"type": "gte", "key": "year", "value": 2025})
    assert [one.document for one in await collections.search("alice", [], "rhubarb", where=chosen)] == ["b.txt"]
    assert [one.document for one in await collections.search("alice", [], "rhubarb", documents=["a.txt"])] == ["a.txt"]
    assert await collections.search("alice", [], "rhubarb", documents=["none.txt"]) == []
    await collections.set_attributes("alice", "default", "a.txt", {"year": 2026})
    assert len(await collections.search("alice", [], "rhubarb", where=chosen)) == 2


async def test_several_collections_are_searched_as_one(collections: Collections, write: Write) -> None:
    for name, text in (("harbour", HARBOUR), ("garden", GARDEN)):
        await collections.create("alice", name)
        await collections.add("alice", name, write(f"{name}.md", text), f"{name}.md")
    found = await names(collections, "alice", "harbour", "garden", query="rhubarb trawler")
    assert set(found[:2]) == {"harbour.md", "garden.md"}


async def test_any_query_gets_an_answer(collections: Collections, write: Write) -> None:
    assert await collections.search("alice", ["default"], "anything") == []
    await collections.add("alice", "default", write("garden.md", GARDEN), "garden.md")
    for query in ("rhubarb " * 12_500, '"(]){}^~*:\\ AND OR NOT -+/', "日本語テスト", "\ud83d rhubarb", "the of and"):
        assert isinstance(await collections.search("alice", ["default"], query), list)
    assert await collections.search("alice", ["default"], "  \n ") == []


async def test_text_without_spaces_between_words_is_found_by_its_words(collections: Collections, write: Write) -> None:
    await collections.add("alice", "default", write("ja.txt", "東京の天気は晴れです。"), "ja.txt")
    await collections.add("alice", "default", write("other.txt", "大阪では雨が降る。"), "other.txt")
    assert (await names(collections, "alice", query="天気"))[0] == "ja.txt"


async def test_what_cannot_be_read_is_said_and_changes_nothing(collections: Collections, write: Write) -> None:
    await collections.add("alice", "default", write("a.txt", "The first one."), "a.txt")
    with pytest.raises(Unprocessable, match="Nothing of"):
        await collections.add("alice", "default", write("empty.txt", ""), "a.txt")
    broken = write("broken.pdf", "%PDF-1.7 this is none")
    with pytest.raises(Unprocessable):
        await collections.add("alice", "default", broken, "broken.pdf")
    assert [one.name for one in await collections.list_documents("alice")] == ["a.txt"]
    assert (await collections.search("alice", [], "first"))[0].text == "The first one."


async def test_progress_never_falls_and_ends_at_a_hundred(collections: Collections, write: Write) -> None:
    heard: list[Progress] = []

    async def listen(progress: Progress) -> None:
        heard.append(progress)

    text = "\n\n".join(f"Paragraph {number} tells of the {number * 7}th gull in some detail." for number in range(3000))
    added = await collections.add("alice", "default", write("long.txt", text), "long.txt", progress=listen)
    percents = [progress.percent for progress in heard]
    assert percents == sorted(percents)
    assert (heard[-1].stage, percents[-1], heard[-1].embedded) == ("done", 100.0, added.document.chunks)
    assert len({progress.embedded for progress in heard}) > 3


async def test_a_cancelled_upload_leaves_nothing(collections: Collections, write: Write, tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def listen(progress: Progress) -> None:
        begun.set()

    text = "\n\n".join(f"Sentence {number} is about something else." for number in range(4000))
    path = write("long.txt", text)
    upload = asyncio.create_task(collections.add("alice", "default", path, "long.txt", progress=listen))
    await begun.wait()
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    assert await collections.list_documents("alice") == []
    assert not list((tmp_path / "data").rglob("files/doc_*"))
    assert (await collections.add("alice", "default", path, "long.txt")).outcome == "added"


async def test_another_model_asks_for_a_new_index_and_gets_it(tmp_path: Path, tiny_model: Path, write: Write) -> None:
    async with opened_collections(tmp_path / "data", tiny_model) as collections:
        await collections.add("alice", "default", write("garden.md", GARDEN), "garden.md", attributes={"year": 1})
        await collections.add("alice", "default", write("harbour.md", HARBOUR), "harbour.md")
    other = make_tiny_bert(tmp_path / "other", seed=7, hidden=16)
    async with opened_collections(tmp_path / "data", other) as collections:
        with pytest.raises(Conflict) as refused:
            await collections.search("alice", ["default"], "rhubarb")
        assert refused.value.code == "reindex_needed"
        assert (await collections.stats("alice")).stale_documents == 2
        added = await collections.reindex("alice", "default")
        assert [(one.outcome, one.document.name) for one in added] == [
            ("replaced", "garden.md"),
            ("replaced", "harbour.md"),
        ]
        passage = (await collections.search("alice", ["default"], "rhubarb"))[0]
        assert (passage.document, passage.attributes) == ("garden.md", {"year": 1})
        assert (await collections.stats("alice")).stale_documents == 0


async def test_a_locked_database_is_waited_for_and_then_said(
    collections: Collections, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tools.rag.database_file.LOCK_WAIT_S", 0.3)
    await collections.add("alice", "default", write("garden.md", GARDEN), "garden.md")
    (path,) = (tmp_path / "data").rglob("collection.db")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    collections._shelf.put_away(path.parent)  # its connections know the longer wait
    with pytest.raises(Unavailable):
        await collections.add("alice", "default", write("harbour.md", HARBOUR), "harbour.md")
    assert await names(collections, "alice", query="rhubarb") == ["garden.md"]  # readers do not wait
    other.execute("COMMIT")
    other.close()
    assert (await collections.add("alice", "default", write("harbour.md", HARBOUR), "harbour.md")).outcome == "added"
