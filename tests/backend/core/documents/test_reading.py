"""Documents of each format, read by a process of its own: what is in them, in order, with its pages and levels."""

import asyncio
import os
import subprocess
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageFont

from backend.core.documents import reading
from backend.core.documents.document import Block, DocumentInfo, DocumentPart, PageRead, Problem
from backend.core.documents.formats import ocr
from backend.core.documents.reading import DocumentReaders
from tests.support import documents

HAS_OCR = ocr.find_program() is not None


async def read(path: Path, name: str = "") -> list[DocumentPart]:
    return [part async for part in DocumentReaders().read(path, name or path.name)]


def blocks(parts: list[DocumentPart]) -> list[tuple[str, str]]:
    return [(part.kind, part.text) for part in parts if isinstance(part, Block)]


def problems(parts: list[DocumentPart]) -> list[Problem]:
    return [part for part in parts if isinstance(part, Problem)]


async def write(path: Path, content: bytes | str) -> Path:
    data = content.encode() if isinstance(content, str) else content
    await asyncio.to_thread(path.write_bytes, data)
    return path


async def test_a_pdf_has_its_pages_its_title_and_the_headings_of_its_outline(tmp_path: Path) -> None:
    pages = ["# Arches\nAn arch carries its load.", "Of cables.\n# Cables\nThey hang."]
    parts = await read(await asyncio.to_thread(documents.make_pdf, tmp_path / "a.pdf", pages))
    assert parts == [
        DocumentInfo("Bridges of the world", "An engineer", 2),
        Block("heading", "Arches", 1, 1),
        Block("paragraph", "An arch carries its load.", 1),
        PageRead(1, 2),
        Block("paragraph", "Of cables.", 2),
        Block("heading", "Cables", 2, 1),
        Block("paragraph", "They hang.", 2),
        PageRead(2, 2),
    ]


async def test_a_long_pdf_comes_page_by_page(tmp_path: Path) -> None:
    pages = [f"This is page {number}." for number in range(1, 2001)]
    path = await asyncio.to_thread(documents.make_pdf, tmp_path / "a.pdf", pages)
    seen = 0
    async with aclosing(DocumentReaders().read(path, "a.pdf")) as parts:
        async for part in parts:
            if isinstance(part, Block):
                seen += 1
                assert part == Block("paragraph", f"This is page {seen}.", seen)
    assert seen == 2000


async def test_a_scan_is_recognised_or_reported_and_the_other_pages_follow(tmp_path: Path) -> None:
    picture = Image.new("RGB", (900, 200), "white")
    ImageDraw.Draw(picture).text((20, 60), "The bridge is open", fill="black", font=ImageFont.load_default(60))
    path = tmp_path / "scan.pdf"
    await asyncio.to_thread(picture.save, path, save_all=True, append_images=[Image.new("RGB", (90, 20), "white")])
    parts = await read(path)
    if HAS_OCR:
        assert ("paragraph", "The bridge is open") in blocks(parts)
    else:
        assert problems(parts)[0].page == 1
        assert "tesseract" in problems(parts)[0].text
    assert [part.page for part in parts if isinstance(part, PageRead)] == [1, 2]


async def test_a_word_file_has_headings_paragraphs_and_tables_in_order(tmp_path: Path) -> None:
    parts = await read(await asyncio.to_thread(documents.make_docx, tmp_path / "a.docx"))
    assert parts == [
        DocumentInfo("Bridges", "An engineer"),
        Block("heading", "Bridges", level=1),
        Block("heading", "Arches", level=1),
        Block("paragraph", "An arch carries its load by compression."),
        Block("heading", "Stone", level=2),
        Block("table", "Name | Span\nAlpha | 12 m\nBeta | 30 m"),
        Block("paragraph", "After the table."),
    ]


async def test_a_presentation_has_slides_with_titles_texts_tables_and_notes(tmp_path: Path) -> None:
    parts = await read(await asyncio.to_thread(documents.make_pptx, tmp_path / "a.pptx"))
    assert parts[1:] == [
        Block("heading", "Bridges", 1, 1),
        Block("paragraph", "Bridges, first point\nBridges, second point", 1),
        Block("paragraph", "Notes: Say something about Bridges", 1),
        PageRead(1, 2),
        Block("heading", "Arches", 2, 1),
        Block("paragraph", "Arches, first point\nArches, second point", 2),
        Block("table", "Name | Span\nAlpha | 12 m", 2),
        Block("paragraph", "Notes: Say something about Arches", 2),
        PageRead(2, 2),
    ]


async def test_a_workbook_has_its_rows_with_their_headers(tmp_path: Path) -> None:
    parts = await read(await asyncio.to_thread(documents.make_xlsx, tmp_path / "a.xlsx"))
    assert parts[1:3] == [
        Block("heading", "Sales", 1, 1),
        Block("row", "Date: 2024-01-01; Region: North; Amount: 0; Paid: true", 1),
    ]
    assert len([part for part in parts if isinstance(part, Block) and part.kind == "row"]) == 21
    assert parts[-1] == PageRead(2, 2)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", 'name,city\nAnn,"Bonn, ""B"""\nBob,', [("row", 'name: Ann; city: Bonn, "B"'), ("row", "name: Bob")]),
        ("a.csv", "name;city\r\nAnn;Köln\r\n".encode("cp1252"), [("row", "name: Ann; city: Köln")]),
        ("a.csv", "1,2\n3,4", [("row", "column 1: 1; column 2: 2"), ("row", "column 1: 3; column 2: 4")]),
        ("a.tsv", "a\tb\nx, y\tz", [("row", "a: x, y; b: z")]),
        ("a.txt", "One\ntwo\n\n\nthree", [("paragraph", "One\ntwo"), ("paragraph", "three")]),
        ("a.txt", "Grüße".encode("utf-16"), [("paragraph", "Grüße")]),
        ("a.txt", "Latin text".encode("utf-16-le"), [("paragraph", "Latin text")]),
        ("a.txt", "", []),
        ("a.json", '{"a": {"b": [1, 2]}, "c": "text"}', [("row", "a: b: [1, 2]"), ("row", "c: text")]),
        ("a.jsonl", '{"a": 1}\n{"a": 2}\n', [("row", "a: 1"), ("row", "a: 2")]),
        ("a.json", "none at all", [("paragraph", "none at all")]),
        (
            "a.md",
            "# One #\ntext\n```py\n# no heading\n```\nTwo\n---\n| a | b |\n|---|---|\n| 1 | 2 |\n\n#tag",
            [
                ("heading", "One"),
                ("paragraph", "text"),
                ("code", "# no heading"),
                ("heading", "Two"),
                ("table", "a | b\n1 | 2"),
                ("paragraph", "#tag"),
            ],
        ),
        (
            "a.py",
            "import os\n\n\nclass A:\n    x = 1\n\n    def b(self):\n        return 2\n\n\n@wraps\ndef c(): ...\n",
            [
                ("code", "import os"),
                ("heading", "class A"),
                ("code", "class A:\n    x = 1"),
                ("heading", "def A.b"),
                ("code", "    def b(self):\n        return 2"),
                ("heading", "def c"),
                ("code", "@wraps\ndef c(): ..."),
            ],
        ),
        (
            "a.html",
            "<title>T</title><h2>One <i>word</i></h2>loose<p>a<br>b<script>x()</script><pre>c\n d</pre>"
            "<table><tr><th>k<th>v<tr><td>1<td>2</table>end",
            [
                ("heading", "One word"),
                ("paragraph", "loose"),
                ("paragraph", "a b"),
                ("code", "c\n d"),
                ("table", "k | v\n1 | 2"),
                ("paragraph", "end"),
            ],
        ),
        ("page.txt", "<!DOCTYPE html><body><p>Really a page", [("paragraph", "Really a page")]),
    ],
)
async def test_texts_are_read_by_their_structure(
    tmp_path: Path, name: str, content: bytes | str, expected: list[tuple[str, str]]
) -> None:
    parts = await read(await write(tmp_path / "document", content), name)
    assert isinstance(parts[0], DocumentInfo)
    assert blocks(parts) == expected
    assert not problems(parts)


async def test_what_a_file_is_shows_in_its_bytes_and_not_in_its_name(tmp_path: Path) -> None:
    path = await asyncio.to_thread(documents.make_docx, tmp_path / "a")
    assert ("heading", "Arches") in blocks(await read(path, "notes.txt"))
    assert blocks(await read(await write(tmp_path / "b", "only text"), "b.pdf")) == [("paragraph", "only text")]


async def test_levels_of_headings_are_told(tmp_path: Path) -> None:
    parts = await read(await write(tmp_path / "a.md", "# A\n### B"))
    assert [part.level for part in parts if isinstance(part, Block)] == [1, 3]


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: documents.make_pdf(path, ["secret"], password="x"), "encrypted"),
        (lambda path: path.write_bytes(b"%PDF-1.7\nrubbish"), "broken"),
        (lambda path: path.write_bytes(b"PK\3\4rubbish"), "broken"),
        (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\nrubbish"), ""),
        (lambda path: path.write_bytes(bytes(range(256)) * 10), "not text"),
        (lambda path: path.write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(512)), "older than 2007"),
        (documents.make_xml_bomb, "entities"),
        (documents.make_zip_bomb, ""),
        (documents.make_deep_xml, "deep"),
        (documents.make_deep_json, "deep"),
    ],
)
async def test_what_cannot_be_read_is_a_problem(tmp_path: Path, make: Callable[[Path], object], why: str) -> None:
    path = tmp_path / "file.json"
    await asyncio.to_thread(make, path)
    found = problems(await read(path))
    assert len(found) == 1
    assert why in found[0].text


async def test_a_bomb_in_a_pdf_is_a_problem_of_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "READ_MEMORY_BYTES", 200 * 2**20)
    parts = await read(await asyncio.to_thread(documents.make_pdf_bomb, tmp_path / "a.pdf"))
    assert [problem.page for problem in problems(parts)] == [1]
    assert parts[-1] == PageRead(1, 1)


async def test_a_file_that_is_gone_is_a_problem(tmp_path: Path) -> None:
    assert problems(await read(tmp_path / "nothing.txt"))


async def test_zero_bytes_do_not_get_through(tmp_path: Path) -> None:
    path = await write(tmp_path / "a.json", '{"a\\u0000b": "c\\u0000d"}')
    assert blocks(await read(path)) == [("row", "ab: cd")]
    assert "\0" not in await DocumentReaders().describe(path, "a.json", "application/json")


async def test_closing_the_reading_ends_its_process(tmp_path: Path) -> None:
    path = await write(tmp_path / "long.txt", "paragraph\n\n" * 2_000_000)

    def running() -> bool:
        mine = ["pgrep", "-P", str(os.getpid()), "-f", str(reading.CHILD)]
        return subprocess.run(mine, capture_output=True).returncode == 0

    async with aclosing(DocumentReaders().read(path, path.name)) as parts:
        await anext(parts)
        assert await asyncio.to_thread(running)
    assert not await asyncio.to_thread(running)


async def test_a_page_that_kills_its_reader_is_left_out_and_the_others_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader here is a stand-in that dies at the third of five pages."""
    code = """
import json, os, sys
asked = json.load(sys.stdin)
print(json.dumps([["info", {"title": "t", "pages": 5}]]), flush=True)
for page in range(asked["first_page"], 6):
    if page == 3:
        os.abort()
    print(json.dumps([["block", {"kind": "paragraph", "text": str(page), "page": page}],
                      ["page", {"page": page, "pages": 5}]]), flush=True)
"""
    monkeypatch.setattr(reading, "CHILD", await write(tmp_path / "stand_in.py", code))
    parts = await read(tmp_path / "any.pdf")
    assert [text for _, text in blocks(parts)] == ["1", "2", "4", "5"]
    assert [problem.page for problem in problems(parts)] == [3]
    assert [part.page for part in parts if isinstance(part, PageRead)] == [1, 2, 3, 4, 5]
    assert len([part for part in parts if isinstance(part, DocumentInfo)]) == 1
