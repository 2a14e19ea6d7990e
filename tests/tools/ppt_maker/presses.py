"""What the tests of PDFs share: a press in a folder of its own, decks, and what this machine can print with."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from config import Settings
from tools.node_programs import NotInstalled, find_node, find_script
from tools.ppt_maker.deck import (
    Chart,
    Code,
    Column,
    Deck,
    Fact,
    Formula,
    Picture,
    Quote,
    Series,
    Slide,
    Table,
)
from tools.ppt_maker.drawing import draw
from tools.ppt_maker.drawing_wire import Drawing
from tools.ppt_maker.engines import HOW_TO_ENABLE, Places, _find_first
from tools.ppt_maker.pdf import Press

NOWHERE = Places(marp=Path("/nonexistent"), browsers=("/nonexistent",), offices=("/nonexistent",))


def _has_marp() -> bool:
    try:
        find_node(20)
        find_script(Places().marp, "marp-cli.js", "Marp")
    except NotInstalled:
        return False
    return _find_first(Places().browsers) is not None


needs_marp = pytest.mark.skipif(not _has_marp(), reason=HOW_TO_ENABLE)
needs_office = pytest.mark.skipif(
    _find_first(Places().offices) is None, reason="LibreOffice is not here: apt-get install libreoffice-impress"
)


@asynccontextmanager
async def started(tmp_path: Path, places: Places | None = None) -> AsyncIterator[Press]:
    press = await asyncio.to_thread(Press, Settings(DATA_DIR=tmp_path / "data"), places)
    await press.start()
    yield press


def draw_pptx(deck: Deck, workspace: Path, name: str) -> Deck:
    """The deck as it was drawn. Blocks."""
    file = f"{name}.pptx"
    drawing = Drawing(deck=deck, workspace=workspace, file=file, cache=workspace.parent / "cache")
    return draw(drawing, lambda *_: None).deck


def every_layout(theme: str = "clear") -> Deck:
    bars = Chart(kind="column", categories=("Q1", "Q2"), series=(Series(name="Sales", values=(3, 4.5)),))
    return Deck(
        title="Machine learning",
        author="The team",
        theme=theme,
        slides=(
            Slide(layout="cover", headline="Machine learning", text="A short introduction", notes="Good morning."),
            Slide(layout="agenda", headline="Agenda", bullets=("Why", "How", "What next")),
            Slide(layout="section", headline="Why it matters"),
            Slide(layout="bullets", headline="Three kinds", text="A lead", bullets=("Supervised: with answers", "No")),
            Slide(layout="columns", headline="Two ways", columns=(Column(heading="Build", bullets=("Slow",)),)),
            Slide(layout="facts", headline="It pays", facts=(Fact(value="94 %", label="found"), Fact(value="3"))),
            Slide(layout="table", headline="Results", table=Table(header=("Model", "?"), rows=(("Forest", "0.91"),))),
            Slide(layout="chart", headline="Sales grow", chart=bars, bullets=("Both quarters",), sources=("Ledger",)),
            Slide(layout="picture", headline="The sensor", picture=Picture(file="photo.png", caption="Prototype")),
            Slide(layout="quote", headline="Users", quote=Quote(text="It found the fault.", by="Plant two")),
            Slide(layout="code", headline="Ten lines", code=Code(language="python", text="def f(x):\n    return x")),
            Slide(layout="formula", headline="The loss", formula=Formula(latex=r"\frac{a}{b}", caption="A fraction")),
        ),
    )
