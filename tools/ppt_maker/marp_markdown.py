"""A deck as Marp Markdown that stands on its own: texts as Markdown, the look as CSS, pictures within it.

Each page is short Markdown that a person can change; where its parts stand, and in what size, are rules of the style
sheet, measured as for the PPTX. Charts are CSS too: Marp lets no SVG into Markdown. Pictures are link definitions at
the end. Texts are escaped (`marp_text.py`), so that nothing in them is Markdown, HTML or an order to Marp. Blocks.
"""

from collections.abc import Mapping

from .chart_svg import draw_chart
from .deck import Deck, Slide
from .fitting import LEAST_CARD, code_boxes, code_style, columns_style, list_style
from .marp_css import data_uri, place, style_theme
from .marp_sheet import ANCHORED, Sheet, card, leading
from .marp_text import comment, escape, escape_alt, fence, math, quote_css, quote_yaml
from .metrics import Paragraph, is_right_to_left
from .pptx_charts import describe
from .pptx_look import CARD_PADDING, Box, look_of, regions
from .pptx_pages import AGENDA_POINTS, CAPTION_HEIGHT, COLUMN_GAP, COLUMN_POINTS, FACT_HEIGHT, loosened
from .pptx_tables import PADDING_X, is_numeric, measure_table
from .pptx_text import TextStyle, size_without_orphan
from .themes import Theme

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"


def write_markdown(deck: Deck, theme: Theme, pictures: Mapping[str, bytes]) -> str:
    """
    Args:
        pictures: PNG or JPEG, by the names that pages show them by.
    """
    shown = [name for name, content in pictures.items() if content.startswith((_PNG, _JPEG))]
    names = {name: f"picture-{number}" for number, name in enumerate(shown, 1)}
    pages: list[str] = []
    rules: list[str] = []
    sections = 0
    for number, slide in enumerate(deck.slides, 1):
        sections += slide.layout == "section"
        page = _Page(number, slide, deck, theme, names, sections)
        pages.append(page.write())
        rules += page.rules
    front = [
        "---",
        "marp: true",
        "theme: deck",
        f"title: {quote_yaml(deck.title)}",
        f"author: {quote_yaml(deck.author)}",
        f"lang: {deck.language}",
        f"footer: {quote_yaml(escape(deck.title))}",
        "paginate: true",
        "math: mathjax",
        "---",
    ]
    style = f"<style>\n{style_theme(theme, deck.language)}{chr(10).join(rules)}\n</style>"
    kinds = {name: "png" if pictures[name].startswith(_PNG) else "jpeg" for name in names}
    links = "\n".join(f"[{link}]: {data_uri(pictures[name], kinds[name])}" for name, link in names.items())
    return "\n\n".join(filter(None, ["\n".join(front), "\n\n---\n\n".join(pages), links, style])) + "\n"


class _Page(Sheet):
    """One page, by its layout."""

    def __init__(
        self, number: int, slide: Slide, deck: Deck, theme: Theme, pictures: Mapping[str, str], sections: int
    ) -> None:
        super().__init__(number, look_of(theme))
        self._slide = slide
        self._deck = deck
        self._theme = theme
        self._pictures = pictures
        self._sections = sections

    def write(self) -> str:
        slide = self._slide
        is_rtl = is_right_to_left(" ".join([slide.headline, slide.text, *slide.bullets]))
        self.lines.append(f"<!-- _class: {slide.layout} p{self._number}{' rtl' if is_rtl else ''} -->")
        if slide.layout in {"cover", "section"}:
            self.lines += ['<!-- _footer: "" -->', "<!-- _paginate: false -->"]
        boxes = regions(slide, self.look)
        self._headline()
        {
            "cover": self._cover,
            "section": self._section,
            "agenda": self._agenda,
            "bullets": self._bullets,
            "columns": self._columns,
            "facts": self._facts,
            "table": self._table,
            "chart": self._chart,
            "picture": self._picture,
            "quote": self._quote,
            "code": self._code,
            "formula": self._formula,
        }[slide.layout](boxes)
        if slide.sources and slide.layout not in {"cover", "section"}:
            text = "  ·  ".join(slide.sources)
            self.add_text("h6", "###### ", text, self.look.sources, TextStyle(self.look.sizes.foot, 8))
        if slide.notes:
            self.lines.append(comment(slide.notes))
        return "\n\n".join(self.lines)

    # --- Layouts ------------------------------------------------------------------------------------------------------

    def _headline(self) -> None:
        sizes, layout = self.look.sizes, self._slide.layout
        tag, mark, size, box = {
            "cover": ("h1", "# ", sizes.cover, self.look.cover_title),
            "section": ("h1", "# ", sizes.section, self.look.section_title),
        }.get(layout, ("h2", "## ", sizes.headline, self.look.headline))
        text = self._slide.headline or self._deck.title
        size = size_without_orphan(text, TextStyle(size, 18, font="heading"), self.look, box.width)
        self.add_text(tag, mark, text, box, TextStyle(size, 18, font="heading"))

    def _cover(self, boxes: tuple[Box, ...]) -> None:
        if self._slide.text:
            self.add_text("p", "", self._slide.text, boxes[1], TextStyle(20, 14))
        if self._deck.author:
            box = Box(boxes[1].x, 462, boxes[1].width, 24)
            self.add_text("h6", "###### ", self._deck.author, box, TextStyle(14, 11))

    def _section(self, boxes: tuple[Box, ...]) -> None:
        if self._slide.text:
            self.add_text("p", "", self._slide.text, boxes[1], TextStyle(20, 14))
        style = TextStyle(96, 60, font="heading", bold=True)
        self.add_text("h6", "###### ", f"{self._sections:02}", Box(56, 70, 300, 120), style)

    def _agenda(self, boxes: tuple[Box, ...]) -> None:
        style = TextStyle(self.look.sizes.body + 6, self.look.sizes.least)
        box = boxes[0]
        self.add_list(
            self._slide.bullets,
            Box(box.x, box.y + 14, box.width, box.height - 14),
            style,
            gap=AGENDA_POINTS,
            mark="1. ",
        )

    def _bullets(self, boxes: tuple[Box, ...]) -> None:
        if self._slide.text:
            self._lead(boxes[0])
        self.add_list(self._slide.bullets, boxes[-1], list_style(self.look, len(self._slide.bullets)))

    def _columns(self, boxes: tuple[Box, ...]) -> None:
        """Each column is a card: its heading is as large as that, its points lie upon it."""
        columns, body = self._slide.columns, self.look.sizes.body
        inner = boxes[0].inset(CARD_PADDING)
        head, style = TextStyle(body, 13, font="heading", bold=True), columns_style(self.look, columns)
        titles = [self.measure([Paragraph(column.heading)], inner, head, 60) for column in columns if column.heading]
        top = max(titles, default=0.0)
        room = inner.height - top - COLUMN_GAP
        lists = [self.measure(loosened(column.bullets, COLUMN_POINTS), inner, style, room) for column in columns]
        high = max(top + COLUMN_GAP + max(lists, default=0.0) + 2 * CARD_PADDING, LEAST_CARD * boxes[0].height)
        for number, (column, box) in enumerate(zip(columns, boxes, strict=True)):
            area = Box(box.x, box.y + 8, box.width, min(high, box.height - 8))
            title, rest = area.inset(CARD_PADDING).cut_top(top, gap=COLUMN_GAP)
            colour = self._theme.palette.series[number % len(self._theme.palette.series)]
            size = self.fit(column.heading, title, head)[1]
            self.add(
                "h3", f"### {escape(column.heading) or '&nbsp;'}", area, size, card(colour, self._theme.palette.surface)
            )
            self.add_list(column.bullets, rest, style, gap=COLUMN_POINTS)

    def _facts(self, boxes: tuple[Box, ...]) -> None:
        area = boxes[0]
        if self._slide.text:
            self._lead(boxes[1])
        top = area.y + (area.height - FACT_HEIGHT) / (3 if self._slide.text else 2.4)
        area = Box(area.x, top, area.width, min(FACT_HEIGHT, area.height))
        accent = self._theme.palette.accent
        for fact, box in zip(self._slide.facts, area.split(*[1.0] * len(self._slide.facts)), strict=True):
            value, label = box.inset(CARD_PADDING).cut_top(box.height * 0.42, gap=8)
            style = TextStyle(self.look.sizes.fact, 18, font="heading", bold=True)
            text, size = self.fit(fact.value, value, style)
            bottom = box.y + box.height - value.y - value.height
            look = f"color: #{accent}; padding-bottom: {bottom:.1f}pt; line-height: 1;"
            self.add("h3", f"### {escape(text) or '&nbsp;'}", box, size, f"{self._card()} {look} {ANCHORED}")
            if fact.label:
                self.add_text("p", "", fact.label, label, TextStyle(self.look.sizes.body - 2, 12))

    def _table(self, boxes: tuple[Box, ...]) -> None:
        table = self._slide.table
        assert table
        if self._slide.text:
            self._lead(boxes[1])
        measured = measure_table(table, boxes[0], self.look)
        numeric = [is_numeric([row[index] for row in table.rows]) for index in range(len(table.header))]
        lines = [table.header, tuple("--:" if right else "---" for right in numeric), *table.rows]
        rows = [" | ".join(c if at == 1 else escape(c) for c in row) for at, row in enumerate(lines)]
        box = Box(boxes[0].x, boxes[0].y, boxes[0].width, min(boxes[0].height, sum(measured.heights)))
        self.add("table", "\n".join(f"| {row} |" for row in rows), box, measured.size, f"line-height: {leading(rows)};")
        for index, width in enumerate(measured.widths, 1):
            self.rules.append(
                f"section.p{self._number} th:nth-child({index}) {{ width: {width - 2 * PADDING_X:.1f}pt; }}"
            )

    def _chart(self, boxes: tuple[Box, ...]) -> None:
        chart = self._slide.chart
        assert chart
        svg = draw_chart(chart, boxes[0], self._theme)
        picture = f'url("{data_uri(svg.encode("utf-8", "replace"), "svg+xml")}")'
        alt = quote_css(describe(chart))
        self.add_rule("::before", f"content: {picture} / {alt}; position: absolute; {place(boxes[0])}")
        self._aside(boxes)

    def _picture(self, boxes: tuple[Box, ...]) -> None:
        picture = self._slide.picture
        assert picture
        box, caption = boxes[0], None
        if picture.caption:
            box, caption = boxes[0].cut_top(boxes[0].height - CAPTION_HEIGHT - 4, gap=4)
        alt = escape_alt(picture.alt or picture.caption or self._slide.headline)
        if link := self._pictures.get(picture.file):
            self.add("p", f"![{alt}][{link}]", box, self.look.sizes.small)
        if caption:
            self.add_text(
                "p", "", picture.caption, caption, TextStyle(self.look.sizes.small, 10), "text-align: center;"
            )
        self._aside(boxes)

    def _quote(self, boxes: tuple[Box, ...]) -> None:
        quote = self._slide.quote
        assert quote
        words, by = boxes
        style = TextStyle(self.look.sizes.quote + 4, 18, font="heading")
        text, size = self.fit(quote.text, words, style)
        self.add("blockquote", f"> {escape(text)}", words, size, f"line-height: {leading([text])};")
        bar = Box(words.x - 110, words.y + 12, 6, words.height + 60)
        colour = self._theme.palette.accent
        self.add_rule("::before", f'content: ""; position: absolute; {place(bar)} background: #{colour};')
        if quote.by:
            self.add_text("p", "", quote.by, Box(by.x, by.y, by.width, 40), TextStyle(self.look.sizes.body - 2, 12))

    def _code(self, boxes: tuple[Box, ...]) -> None:
        code = self._slide.code
        assert code
        text = code.text.expandtabs(4)
        boxes, style = code_boxes(boxes, text, self.look), code_style(self.look, text)
        text, size = self.fit(text, boxes[0].inset(CARD_PADDING), style)
        self.add("pre", fence(text, code.language), boxes[0], size, f"padding: {CARD_PADDING:g}pt;")
        self._aside(boxes)

    def _formula(self, boxes: tuple[Box, ...]) -> None:
        formula = self._slide.formula
        assert formula
        box, sizes = boxes[0], self.look.sizes
        inner = box.inset(CARD_PADDING)
        centred = f"{self._card()} display: flex; align-items: center; justify-content: center;"
        if markdown := math(formula.latex):
            self.add("p", markdown, box, sizes.formula, centred)
        else:
            text, size = self.fit(formula.latex, inner, TextStyle(sizes.formula, 12, font="mono"))
            self.add("p", escape(text), box, size, f"{centred} font-family: '{self._theme.mono.free}', monospace;")
        if formula.caption:
            below = inner.cut_top(inner.height - 40)[1]
            self.add_text("p", "", formula.caption, below, TextStyle(sizes.body - 4, 11), "text-align: center;")
        self._aside(boxes)

    # --- Parts --------------------------------------------------------------------------------------------------------

    def _lead(self, box: Box) -> None:
        self.add_text("p", "", self._slide.text, box, TextStyle(self.look.sizes.lead, 13))

    def _aside(self, boxes: tuple[Box, ...]) -> None:
        if len(boxes) < 2 or not self._slide.bullets:
            return
        style = TextStyle(self.look.sizes.body - 2, 12)
        extra = f"{self._card()} {ANCHORED.replace('flex-end', 'center')}"
        self.add_list(self._slide.bullets, boxes[1], style, gap=0.7, extra=extra, padding=CARD_PADDING)

    def _card(self, line: str = "") -> str:
        return card(line or self._theme.palette.accent, self._theme.palette.surface)
