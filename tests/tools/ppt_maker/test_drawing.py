"""Every layout in every theme, drawn and measured again; and by LibreOffice, where there is one."""

import io
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lxml import etree
from PIL import Image
from pptx import Presentation
from pptx.oxml.ns import qn
from pptx.util import Emu, Pt

from tools.ppt_maker.deck import Chart, Code, Column, Deck, Fact, Formula, Picture, Quote, Series, Slide, Table
from tools.ppt_maker.drawing import draw
from tools.ppt_maker.drawing_wire import Drawing, Drawn
from tools.ppt_maker.metrics import find_face, line_height, wrap
from tools.ppt_maker.themes import THEMES, Sizes

LONG = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft"
WORDS = "These are more words than anybody wants to read from a wall, and there is no end of them, "
COFFEE = Chart(categories=("Mon", "Tue"), series=(Series(name="Cups", values=(3, 4.5)),), y_title="cups")
EVERY_LAYOUT = (
    Slide(layout="cover", headline="기계 학습의 기초 🚀", text=WORDS),
    Slide(layout="agenda", headline="Four questions", bullets=("What?", "Why?", "How?", "When?")),
    Slide(layout="section", headline="Learning", text="From data"),
    Slide(layout="bullets", headline=f"{LONG} {WORDS}", bullets=(f"{LONG} {LONG}", "Emoji 😀👩‍💻 ∑ → ≤", "مرحبا: نص")),
    Slide(
        layout="bullets",
        headline="A lead",
        text=WORDS * 2,
        bullets=("机器学习：从例子中学习规则", "일본어 日本語、かな"),
    ),
    Slide(
        layout="columns", headline="Two", columns=(Column(heading=WORDS, bullets=(WORDS,) * 6), Column(bullets=("b",)))
    ),
    Slide(
        layout="facts",
        headline="Facts",
        text=WORDS,
        facts=(Fact(value="1,234,567,890 €", label=WORDS * 2), Fact(value="3")),
    ),
    Slide(layout="table", headline="Rows", table=Table(header=("A", "B"), rows=((WORDS, "1"), (LONG, "2,5 %")) * 8)),
    *(
        Slide(layout="chart", headline=kind, chart=COFFEE.model_copy(update={"kind": kind}), bullets=(WORDS,))
        for kind in ("column", "bar", "line", "area", "pie", "doughnut")
    ),
    Slide(layout="picture", headline="A picture", picture=Picture(file="p.png", alt="red", caption=WORDS)),
    Slide(layout="quote", headline="He said", quote=Quote(text=WORDS * 6, by=WORDS)),
    Slide(layout="code", headline="Code", code=Code(language="python", text="\n".join(["\tprint('hello')" * 8] * 40))),
    Slide(
        layout="formula",
        headline="Loss",
        formula=Formula(latex=r"\frac{1}{n}\sum_i x_i", caption=WORDS),
        bullets=("a",),
    ),
    Slide(layout="formula", headline="Not for us", formula=Formula(latex=r"\begin{matrix} a", caption="")),
)


def draw_deck(folder: Path, *slides: Slide, exact: bool = False, **fields: Any) -> tuple[Drawn, Any]:
    image = io.BytesIO()
    Image.new("RGB", (300, 200), "red").save(image, "PNG")
    (folder / "p.png").write_bytes(image.getvalue())
    deck = Deck(title="The deck", author="Us", slides=slides, **fields)
    drawn = draw(Drawing(deck=deck, workspace=folder, file="x.pptx", exact=exact, cache=folder), lambda *_: None)
    return drawn, Presentation(str(folder / "x.pptx"))


def text_shapes(slide: Any) -> Iterator[Any]:
    return (shape for shape in slide.shapes if shape.has_text_frame and shape.text_frame.text.strip())


def needed_height(shape: Any, fonts: dict[str, str], default: float) -> float:
    """What the text of a shape takes, by the sizes that are written in the file."""
    total = 0.0
    for paragraph in shape.text_frame.paragraphs:
        properties = paragraph._p.find(qn("a:pPr"))
        indent = int(properties.get("marL", 0)) / 12_700 if properties is not None else 0.0
        runs = paragraph.runs
        size = (runs[0].font.size or Pt(default)).pt if runs else default
        name = next((latin.get("typeface") for latin in paragraph._p.iter(qn("a:latin"))), "+mn-lt")
        face = find_face(fonts.get(name, name), bold=any(run.font.bold for run in runs))
        text = paragraph.text.replace("\v", "\n")
        total += len(wrap(text, face, size, shape.width / 12_700 - indent)) * size * line_height(text)
    return total


def inherited_size(shape: Any, sizes: Sizes) -> float:
    """Of text whose size is not written in the page: the layout's, or else the master's."""
    if not shape.is_placeholder:
        return sizes.body
    found = shape._base_placeholder._element.xpath(".//a:lvl1pPr/a:defRPr/@sz")
    return int(found[0]) / 100 if found else sizes.headline if "Title" in shape.name else sizes.body


@pytest.mark.parametrize("theme", THEMES)
def test_every_text_box_holds_its_text_and_stands_on_the_page(theme: str, tmp_path: Path) -> None:
    drawn, pptx = draw_deck(tmp_path, *EVERY_LAYOUT, theme=theme, language="ko")
    assert len(pptx.slides) == len(drawn.deck.slides) >= len(EVERY_LAYOUT)
    chosen = THEMES[theme]
    fonts = {"+mj-lt": chosen.heading.name, "+mn-lt": chosen.body.name}
    for number, slide in enumerate(pptx.slides, 1):
        assert slide.shapes.title.text_frame.text, number
        for shape in text_shapes(slide):
            where = (number, shape.name)
            assert min(shape.left, shape.top) >= 0, where
            assert shape.left + shape.width <= pptx.slide_width + Emu(1), where
            assert shape.top + shape.height <= pptx.slide_height + Emu(1), where
            default = inherited_size(shape, chosen.sizes)
            assert needed_height(shape, fonts, default) <= shape.height / 12_700 + 1, where


def test_texts_that_are_cut_are_whole_in_the_notes(tmp_path: Path) -> None:
    drawn, pptx = draw_deck(tmp_path, Slide(layout="quote", headline="He said", quote=Quote(text=WORDS * 20)))
    assert "…" in "".join(shape.text_frame.text for shape in text_shapes(pptx.slides[0]))
    assert " ".join((WORDS * 20).split()) in pptx.slides[0].notes_slide.notes_text_frame.text
    assert drawn.notices == ["Page 1 holds more text than fits; all of it is in the notes."]


def test_long_lists_tables_and_code_go_on_on_further_pages(tmp_path: Path) -> None:
    rows = tuple((f"row {number}", str(number)) for number in range(40))
    drawn, _ = draw_deck(tmp_path, Slide(layout="table", headline="Rows", table=Table(header=("A", "B"), rows=rows)))
    headlines = [slide.headline for slide in drawn.deck.slides]
    assert headlines[:2] == [f"Rows (1/{len(headlines)})", f"Rows (2/{len(headlines)})"]
    assert tuple(row for slide in drawn.deck.slides if slide.table for row in slide.table.rows) == rows


def test_where_no_page_may_be_added_the_rest_is_in_the_notes(tmp_path: Path) -> None:
    points = tuple(f"Point {number}" for number in range(15))
    drawn, pptx = draw_deck(tmp_path, Slide(headline="Points", bullets=points), exact=True)
    (slide,) = drawn.deck.slides
    assert (*slide.bullets, *slide.notes.split("\n")) == points
    assert pptx.slides[0].notes_slide.notes_text_frame.text == slide.notes


def test_a_picture_that_is_none_is_left_out_and_told(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"\x89PNG rubbish")
    (tmp_path / "link.png").symlink_to("/etc/hostname")
    pages = [
        Slide(layout="picture", headline=n, picture=Picture(file=n, alt="a")) for n in ("bad.png", "link.png", "../x")
    ]
    drawn, _ = draw_deck(tmp_path, *pages)
    assert [slide.layout for slide in drawn.deck.slides] == ["bullets"] * 3
    assert len(drawn.notices) == 3


def test_a_link_of_the_files_name_is_replaced_and_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "x.pptx").symlink_to(victim)
    draw_deck(tmp_path, Slide(headline="a", bullets=("b",)))
    assert victim.read_text() == "mine"
    assert not (tmp_path / "x.pptx").is_symlink()


def test_text_from_right_to_left_is_marked_as_such(tmp_path: Path) -> None:
    _, pptx = draw_deck(tmp_path, Slide(headline="مرحبا بكم", bullets=("نقطة أولى", "Latin")), language="ar")
    body = next(p for p in pptx.slides[0].placeholders if p.placeholder_format.idx == 1)
    assert [p._p.find(qn("a:pPr")).get("rtl") for p in body.text_frame.paragraphs] == ["1", "0"]


def test_the_accent_of_each_theme_is_one_of_its_series() -> None:
    assert all(theme.palette.accent in theme.palette.series for theme in THEMES.values())


@pytest.mark.parametrize("theme", THEMES.values(), ids=THEMES)
def test_text_can_be_read_on_what_is_behind_it(theme: Any) -> None:
    palette = theme.palette
    pairs = [
        (palette.ink, palette.background, 7.0),
        (palette.ink, palette.surface, 7.0),
        (palette.muted, palette.background, 4.5),
        (palette.on_cover, palette.cover, 7.0),
        (palette.on_cover_muted, palette.cover, 4.5),
        (palette.accent, palette.background, 3.0),
        (palette.on_accent, palette.accent, 3.0),
    ]
    for front, back, least in pairs:
        light, dark = sorted((luminance(front), luminance(back)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= least, (front, back)


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_every_part_of_the_file_is_xml_with_its_parts_in_place(tmp_path: Path) -> None:
    _, pptx = draw_deck(tmp_path, *EVERY_LAYOUT)
    for slide in pptx.slides:
        ids = slide._element.xpath(".//p:cNvPr/@id")
        assert len(ids) == len(set(ids)), "PowerPoint mends a file with ids that are not distinct"
        for frame in slide._element.iter(qn("p:graphicFrame"), qn("p:pic")):
            assert etree.tostring(frame)


@pytest.mark.skipif(not shutil.which("soffice"), reason="needs LibreOffice: apt-get install libreoffice-impress")
@pytest.mark.timeout(240)
def test_libreoffice_opens_every_layout(tmp_path: Path) -> None:
    drawn, _ = draw_deck(tmp_path, *EVERY_LAYOUT, theme="paper")
    command = ["soffice", "--headless", f"-env:UserInstallation=file://{tmp_path}/profile", "--convert-to", "pdf"]
    subprocess.run([*command, "--outdir", tmp_path, tmp_path / "x.pptx"], check=True, capture_output=True, timeout=200)
    from pypdf import PdfReader

    pages = PdfReader(tmp_path / "x.pdf").pages
    assert len(pages) == len(drawn.deck.slides)
    assert "Learning" in pages[2].extract_text()
