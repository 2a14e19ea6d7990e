"""Where things stand on a page, and in which of the presentation's colours and fonts. Points, from the top left."""

from dataclasses import dataclass, field, replace

from .deck import Slide
from .themes import PAGE_WIDTH, Sizes, Theme

MARGIN = 56.0
GUTTER = 28.0
CARD_PADDING = 18.0


@dataclass(frozen=True, slots=True)
class Box:
    x: float
    y: float
    width: float
    height: float

    def inset(self, by: float) -> "Box":
        return Box(self.x + by, self.y + by, self.width - 2 * by, self.height - 2 * by)

    def split(self, *shares: float, gap: float = GUTTER) -> tuple["Box", ...]:
        """Boxes side by side, of these shares of the width."""
        room, x, boxes = self.width - gap * (len(shares) - 1), self.x, []
        for share in shares:
            width = room * share / sum(shares)
            boxes.append(replace(self, x=x, width=width))
            x += width + gap
        return tuple(boxes)

    def cut_top(self, height: float, gap: float = 0.0) -> tuple["Box", "Box"]:
        """The upper part of that height, and what is left below it."""
        rest = Box(self.x, self.y + height + gap, self.width, self.height - height - gap)
        return replace(self, height=height), rest


HEADLINE = Box(MARGIN, 42, PAGE_WIDTH - 2 * MARGIN, 76)
BODY = Box(MARGIN, 130, PAGE_WIDTH - 2 * MARGIN, 338)
SOURCES = Box(MARGIN, 476, PAGE_WIDTH - 2 * MARGIN, 26)
FOOTER = Box(MARGIN, 508, 640, 20)
SECTION_NUMBER = Box(MARGIN, 64, 300, 122)
NUMBER = Box(PAGE_WIDTH - MARGIN - 100, 508, 100, 20)


@dataclass(frozen=True, slots=True)
class Look:
    """What drawing needs to know of a theme, or of a team's template. Colours are names of the colour scheme.

    Colours: bg1 the background, tx1 the ink, bg2 a surface, tx2 muted text, accent1 ... accent6.
    """

    heading: str  # name of the font, as it is measured
    body: str
    mono: str
    sizes: Sizes = field(default_factory=Sizes)
    heading_bold: bool = True
    ink: str = "202020"  # RRGGBB of tx1, for what is drawn as a picture
    accent: str = "accent1"
    line: str = "tx2"  # of tables
    headline: Box = HEADLINE
    area: Box = BODY
    sources: Box = SOURCES
    cover_title: Box = Box(MARGIN, 130, 580, 176)
    cover_text: Box = Box(MARGIN, 342, 580, 84)
    section_title: Box = Box(MARGIN, 200, 700, 130)
    section_text: Box = Box(MARGIN, 340, 700, 80)


def look_of(theme: Theme) -> Look:
    accent = f"accent{theme.palette.series.index(theme.palette.accent) + 1}"
    look = Look(
        heading=theme.heading.name,
        body=theme.body.name,
        mono=theme.mono.name,
        sizes=theme.sizes,
        heading_bold=theme.heading_bold,
        ink=theme.palette.ink,
        accent=accent,
        line=theme.palette.line,
    )
    if theme.mark == "rule":  # which stands between the headline and what is below
        look = replace(look, area=Box(BODY.x, BODY.y + 12, BODY.width, BODY.height - 12))
    if theme.cover == "rule":
        middle = PAGE_WIDTH - 2 * MARGIN - 80
        return replace(
            look,
            cover_title=Box(MARGIN + 40, 130, middle, 166),
            cover_text=Box(MARGIN + 40, 330, middle, 70),
        )
    if theme.cover == "full":
        return replace(look, cover_title=Box(MARGIN, 130, 620, 176), cover_text=Box(MARGIN, 342, 560, 84))
    return look


def regions(slide: Slide, look: Look) -> tuple[Box, ...]:
    """Where the parts of a page stand, in the order of the fields in `deck.py`."""
    area = look.area
    match slide.layout:
        case "cover":
            return look.cover_title, look.cover_text
        case "section":
            return look.section_title, look.section_text
        case "bullets" if slide.text:
            return area.cut_top(52, gap=10)
        case "columns":
            return area.split(*([1.0] * len(slide.columns)))
        case "facts" | "table" if slide.text:
            lead, rest = area.cut_top(52, gap=10)
            return rest, lead
        case "chart" | "picture" | "code" | "formula" if slide.bullets:
            return area.split(1.75, 1.0)
        case "quote":
            return Box(area.x + 110, area.y, area.width - 150, area.height).cut_top(area.height * 0.62, gap=18)
        case _:
            return (area,)
