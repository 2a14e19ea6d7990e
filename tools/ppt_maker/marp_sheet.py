"""A page of Markdown on which texts are measured, made to fit and placed."""

from collections.abc import Sequence

from .marp_css import place
from .marp_text import escape
from .metrics import Paragraph, height_of, line_height
from .pptx_look import CARD_PADDING, Box, Look
from .pptx_pages import loosened
from .pptx_text import TextStyle, bullets, choose_size, cut_to_fit, family_of

ANCHORED = "display: flex; flex-direction: column; justify-content: flex-end;"


class Sheet:
    """`lines` of Markdown, and the `rules` of the style sheet that place them."""

    def __init__(self, number: int, look: Look) -> None:
        self.lines: list[str] = []
        self.rules: list[str] = []
        self.look = look
        self._number = number
        self._counts: dict[str, int] = {}

    def add_rule(self, selector: str, rule: str) -> None:
        self.rules.append(f"section.p{self._number}{selector} {{ {rule} }}")

    def add_list(
        self,
        texts: Sequence[str],
        box: Box,
        style: TextStyle,
        *,
        gap: float | None = None,
        mark: str = "- ",
        extra: str = "",
        padding: float = 0.0,
    ) -> None:
        """
        Args:
            gap: between the points, in ems; None: the more, the fewer they are.
        """
        paragraphs = loosened(tuple(texts), gap)
        inner = box.inset(padding)
        size = choose_size(paragraphs, inner, style, self.look)
        if size is None:
            paragraphs = bullets(texts, gap=0.45)
            size = choose_size(paragraphs, inner, style, self.look)
        if size is None:
            size, paragraphs = style.least, cut_to_fit(paragraphs, inner, style, self.look)
        if lines := [f"{mark}{point(paragraph)}" for paragraph in paragraphs if paragraph.text]:
            tag = "ol" if mark == "1. " else "ul"
            look = f"{extra} --gap: {paragraphs[0].space_after:g}em; line-height: {leading(texts)};"
            self.add(tag, "\n".join(lines), box, size, look)

    def add_text(self, tag: str, mark: str, text: str, box: Box, style: TextStyle, extra: str = "") -> None:
        shown, size = self.fit(text, box, style)
        self.add(tag, f"{mark}{escape(shown)}", box, size, f"line-height: {leading([shown])}; {extra}")

    def fit(self, text: str, box: Box, style: TextStyle) -> tuple[str, float]:
        """The text, or as much of it as fits, and its size."""
        paragraphs = [Paragraph(text)]
        if size := choose_size(paragraphs, box, style, self.look):
            return text, size
        return "\n".join(p.text for p in cut_to_fit(paragraphs, box, style, self.look)), style.least

    def measure(self, paragraphs: Sequence[Paragraph], box: Box, style: TextStyle, most: float) -> float:
        size = choose_size(paragraphs, Box(box.x, box.y, box.width, most), style, self.look) or style.least
        family = family_of(style, self.look)
        return min(most, height_of(paragraphs, family, size, box.width, bold=bool(style.bold)))

    def add(self, tag: str, markdown: str, box: Box, size: float, extra: str = "") -> None:
        self._counts[tag] = self._counts.get(tag, 0) + 1
        self.lines.append(markdown)
        rule = f"{place(box)} font-size: {size:g}pt; {extra}"
        self.add_rule(f" > {tag}:nth-of-type({self._counts[tag]})", rule)


def card(line: str, surface: str) -> str:
    """A surface for what belongs together, with a line of that colour above it."""
    top, side = CARD_PADDING - 4, CARD_PADDING
    return f"border-top: 4pt solid #{line}; background: #{surface}; padding: {top:g}pt {side:g}pt {side:g}pt;"


def point(paragraph: Paragraph) -> str:
    """A point of a list, its term in bold without the colon: Markdown takes no bold that ends between signs."""
    if not paragraph.bold:
        return escape(paragraph.text)
    term, rest = paragraph.text[: paragraph.bold], paragraph.text[paragraph.bold :]
    return f"**{escape(term[:-1].strip())}**{escape(term[-1] + rest)}"


def leading(texts: Sequence[str]) -> float:
    return max((line_height(text) for text in texts), default=1.2)
