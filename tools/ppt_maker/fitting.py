"""Pages that hold too much, made into pages that hold what can be read.

Lists, tables and code go on on a further page; where the number of pages is fixed, what is left over goes into the
notes. Single texts that are too long for their box are cut when they are drawn (`pptx_text.py`). Measures: blocks.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from .deck import MAX_SLIDES, Code, Column, Deck, Slide, Table
from .metrics import Paragraph, height_of
from .pptx_look import CARD_PADDING, Box, Look, regions
from .pptx_tables import is_too_high
from .pptx_text import TextStyle, bullets, choose_size

MAX_POINTS = 8  # of a page: more are not read
FEW, FEW_LINES = 3, 10  # points of a column and lines of code that may be larger
LEAST_CARD = 0.6  # of the room there is: lower cards look lost

Item = TypeVar("Item")


def fit_deck(deck: Deck, look: Look, *, exact: bool) -> Deck:
    """
    Args:
        exact: no page may be added.
    """
    slides: list[Slide] = []
    for number, slide in enumerate(deck.slides):
        pieces = split(slide, look)
        left = MAX_SLIDES - len(slides) - (len(deck.slides) - number - 1)
        if exact or len(pieces) > left:
            slides.append(_with_rest_in_notes(pieces))
        else:
            slides.extend(_numbered(pieces))
    return deck.model_copy(update={"slides": tuple(slides)})


def split(slide: Slide, look: Look) -> list[Slide]:
    """The page, or pages that hold the same between them."""
    match slide.layout:
        case "bullets" | "agenda":
            return [
                slide.model_copy(update={"bullets": part}) for part in _pack(slide.bullets, _list_fits(slide, look))
            ]
        case "table":
            assert slide.table
            header = slide.table.header
            box = regions(slide, look)[0]
            parts = _pack(slide.table.rows, lambda rows: not is_too_high(Table(header=header, rows=rows), box, look))
            return [slide.model_copy(update={"table": Table(header=header, rows=part)}) for part in parts]
        case "code":
            assert slide.code
            code = slide.code
            pieces = _pack(code.text.split("\n"), _code_fits(slide, look))
            return [
                slide.model_copy(update={"code": Code(language=code.language, text="\n".join(piece))})
                for piece in pieces
            ]
        case _:
            return [slide]


def list_style(look: Look, points: int) -> TextStyle:
    """The fewer points, the larger they may be, though never as large as the headline."""
    more = {1: 8, 2: 8, 3: 7, 4: 6}.get(points, 4)
    return TextStyle(min(look.sizes.body + more, look.sizes.headline - 2), look.sizes.least, bullet="dot")


def columns_style(look: Look, columns: Sequence[Column]) -> TextStyle:
    """Of the points below the headings."""
    more = 3 if max(len(column.bullets) for column in columns) <= FEW else 0
    return TextStyle(look.sizes.body + more, 12, colour="tx1", bullet="dot")


def code_style(look: Look, text: str) -> TextStyle:
    more = 3 if text.count("\n") >= FEW_LINES else 7
    return TextStyle(look.sizes.code + more, 10, font="mono", colour="tx1")


def code_boxes(boxes: tuple[Box, ...], text: str, look: Look) -> tuple[Box, ...]:
    """The page's boxes, no higher than the code needs, though not so low that they look lost."""
    style, inner = code_style(look, text), boxes[0].inset(CARD_PADDING)
    size = choose_size([Paragraph(text)], inner, style, look) or style.least
    needs = height_of([Paragraph(text)], look.mono, size, inner.width) + 2 * CARD_PADDING
    height = min(max(needs, LEAST_CARD * boxes[0].height), boxes[0].height)
    return tuple(replace(box, height=height) for box in boxes)


def _list_fits(slide: Slide, look: Look) -> Callable[[Sequence[str]], bool]:
    box, style = regions(slide, look)[-1], list_style(look, MAX_POINTS)
    return lambda texts: (
        len(texts) <= MAX_POINTS and choose_size(bullets(texts, gap=0.45), box, style, look) is not None
    )


def _code_fits(slide: Slide, look: Look) -> Callable[[Sequence[str]], bool]:
    box = regions(slide, look)[0].inset(CARD_PADDING)
    style = code_style(look, "\n" * FEW_LINES)
    return lambda lines: choose_size([Paragraph("\n".join(lines))], box, style, look) is not None


def _pack(items: Sequence[Item], fits: Callable[[Sequence[Item]], bool]) -> list[tuple[Item, ...]]:
    """In order, in as few parts as fit, none nearly empty. An item that fits nowhere is alone in its part."""
    parts: list[tuple[Item, ...]] = [()]
    for item in items:
        if parts[-1] and not fits((*parts[-1], item)):
            parts.append(())
        parts[-1] = (*parts[-1], item)
    if len(parts) == 1:
        return parts
    even = -(-len(items) // len(parts))
    evened = [tuple(items[start : start + even]) for start in range(0, len(items), even)]
    return evened if all(map(fits, evened)) else parts


def _numbered(pieces: list[Slide]) -> list[Slide]:
    if len(pieces) == 1:
        return pieces
    headlines = (f"{piece.headline} ({number}/{len(pieces)})" for number, piece in enumerate(pieces, 1))
    numbered = [piece.model_copy(update={"headline": line}) for piece, line in zip(pieces, headlines, strict=True)]
    return [numbered[0], *(piece.model_copy(update={"notes": ""}) for piece in numbered[1:])]


def _with_rest_in_notes(pieces: list[Slide]) -> Slide:
    first, *others = pieces
    rest = [line for piece in others for line in _lines(piece)]
    return add_to_notes(first, rest) if rest else first


def add_to_notes(slide: Slide, lines: Sequence[str]) -> Slide:
    """With the lines that are not in its notes yet."""
    return slide.model_copy(update={"notes": "\n".join(filter(None, [slide.notes, *_new(slide, lines)]))})


def _new(slide: Slide, lines: Sequence[str]) -> list[str]:
    return [line for line in lines if line not in slide.notes]


def _lines(slide: Slide) -> Sequence[str]:
    if slide.layout == "table" and slide.table:
        return [" | ".join(row) for row in slide.table.rows]
    if slide.layout == "code" and slide.code:
        return slide.code.text.split("\n")
    return slide.bullets
