"""One page of a deck after the other, drawn on a stage."""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image
from pptx.enum.shapes import MSO_SHAPE
from pptx.oxml import parse_xml
from pptx.oxml.ns import qn
from pptx.util import Pt

from .deck import Deck, Fact, Slide
from .fitting import LEAST_CARD, add_to_notes, code_boxes, code_style, columns_style, list_style
from .metrics import Paragraph, height_of
from .pptx_charts import add_chart, describe
from .pptx_look import CARD_PADDING, GUTTER, SECTION_NUMBER, Box, regions
from .pptx_stage import TITLES, Stage, body_of, text_of
from .pptx_tables import add_table
from .pptx_text import TextStyle, add_text, bullets, choose_size, family_of, size_without_orphan, write_text
from .pptx_xml import NAMESPACES, fill

CAPTION_HEIGHT = 24.0
FACT_HEIGHT = 210.0
COLUMN_GAP = 12.0
COLUMN_POINTS, AGENDA_POINTS = 0.85, 1.1  # room between them, in ems
DrawFormula = Callable[[str, str], bytes]  # LaTeX and a colour, to a PNG


@dataclass(frozen=True, slots=True)
class Material:
    """What pages show besides text. Pictures by the name of their file, as PNG or JPEG."""

    pictures: Mapping[str, bytes]
    draw_formula: DrawFormula


class Painter:
    def __init__(self, stage: Stage, deck: Deck, material: Material) -> None:
        self._stage = stage
        self._deck = deck
        self._look = stage.look
        self._material = material
        self._sections = 0
        self._cut: list[str] = []  # of the page that is being drawn

    def draw(self, page: Slide) -> list[str]:
        """Draw one more page. Returns the texts that had to be cut, which are now whole in its notes."""
        self._cut = []
        kind, paint = {
            "cover": ("cover", self._cover),
            "section": ("section", self._section),
            "agenda": ("content", self._agenda),
            "bullets": ("content", self._bullets),
            "table": ("content", self._table),
            "chart": ("content", self._chart),
            "picture": ("content", self._picture),
            "columns": ("headline", self._columns),
            "facts": ("headline", self._facts),
            "quote": ("headline", self._quote),
            "code": ("headline", self._code),
            "formula": ("headline", self._formula),
        }[page.layout]
        slide = self._stage.add_slide(kind, self._deck.title)  # type: ignore[arg-type]
        self._headline(slide, page)
        paint(slide, page, regions(page, self._look))
        self._sources(slide, page)
        if notes := add_to_notes(page, self._cut).notes:
            slide.notes_slide.notes_text_frame.text = notes
        for placeholder in list(slide.placeholders):  # empty ones would show their prompts
            is_empty = placeholder.has_text_frame and not placeholder.text_frame.text.strip()
            if is_empty and placeholder.placeholder_format.type not in TITLES:
                placeholder._element.getparent().remove(placeholder._element)
        return self._cut

    # --- Layouts ------------------------------------------------------------------------------------------------------

    def _cover(self, slide: Any, page: Slide, boxes: tuple[Box, ...]) -> None:
        if (place := text_of(slide)) is not None and page.text:
            self._write(place, [Paragraph(page.text)], TextStyle(20, 14, inherited=20), boxes[1])
        author = next((p for p in slide.placeholders if p.placeholder_format.idx == 13), None)
        if author is not None and self._deck.author:
            box = Box(boxes[1].x, 462, boxes[1].width, 24)
            self._write(author, [Paragraph(self._deck.author)], TextStyle(14, 11, inherited=14), box)

    def _section(self, slide: Any, page: Slide, boxes: tuple[Box, ...]) -> None:
        self._sections += 1
        number = next((p for p in slide.placeholders if p.placeholder_format.idx == 13), None)
        if number is not None and self._stage.is_own:
            style = TextStyle(96, 60, font="heading", bold=True, inherited=96)
            self._write(number, [Paragraph(f"{self._sections:02}")], style, SECTION_NUMBER)
        place = slide.placeholders[1] if self._stage.is_own else text_of(slide)
        if place is not None and page.text:
            self._write(place, [Paragraph(page.text)], TextStyle(20, 14, inherited=20), boxes[1])

    def _agenda(self, slide: Any, page: Slide, boxes: tuple[Box, ...]) -> None:
        size = self._look.sizes.body
        style = TextStyle(size + 6, self._look.sizes.least, bullet="number", anchor="t")
        self._write(body_of(slide), loosened(page.bullets, AGENDA_POINTS), style, _narrowed(boxes[0]))

    def _bullets(self, slide: Any, page: Slide, boxes: tuple[Box, ...]) -> None:
        if page.text:
            self._lead(slide, page.text, boxes[0])
        text, style = loosened(page.bullets), list_style(self._look, len(page.bullets))
        if choose_size(text, boxes[-1], style, self._look) is None:
            text = bullets(page.bullets, gap=0.45)
        self._write(body_of(slide), text, style, boxes[-1], move=bool(page.text))

    def _columns(self, slide: Any, page: Slide, boxes: tuple[Box, ...]) -> None:
        head = TextStyle(self._look.sizes.body, 13, font="heading", bold=True, colour="tx1", anchor="t")
        points = columns_style(self._look, page.columns)
        inner = boxes[0].inset(CARD_PADDING)
        title_height = self._height(
            [[Paragraph(column.heading)] for column in page.columns if column.heading], head, inner, 60
        )
        room = Box(inner.x, inner.y, inner.width, inner.height - title_height - COLUMN_GAP)
        lists = [loosened(column.bullets, COLUMN_POINTS) for column in page.columns]
        text_height = self._height(lists, points, room, room.height)
        height = max(title_height + COLUMN_GAP + text_height + 2 * CARD_PADDING, LEAST_CARD * boxes[0].height)
        for number, (column, text, box) in enumerate(zip(page.columns, lists, boxes, strict=True), 1):
            box = Box(box.x, box.y + 8, box.width, min(height, box.height - 8))
            self._card(slide, box, f"Card {number}", top=f"accent{number}" if self._stage.is_own else self._look.accent)
            inner = box.inset(CARD_PADDING)
            if column.heading:
                top, inner = inner.cut_top(title_height, gap=COLUMN_GAP)
                self._add(slide, top, [Paragraph(column.heading)], head, f"Heading {number}")
            self._add(slide, inner, text, points, f"Points {number}")

    def _height(self, texts: list[list[Paragraph]], style: TextStyle, box: Box, most: float) -> float:
        """Of the highest of the texts, each in a box as wide as this one."""
        heights = [0.0]
        for text in texts:
            place = Box(box.x, box.y, box.width, most)
            size = choose_size(text, place, style, self._look) or style.least
            family = family_of(style, self._look)
            heights.append(height_of(text, family, size, box.width, bold=bool(style.bold)))
        return min(max(heights), most)

    def _facts(self, slide: Any, page: Slide, boxes: tuple[Box, ...]) -> None:
        if page.text:
            self._lead(slide, page.text, boxes[1])
        area = Box(boxes[0].x, boxes[0].y, boxes[0].width, min(FACT_HEIGHT, boxes[0].height))
        top = boxes[0].y + (boxes[0].height - area.height) / (3 if page.text else 2.4)
        area = Box(area.x, top, area.width, area.height)
        for number, (fact, box) in enumerate(zip(page.facts, area.split(*[1.0] * len(page.facts)), strict=True), 1):
            self._fact(slide, fact, box, number)

    def _fact(self, slide: Any, fact: Fact, box: Box, number: int) -> None:
        self._card(slide, box, f"Card {number}", top=self._look.accent)
        value, label = box.inset(CARD_PADDING).cut_top(box.height * 0.42, gap=8)
        style = TextStyle(self._look.sizes.fact, 18, font="heading", colour=self._look.accent, bold=True, anchor="b")
        self._add(slide, value, [Paragraph(fact.value)], style, f"Value {number}")
        style = TextStyle(self._look.sizes.body - 2, 12, colour="tx1")
        self._add(slide, label, [Paragraph(fact.label)], style, f"Label {number}")

    def _table(self, slide: Any, page: Slide, boxes: tuple[Box, ...]) -> None:
        if page.text:
            self._lead(slide, page.text, boxes[1])
        assert page.table
        frame = add_table(slide, boxes[0], page.table, self._look, self._deck.language)
        self._take_place(slide, frame, "Table", page.headline)

    def _chart(self, slide: Any, page: Slide, boxes: tuple[Box, ...]) -> None:
        assert page.chart
        frame = add_chart(slide, boxes[0], page.chart, self._look)
        self._take_place(slide, frame, "Chart", describe(page.chart))
        self._aside(slide, page, boxes)

    def _picture(self, slide: Any, page: Slide, boxes: tuple[Box, ...]) -> None:
        assert page.picture
        box, caption = boxes[0], None
        if page.picture.caption:
            box, caption = boxes[0].cut_top(boxes[0].height - CAPTION_HEIGHT - 4, gap=4)
        shape = self._contain(slide, box, self._material.pictures[page.picture.file])
        self._take_place(slide, shape, "Picture", page.picture.alt or page.picture.caption or page.headline)
        if caption:
            style = TextStyle(self._look.sizes.small, 10, colour="tx2", align="ctr", anchor="ctr")
            self._add(slide, caption, [Paragraph(page.picture.caption)], style, "Caption")
        self._aside(slide, page, boxes)

    def _quote(self, slide: Any, page: Slide, boxes: tuple[Box, ...]) -> None:
        assert page.quote
        words, by = boxes
        self._bar(slide, Box(words.x - 110, words.y + 12, 6, words.height + 60))
        style = TextStyle(110, 110, font="heading", colour=self._look.accent, bold=True)
        self._add(slide, Box(words.x - 76, words.y - 8, 76, 170), [Paragraph("“")], style, "Quotation mark")
        style = TextStyle(self._look.sizes.quote + 4, 18, font="heading", bold=False, colour="tx1", anchor="ctr")
        self._add(slide, words, [Paragraph(page.quote.text)], style, "Quote")
        if page.quote.by:
            style = TextStyle(self._look.sizes.body - 2, 12, colour="tx2")
            self._add(slide, Box(by.x, by.y, by.width, 40), [Paragraph(page.quote.by)], style, "Author of the quote")

    def _code(self, slide: Any, page: Slide, boxes: tuple[Box, ...]) -> None:
        assert page.code
        text = page.code.text.expandtabs(4)
        boxes, style = code_boxes(boxes, text, self._look), code_style(self._look, text)
        self._card(slide, boxes[0], "Card", top=None)
        name = f"Code ({page.code.language})" if page.code.language else "Code"
        self._add(slide, boxes[0].inset(CARD_PADDING), [Paragraph(text)], style, name)
        self._aside(slide, page, boxes)

    def _formula(self, slide: Any, page: Slide, boxes: tuple[Box, ...]) -> None:
        assert page.formula
        box = boxes[0]
        self._card(slide, box, "Card", top=self._look.accent)
        inner, caption = box.inset(CARD_PADDING), None
        if page.formula.caption:
            inner, caption = inner.cut_top(inner.height - 44, gap=4)
        picture = self._material.draw_formula(page.formula.latex, self._look.ink)
        if picture:
            shape = self._contain(slide, inner.inset(10), picture, points_per_pixel=self._look.sizes.formula / 100)
            shape.name = "Formula"
            shape._element.nvPicPr.cNvPr.set("descr", page.formula.latex)
        else:
            style = TextStyle(self._look.sizes.formula, 12, font="mono", colour="tx1", align="ctr", anchor="ctr")
            self._add(slide, inner, [Paragraph(page.formula.latex)], style, "Formula")
        if caption:
            style = TextStyle(self._look.sizes.body - 4, 11, colour="tx2", align="ctr", anchor="ctr")
            self._add(slide, caption, [Paragraph(page.formula.caption)], style, "Caption")
        self._aside(slide, page, boxes)

    # --- Parts --------------------------------------------------------------------------------------------------------

    def _headline(self, slide: Any, page: Slide) -> None:
        sizes = self._look.sizes
        size, box = {
            "cover": (sizes.cover, self._look.cover_title),
            "section": (sizes.section, self._look.section_title),
        }.get(page.layout, (sizes.headline, self._look.headline))
        text = page.headline or self._deck.title
        largest = size_without_orphan(text, TextStyle(size, 18, font="heading"), self._look, box.width)
        style = TextStyle(largest, 18, font="heading", inherited=size)
        self._write(slide.shapes.title, [Paragraph(text)], style, box)

    def _lead(self, slide: Any, text: str, box: Box) -> None:
        style = TextStyle(self._look.sizes.lead, 13, colour="tx2", anchor="t")
        self._add(slide, box, [Paragraph(text)], style, "Lead")

    def _aside(self, slide: Any, page: Slide, boxes: tuple[Box, ...]) -> None:
        if len(boxes) < 2 or not page.bullets:
            return
        self._card(slide, boxes[1], "Card beside", top=self._look.accent)
        style = TextStyle(self._look.sizes.body - 2, 12, colour="tx1", bullet="dot", anchor="ctr")
        self._add(slide, boxes[1].inset(CARD_PADDING), bullets(page.bullets, gap=0.7), style, "Points")

    def _sources(self, slide: Any, page: Slide) -> None:
        if not page.sources or page.layout in {"cover", "section"}:
            return
        style = TextStyle(self._look.sizes.foot, 8, colour="tx2", anchor="b")
        text = [Paragraph("  ·  ".join(page.sources))]
        place = next((p for p in slide.placeholders if p.placeholder_format.idx == 14), None)
        if place is not None and self._stage.is_own:
            self._write(place, text, style, self._look.sources)
        else:
            self._add(slide, self._look.sources, text, style, "Sources")

    def _card(self, slide: Any, box: Box, name: str, *, top: str | None) -> None:
        """A surface for what belongs together, with a line of that colour above it."""
        self._shape(slide, box, "bg2", name)
        if top:
            self._shape(slide, Box(box.x, box.y, box.width, 4), top, f"{name}, line")

    def _bar(self, slide: Any, box: Box) -> None:
        self._shape(slide, box, self._look.accent, "Bar")

    def _shape(self, slide: Any, box: Box, colour: str, name: str) -> None:
        place = (Pt(box.x), Pt(box.y), Pt(box.width), Pt(box.height))
        shape = slide.shapes.add_shape(MSO_SHAPE.RECTANGLE, *place)
        shape.name = name
        shape._element.remove(shape._element.find(qn("p:style")))
        for xml in (fill(colour), "<a:ln><a:noFill/></a:ln>"):
            shape._element.spPr.append(parse_xml(xml.replace(">", f" {NAMESPACES}>", 1)))

    def _contain(self, slide: Any, box: Box, picture: bytes, *, points_per_pixel: float | None = None) -> Any:
        """The picture as large as the box lets it be, in its own proportions, in the middle.

        Args:
            points_per_pixel: its size, where it need not be as large as that.
        """
        with Image.open(io.BytesIO(picture)) as opened:
            width, height = opened.size
        scale = min(box.width / width, box.height / height, points_per_pixel or float("inf"))
        wide, high = width * scale, height * scale
        left, top = box.x + (box.width - wide) / 2, box.y + (box.height - high) / 2
        return slide.shapes.add_picture(io.BytesIO(picture), Pt(left), Pt(top), Pt(wide), Pt(high))

    def _take_place(self, slide: Any, shape: Any, name: str, description: str) -> None:
        """Let the shape stand in the page's placeholder for content, as when somebody inserts it there by hand."""
        shape.name = name
        element = shape._element
        element.xpath("./*[1]/p:cNvPr")[0].set("descr", description)
        if (place := body_of(slide)) is None:
            return
        mark = place._element.xpath("./p:nvSpPr/p:nvPr/p:ph")[0]
        element.xpath("./*[1]/p:nvPr")[0].insert(0, mark)
        place._element.getparent().remove(place._element)

    def _write(self, shape: Any, text: list[Paragraph], style: TextStyle, box: Box, *, move: bool = False) -> None:
        if move or not self._stage.is_own:
            shape.left, shape.top, shape.width, shape.height = (Pt(v) for v in (box.x, box.y, box.width, box.height))
        if "ctr" in _alignment(shape):
            style = replace(style, align="ctr")
        if not write_text(shape, text, style, self._look, self._deck.language, box):
            self._cut.extend(paragraph.text for paragraph in text)

    def _add(self, slide: Any, box: Box, text: list[Paragraph], style: TextStyle, name: str) -> None:
        if not add_text(slide, box, text, style, self._look, self._deck.language, name=name):
            self._cut.extend(paragraph.text for paragraph in text)


def _alignment(shape: Any) -> list[str]:
    """How the layouts align a placeholder's text."""
    base = shape._base_placeholder
    return [] if base is None else base._element.xpath(".//a:lvl1pPr/@algn")


def loosened(texts: tuple[str, ...], gap: float | None = None) -> list[Paragraph]:
    """A list with more air between its points, the fewer they are."""
    return bullets(texts, gap=gap or {1: 1.6, 2: 1.6, 3: 1.6, 4: 1.2, 5: 0.85}.get(len(texts), 0.45))


def _narrowed(box: Box) -> Box:
    return Box(box.x, box.y + GUTTER / 2, box.width, box.height - GUTTER / 2)
