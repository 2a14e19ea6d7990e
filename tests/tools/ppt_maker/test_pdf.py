"""PDFs of decks by the real engines behind the real walls: opened page by page."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pypdf
import pypdfium2
import pytest
from PIL import Image

from tests.tools.ppt_maker.presses import NOWHERE, draw_pptx, every_layout, needs_marp, needs_office, started
from tests.tools.python_coder.machine import are_gone, descendants
from tools.ppt_maker.deck import Code, Column, Deck, Fact, Formula, Picture, Quote, Slide, Table
from tools.ppt_maker.engines import Places

SECRET = (250, 10, 20)
FOOT = 540 - 504  # the line above footers and numbers of pages
SHORT = Deck(title="Short", slides=(Slide(layout="cover", headline="Short and good"),))


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[int, list[bytes]]]:
    """A port of this machine, and what it was asked for."""
    heard: list[bytes] = []

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(1000))
        writer.close()

    listener = await asyncio.start_server(hear, "127.0.0.1", 0)
    yield listener.sockets[0].getsockname()[1], heard
    listener.close()


def lay_out(tmp_path: Path, colour: tuple[int, int, int] = (10, 200, 30)) -> Path:
    workspace = tmp_path / "session"
    workspace.mkdir()
    Image.new("RGB", (60, 40), colour).save(workspace / "photo.png")
    return workspace


def read_pages(path: Path) -> list[str]:
    return [re.sub(r"\s+", " ", page.extract_text()) for page in pypdf.PdfReader(path).pages]


@needs_marp
@pytest.mark.timeout(120)
async def test_every_layout_is_a_page_whose_texts_can_be_read_and_seen(tmp_path: Path) -> None:
    workspace = await asyncio.to_thread(lay_out, tmp_path)
    deck = every_layout("paper")
    async with started(tmp_path) as press:
        made = await press.make_pdf(deck, workspace, "deck")
        previews = await press.make_previews(workspace, "deck")

    assert (made.engine, made.files, made.reason) == ("marp", ("deck.md", "deck.pdf"), "")
    pages = await asyncio.to_thread(read_pages, workspace / "deck.pdf")
    assert len(pages) == len(deck.slides)
    expected = [
        ["Machine learning", "A short introduction", "The team"],
        ["Agenda", "Why", "What next"],
        ["01", "Why it matters"],
        ["Three kinds", "A lead", "Supervised: with answers"],
        ["Two ways", "Build", "Slow"],
        ["It pays", "94 %", "found"],
        ["Results", "Model", "Forest", "0.91"],
        ["Sales grow", "Both quarters", "Ledger", "4.5", "Q2"],
        ["The sensor", "Prototype"],
        ["Users", "It found the fault.", "Plant two"],
        ["Ten lines", "def f(x):", "return x"],
        ["The loss", "A fraction"],
    ]
    for page, texts in zip(pages, expected, strict=True):
        assert [text for text in texts if text not in page] == [], page
    assert "Good morning" not in "".join(pages)
    reader = pypdf.PdfReader(workspace / "deck.pdf")
    assert {(round(page.mediabox.width), round(page.mediabox.height)) for page in reader.pages} == {(960, 540)}
    fonts = {font for page in reader.pages for font in _fonts(page)}
    assert any("Caladea" in font for font in fonts), fonts
    assert any("Carlito" in font for font in fonts), fonts

    assert previews == [f"deck-{number:02}.png" for number in range(1, 13)]
    with Image.open(workspace / "deck-09.png") as picture:
        assert picture.size == (1280, 720)
        assert (10, 200, 30) in {colour for _, colour in picture.getcolors(1 << 20)}
    assert "## Three kinds" in made.markdown
    assert "**Supervised**" in made.markdown
    assert "data:image" not in made.markdown
    assert not await asyncio.to_thread(lambda: list((tmp_path / "data" / "slides").iterdir()))


def _fonts(page: pypdf.PageObject) -> list[str]:
    resources = page["/Resources"].get_object()
    fonts = [font.get_object() for font in resources.get("/Font", {}).get_object().values()]
    return [str(font.get("/BaseFont") or font["/FontDescriptor"].get_object()["/FontName"]) for font in fonts]


@needs_marp
@pytest.mark.timeout(120)
async def test_hostile_texts_are_texts_and_nothing_outside_the_session_is_reached(tmp_path: Path) -> None:
    workspace = await asyncio.to_thread(lay_out, tmp_path)
    await asyncio.to_thread(Image.new("RGB", (60, 40), SECRET).save, tmp_path / "secret.png")
    await asyncio.to_thread((workspace / "link.png").symlink_to, tmp_path / "secret.png")
    async with listening() as (port, heard), started(tmp_path) as press:
        url = f"http://127.0.0.1:{port}/x.png"
        words = [
            f"# <img src={url}>",
            f"![bg]({url})",
            f"[a]({url})",
            "<!-- theme: gaia -->",
            "<style>section{display:none}</style>",
            "**not bold** $x$ :smile: &amp;",
        ]
        texts = Deck(
            title=words[0],
            slides=(
                Slide(layout="cover", headline=words[0], text=words[1]),
                Slide(headline=words[2], bullets=words, notes=f"theme: gaia\nclass: x\n--> <img src={url}>"),
                Slide(layout="table", headline=words[3], table=Table(header=("a|b",), rows=((words[0],), ("---",)))),
                Slide(layout="quote", headline=words[4], quote=Quote(text=words[5], by=words[0])),
                Slide(layout="code", headline="x", code=Code(text=f"```\n\n---\n<img src={url}>\n<!-- class: y -->")),
                Slide(layout="formula", headline="x", formula=Formula(latex=rf"\href{{{url}}}{{click}} $$ x")),
                *(
                    Slide(layout="picture", headline="y", picture=Picture(file=file, alt=f"bg ![]({url})"))
                    for file in ("../secret.png", str(tmp_path / "secret.png"), "link.png", url)
                ),
            ),
        )
        made = await press.make_pdf(texts, workspace, "deck")
        previews = await press.make_previews(workspace, "deck")

    assert made.engine == "marp", made.reason
    assert heard == []
    pages = await asyncio.to_thread(read_pages, workspace / "deck.pdf")
    assert len(pages) == len(texts.slides)
    whole = "".join(page.replace(" ", "") for page in pages)
    for word in words:
        assert word.replace(" ", "") in whole, word
    assert "a|b" in pages[2]
    assert "---" in pages[4]
    reader = pypdf.PdfReader(workspace / "deck.pdf")
    assert not [page for page in reader.pages if "/Annots" in page]
    assert reader.metadata is not None
    assert reader.metadata.title == words[0]
    for name in previews:
        with Image.open(workspace / name) as picture:
            assert SECRET not in {colour for _, colour in picture.convert("RGB").getcolors(1 << 20)}


@needs_marp
@pytest.mark.timeout(120)
async def test_every_script_has_its_font_and_nothing_runs_out_of_its_place(tmp_path: Path) -> None:
    workspace = await asyncio.to_thread(lay_out, tmp_path)
    word = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft" * 2
    korean = "인공지능의 미래와 우리의 준비 상황에 대하여 알아봅니다 " * 8
    rows = tuple((word, korean[:90], "😀🎉", "12,345") for _ in range(3))
    texts = Deck(
        title=korean[:60],
        language="ko",
        theme="vivid",
        slides=(
            Slide(layout="cover", headline=korean, text=korean),
            Slide(
                headline=korean,
                text=korean,
                bullets=(word, korean, "中文内容", "日本語", "😀👩‍👩‍👧", korean),
            ),
            Slide(headline="التعلم الآلي: مقدمة قصيرة", bullets=("النقطة الأولى: البيانات هي الأساس", "ثالثاً 123")),
            Slide(layout="table", headline=word, table=Table(header=("a", "b", "c", "d"), rows=rows)),
            Slide(layout="quote", headline=word, quote=Quote(text=korean * 2, by=word)),
            Slide(layout="code", headline="x", code=Code(text="\n".join("x" * 300 for _ in range(9))), bullets=(word,)),
            Slide(layout="columns", headline="x", columns=tuple(Column(heading=word, bullets=(korean,)) for _ in "ab")),
            Slide(layout="facts", headline="x", facts=tuple(Fact(value=word, label=korean) for _ in range(4))),
        ),
    )
    async with started(tmp_path) as press:
        made = await press.make_pdf(texts, workspace, "deck")

    assert made.engine == "marp", made.reason
    fonts = [" ".join(_fonts(page)) for page in pypdf.PdfReader(workspace / "deck.pdf").pages]
    assert "NotoSansCJK" in fonts[1]
    assert "Arabic" in fonts[2]
    assert "Emoji" in fonts[3]
    for number, boxes in enumerate(await asyncio.to_thread(_measure, workspace / "deck.pdf")):
        for text, (left, bottom, right, top) in boxes:
            assert 0 <= left <= right <= 960, (number, text)
            assert 0 <= bottom <= top <= 540, (number, text)
            assert number == 0 or bottom >= FOOT or top <= FOOT + 1, (number, text)


def _measure(path: Path) -> list[list[tuple[str, tuple[float, ...]]]]:
    """The lines of each page, and where they stand, from the bottom left."""
    pages = []
    for page in pypdfium2.PdfDocument(path):
        text = page.get_textpage()
        rectangles = [text.get_rect(index) for index in range(text.count_rects())]
        pages.append([(text.get_text_bounded(*rectangle), rectangle) for rectangle in rectangles])
    return pages


@needs_office
@pytest.mark.timeout(120)
async def test_where_the_browser_breaks_libreoffice_makes_the_pdf(tmp_path: Path) -> None:
    browser = tmp_path / "bin" / "browser"
    workspace = await asyncio.to_thread(lay_out, tmp_path)
    await asyncio.to_thread(_write_script, browser, 'case "$*" in --version) echo Broken 1.0;; *) exit 1;; esac')
    await asyncio.to_thread(draw_pptx, SHORT, workspace, "deck")
    async with started(tmp_path, replace(Places(), browsers=(str(browser),))) as press:
        made = await press.make_pdf(SHORT, workspace, "deck")

    assert (made.engine, made.files) == ("libreoffice", ("deck.md", "deck.pdf"))
    pages = await asyncio.to_thread(read_pages, workspace / "deck.pdf")
    assert len(pages) == 1
    assert "Short and good" in pages[0]


@needs_office
@pytest.mark.timeout(120)
async def test_a_deck_in_a_teams_template_is_printed_as_it_looks(tmp_path: Path) -> None:
    workspace = await asyncio.to_thread(lay_out, tmp_path)
    await asyncio.to_thread(draw_pptx, SHORT, workspace, "deck")
    async with started(tmp_path) as press:
        made = await press.make_pdf(SHORT, workspace, "deck", is_template=True)
    assert (made.engine, made.reason) == ("libreoffice", "")


async def test_without_an_engine_the_reason_says_how_to_have_one_and_the_markdown_is_there(tmp_path: Path) -> None:
    workspace = await asyncio.to_thread(lay_out, tmp_path)
    for earlier in ("deck.pdf", "deck-01.png", "deck-13.png"):
        await asyncio.to_thread((workspace / earlier).write_text, "of the deck before it was changed")
    async with started(tmp_path, NOWHERE) as press:
        made = await press.make_pdf(every_layout(), workspace, "deck")
        previews = await press.make_previews(workspace, "deck")
        details = press.engines.details()

    assert (made.engine, made.files, previews) == ("", ("deck.md",), [])
    assert "There is no PDF." in made.reason
    assert "bash start_servers.sh --with-slides" in made.reason
    assert (workspace / "deck.md").stat().st_size > 1000
    assert {path.name for path in workspace.iterdir()} == {"deck.md", "photo.png"}
    assert details["pdf"] == []
    assert set(details["pdf_missing"]) == {"marp", "libreoffice"}
    assert "--with-slides" in details["how_to_make_pdf"]


@needs_marp
async def test_a_call_without_time_for_a_pdf_says_so(tmp_path: Path) -> None:
    workspace = await asyncio.to_thread(lay_out, tmp_path)
    async with started(tmp_path) as press:
        made = await press.make_pdf(SHORT, workspace, "deck", timeout_s=0.01)
        previews = await press.make_previews(workspace, "deck", timeout_s=-1)
    assert (made.engine, previews) == ("", [])
    assert "the time for this call was over" in made.reason
    assert await are_gone(descendants(), within_s=2)


async def test_where_nothing_can_be_shut_in_nothing_is_printed(tmp_path: Path) -> None:
    workspace = await asyncio.to_thread(lay_out, tmp_path)
    await asyncio.to_thread((tmp_path / "data").write_text, "no folder can be made below a file")
    async with started(tmp_path) as press:
        made = await press.make_pdf(SHORT, workspace, "deck")
    assert (made.engine, made.files) == ("", ("deck.md",))
    assert str(tmp_path) not in made.reason


@needs_marp
@pytest.mark.timeout(120)
async def test_who_goes_away_takes_the_browser_along_within_a_second(tmp_path: Path) -> None:
    workspace = await asyncio.to_thread(lay_out, tmp_path)
    async with started(tmp_path) as press:
        before = descendants()
        task = asyncio.create_task(press.make_pdf(every_layout(), workspace, "deck"))
        deadline = time.monotonic() + 60
        while not (ours := await asyncio.to_thread(_browsers, before)) and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        assert ours
        everything = descendants() - before
        task.cancel()
        began = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await are_gone(everything)
        assert time.monotonic() - began < 10
    assert not (workspace / "deck.pdf").exists()
    assert not await asyncio.to_thread(lambda: list((tmp_path / "data" / "slides").iterdir()))


def _browsers(before: set[int]) -> set[int]:
    found = set()
    for pid in descendants() - before:
        try:
            found |= {pid} if "--headless" in Path(f"/proc/{pid}/cmdline").read_text() else set()
        except OSError:
            continue
    return found


def _write_script(path: Path, text: str) -> None:
    path.parent.mkdir()
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    for folder in (path.parent, *path.parent.parents[:2]):
        folder.chmod(folder.stat().st_mode | 0o055)
