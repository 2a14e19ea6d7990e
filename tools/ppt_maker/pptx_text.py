"""Text on a page: measured, made to fit its box, and written as paragraphs with real bullets."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from lxml import etree
from pptx.oxml import parse_xml
from pptx.oxml.ns import qn
from pptx.util import Pt

from .metrics import Paragraph, find_face, fit_size, is_right_to_left, steps
from .pptx_look import Box, Look
from .pptx_xml import NAMESPACES, emu, fill

BULLET_INDENT = 1.1  # ems
MAX_LESS = 4  # points that a headline may be smaller, to stand in one line
MAX_TERM = 36  # characters before a colon that are set in bold
FULL_TAGS = {"en": "en-US", "ko": "ko-KR", "ja": "ja-JP", "zh": "zh-CN", "ar": "ar-SA", "de": "de-DE", "fr": "fr-FR"}


@dataclass(frozen=True, slots=True)
class TextStyle:
    """
    Args:
        largest: the size to begin with.
        inherited: the size that the placeholder has by itself.
    """

    largest: float
    least: float
    font: Literal["heading", "body", "mono"] = "body"
    colour: str | None = None  # None: the placeholder's own
    bold: bool | None = None
    align: Literal["l", "ctr", "r"] = "l"
    anchor: Literal["t", "ctr", "b"] | None = None
    bullet: Literal["dot", "number"] | None = None
    inherited: float | None = None


def bullets(texts: Sequence[str], *, gap: float = 0.55) -> list[Paragraph]:
    """Points of a list. In "Term: what it means" the term is bold."""
    return [Paragraph(text, bold=_term(text), indent=BULLET_INDENT, space_after=gap) for text in texts]


def choose_size(paragraphs: Sequence[Paragraph], box: Box, style: TextStyle, look: Look) -> float | None:
    """The largest size with which the text fits the box; None: it does not with any."""
    sizes = steps(style.largest, style.least)
    return fit_size(paragraphs, family_of(style, look), box.width, box.height, sizes, bold=_is_bold(style, look))


def size_without_orphan(text: str, style: TextStyle, look: Look, width: float) -> float:
    """A little smaller than the largest size, where that saves the text a second line with next to nothing in it."""
    needs = find_face(family_of(style, look), bold=_is_bold(style, look)).width(text)
    whole = (style.largest - less for less in range(MAX_LESS + 1) if needs * (style.largest - less) <= width)
    return next(whole, style.largest)


def family_of(style: TextStyle, look: Look) -> str:
    return {"heading": look.heading, "body": look.body, "mono": look.mono}[style.font]


def write_text(
    shape: Any, paragraphs: Sequence[Paragraph], style: TextStyle, look: Look, language: str, box: Box
) -> bool:
    """Fill the text of a shape that stands in the box, without margins of its own. False: it had to be cut."""
    size = choose_size(paragraphs, box, style, look)
    is_whole = size is not None
    if size is None:
        size, paragraphs = style.least, cut_to_fit(paragraphs, box, style, look)
    body = shape.text_frame._txBody
    _set_frame(body.find(qn("a:bodyPr")), style)
    for old in body.findall(qn("a:p")):
        body.remove(old)
    for paragraph in paragraphs or [Paragraph("")]:
        body.append(_paragraph(paragraph, style, size, look, FULL_TAGS.get(language, language)))
    return is_whole


def cut_to_fit(paragraphs: Sequence[Paragraph], box: Box, style: TextStyle, look: Look) -> list[Paragraph]:
    """What of the text fits with its least size, with an ellipsis at its end."""
    kept = list(paragraphs)
    while kept:
        *before, last = kept
        low, high = 0, len(last.text)
        while low < high:
            middle = (low + high + 1) // 2
            shorter = [*before, replace(last, text=last.text[:middle].rstrip() + "…")]
            low, high = (middle, high) if choose_size(shorter, box, style, look) else (low, middle - 1)
        if low:
            return [*before, replace(last, text=last.text[:low].rstrip() + "…", bold=min(last.bold, low))]
        kept = before
    return [Paragraph("…")]


def add_text(
    slide: Any, box: Box, paragraphs: Sequence[Paragraph], style: TextStyle, look: Look, language: str, *, name: str
) -> bool:
    """Add a text box. False: its text had to be cut."""
    shape = slide.shapes.add_textbox(Pt(box.x), Pt(box.y), Pt(box.width), Pt(box.height))
    shape.name = name
    return write_text(shape, paragraphs, style, look, language, box)


def _paragraph(paragraph: Paragraph, style: TextStyle, size: float, look: Look, language: str) -> etree._Element:
    own = size * paragraph.scale
    rtl = is_right_to_left(paragraph.text)
    align = {"l": "r", "r": "l"}.get(style.align, style.align) if rtl else style.align
    aligned = f'algn="{align}" ' if rtl or style.inherited is None else ""  # otherwise as the layout has it
    indent, after = emu(paragraph.indent * own), round(paragraph.space_after * own * 100)
    element = parse_xml(
        f'<a:p {NAMESPACES}><a:pPr marL="{indent}" indent="{-indent}" '
        f'{aligned}rtl="{int(rtl)}"><a:lnSpc><a:spcPct val="100000"/></a:lnSpc>'
        f'<a:spcBef><a:spcPts val="0"/></a:spcBef><a:spcAft><a:spcPts val="{after}"/>'
        f"</a:spcAft>{_bullet(style, look)}</a:pPr></a:p>"
    )
    bold = style.bold
    for at, part in enumerate((paragraph.text[: paragraph.bold], paragraph.text[paragraph.bold :])):
        for index, line in enumerate(part.split("\n")):
            if index:
                element.append(parse_xml(f"<a:br {NAMESPACES}/>"))
            if line:
                element.append(_run(line, style, own, look, language, bold=True if at == 0 else bold))
    return element


def _run(text: str, style: TextStyle, size: float, look: Look, language: str, *, bold: bool | None) -> etree._Element:
    sized = "" if style.inherited == size else f' sz="{round(size * 100)}"'
    weight = "" if bold is None else f' b="{int(bold)}"'
    colour = fill(style.colour) if style.colour else ""
    fonts = {"heading": "+mj", "body": "+mn", "mono": ""}
    family = fonts[style.font]
    typeface = f'<a:latin typeface="{family}-lt"/>' if family else f'<a:latin typeface="{look.mono}"/>'
    if style.inherited is not None:
        typeface = ""
    run = parse_xml(
        f'<a:r {NAMESPACES}><a:rPr lang="{language}"{sized}{weight} dirty="0">{colour}{typeface}</a:rPr><a:t/></a:r>'
    )
    run.find(qn("a:t")).text = text
    return run


def _bullet(style: TextStyle, look: Look) -> str:
    colour = f'<a:buClr><a:schemeClr val="{look.accent}"/></a:buClr>'
    match style.bullet:
        case "dot":
            return f'{colour}<a:buFont typeface="Arial"/><a:buChar char="•"/>'
        case "number":
            return f'{colour}<a:buFont typeface="+mj-lt"/><a:buAutoNum type="arabicPlain"/>'
        case None:
            return "<a:buNone/>"


def _set_frame(frame: etree._Element, style: TextStyle) -> None:
    for side in ("lIns", "tIns", "rIns", "bIns"):
        frame.set(side, "0")
    frame.set("wrap", "square")
    if style.anchor:
        frame.set("anchor", style.anchor)
    for child in list(frame):
        frame.remove(child)
    frame.append(parse_xml(f"<a:normAutofit {NAMESPACES}/>"))


def _term(text: str) -> int:
    """How much of "Term: what it means" is the term, with its colon."""
    for colon in (": ", "："):
        at = text.find(colon)
        if 0 < at <= MAX_TERM and at + len(colon) < len(text):
            return at + 1
    return 0


def _is_bold(style: TextStyle, look: Look) -> bool:
    return look.heading_bold if style.font == "heading" and style.bold is None else bool(style.bold)
