"""How decks look: colours, fonts and sizes, for every renderer.

A page is 960 x 540 points (16:9). Sizes are points on such a page. Fonts are named as PowerPoint knows them; each has a
free one of the same widths beside it, which servers without Microsoft's fonts measure and draw with.
"""

from dataclasses import dataclass
from typing import Literal

PAGE_WIDTH = 960.0
PAGE_HEIGHT = 540.0

Cover = Literal["band", "full", "rule"]  # colour over two thirds, colour all over, rules above and below the title
Mark = Literal["bar", "rule", "edge"]  # beside headlines: a short bar above, a hairline below, a strip along the page


@dataclass(frozen=True, slots=True)
class Font:
    name: str
    free: str  # of the same widths


CALIBRI = Font("Calibri", "Carlito")
CAMBRIA = Font("Cambria", "Caladea")
ARIAL = Font("Arial", "Liberation Sans")
COURIER = Font("Courier New", "Liberation Mono")


@dataclass(frozen=True, slots=True)
class Palette:
    """RRGGBB. Text in `ink` and `muted` can be read on `background` and `surface`, `on_accent` on `accent`."""

    background: str
    surface: str  # of cards, code and every other row of a table
    ink: str
    muted: str  # captions, sources, numbers of pages
    line: str
    accent: str  # the one colour that leads the eye; one of `series`
    on_accent: str
    cover: str  # background of the cover and of section pages
    on_cover: str
    on_cover_muted: str
    series: tuple[str, ...]  # of charts, in this order


@dataclass(frozen=True, slots=True)
class Sizes:
    cover: float = 48
    section: float = 40
    headline: float = 30
    lead: float = 20
    body: float = 22
    small: float = 14  # tables, captions, labels
    fact: float = 54
    quote: float = 32
    code: float = 15
    formula: float = 34
    foot: float = 10.5  # sources, footer, numbers
    least: float = 14  # body text is made smaller down to here, where there is too much of it


@dataclass(frozen=True, slots=True)
class Theme:
    name: str
    description: str  # for whoever chooses
    palette: Palette
    heading: Font
    body: Font
    mono: Font = COURIER
    sizes: Sizes = Sizes()
    cover: Cover = "band"
    mark: Mark = "bar"
    heading_bold: bool = True
    is_dark: bool = False


CLEAR = Theme(
    name="clear",
    description="White and calm, deep blue with an orange accent: reports and training",
    palette=Palette(
        background="FFFFFF",
        surface="F2F5F9",
        ink="16243A",
        muted="5A6B82",
        line="D5DDE7",
        accent="D9480F",
        on_accent="FFFFFF",
        cover="12305C",
        on_cover="FFFFFF",
        on_cover_muted="B9C9E2",
        series=("1F5FAE", "D9480F", "2B8A78", "E0A100", "6C4FA3", "7A8CA3"),
    ),
    heading=CALIBRI,
    body=CALIBRI,
    cover="band",
)
MIDNIGHT = Theme(
    name="midnight",
    description="Dark navy with cyan and amber: talks on a stage, technical topics",
    palette=Palette(
        background="0E1626",
        surface="18233A",
        ink="F1F5FB",
        muted="9DB0CC",
        line="2C3B58",
        accent="39C6E0",
        on_accent="06202A",
        cover="0A101D",
        on_cover="FFFFFF",
        on_cover_muted="9DB0CC",
        series=("39C6E0", "F5B841", "F2718B", "8BD17C", "B39DF0", "9DB0CC"),
    ),
    heading=ARIAL,
    body=ARIAL,
    sizes=Sizes(cover=44, section=36, headline=28, lead=18, body=20, fact=48, quote=28),
    cover="full",
    mark="edge",
    is_dark=True,
)
PAPER = Theme(
    name="paper",
    description="Warm paper with serif headlines and forest green: stories, research, education",
    palette=Palette(
        background="FAF6EE",
        surface="F0E9DB",
        ink="2B2A26",
        muted="6E675A",
        line="D9CFBB",
        accent="2F6B4F",
        on_accent="FFFFFF",
        cover="FAF6EE",
        on_cover="23352B",
        on_cover_muted="6E675A",
        series=("2F6B4F", "C8792B", "8C3B3B", "4A6C8C", "A99A4B", "7D7466"),
    ),
    heading=CAMBRIA,
    body=CALIBRI,
    cover="rule",
    mark="rule",
)
VIVID = Theme(
    name="vivid",
    description="White with violet and magenta, large and bold: pitches, products, events",
    palette=Palette(
        background="FFFFFF",
        surface="F5F1FD",
        ink="1D1433",
        muted="675C80",
        line="DDD3F0",
        accent="C2186A",
        on_accent="FFFFFF",
        cover="4B1FA8",
        on_cover="FFFFFF",
        on_cover_muted="D8C9F7",
        series=("5B2BC2", "C2186A", "E58A00", "0F8B8D", "3D6BE0", "8A7FA3"),
    ),
    heading=ARIAL,
    body=CALIBRI,
    sizes=Sizes(cover=50, section=42, headline=28),
    cover="full",
    mark="bar",
)

THEMES: dict[str, Theme] = {theme.name: theme for theme in (CLEAR, MIDNIGHT, PAPER, VIVID)}


def find_theme(name: str) -> Theme:
    """The theme of that name; the first one, where there is none such."""
    return THEMES.get(name.strip().lower(), CLEAR)
