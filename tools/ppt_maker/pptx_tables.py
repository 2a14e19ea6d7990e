"""Tables as tables: columns as wide as their texts need, numbers to the right, lines instead of boxes."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pptx.enum.text import MSO_ANCHOR
from pptx.oxml import parse_xml
from pptx.oxml.ns import qn
from pptx.util import Pt

from .deck import Table
from .metrics import Paragraph, find_face, height_of, is_right_to_left, steps
from .pptx_look import Box, Look
from .pptx_text import TextStyle, write_text
from .pptx_xml import NAMESPACES, emu, fill

LARGEST, LEAST = 20.0, 11.0
ROOMY_HEIGHT = 46.0  # of a row, where there is room
PADDING_X, PADDING_Y = 9.0, 6.0
_NUMBER = re.compile(r"^[^\w(]*\(?\d[\d.,  ]*\)?\s?\S{0,5}$")
NO_STYLE = "{2D5ABB26-0587-4C30-8999-92F81FD0307C}"


@dataclass(frozen=True, slots=True)
class TableSizes:
    size: float
    widths: tuple[float, ...]
    heights: tuple[float, ...]  # of the header and each row


def measure_table(table: Table, box: Box, look: Look) -> TableSizes:
    """With the largest text that fits the box, or the least."""
    for size in steps(LARGEST, LEAST):
        measured = _measure(table, box, look, size)
        if sum(measured.heights) <= box.height:
            break
    spare = max(0.0, box.height - sum(measured.heights)) / len(measured.heights)
    heights = (max(height, min(height + spare, ROOMY_HEIGHT)) for height in measured.heights)
    return replace(measured, heights=tuple(heights))


def is_too_high(table: Table, box: Box, look: Look) -> bool:
    """Whether it does not fit the box with text that can be read."""
    return sum(_measure(table, box, look, LEAST).heights) > box.height


def add_table(slide: Any, box: Box, table: Table, look: Look, language: str) -> Any:
    """Returns the frame that holds it."""
    measured = measure_table(table, box, look)
    lines = (table.header, *table.rows)
    height = sum(measured.heights)
    frame = slide.shapes.add_table(len(lines), len(table.header), Pt(box.x), Pt(box.y), Pt(box.width), Pt(height))
    drawn = frame.table
    properties = drawn._tbl.tblPr
    properties.find(qn("a:tableStyleId")).text = NO_STYLE
    if is_right_to_left(" ".join(table.header)):
        properties.set("rtl", "1")
    for column, width in zip(drawn.columns, measured.widths, strict=True):
        column.width = Pt(width)
    numeric = [is_numeric([row[index] for row in table.rows]) for index in range(len(table.header))]
    for row_index, (row, cells, height) in enumerate(zip(drawn.rows, lines, measured.heights, strict=True)):
        row.height = Pt(height)
        for index, text in enumerate(cells):
            is_head = row_index == 0
            style = TextStyle(
                measured.size,
                measured.size,
                colour=look.accent if is_head else "tx1",
                bold=is_head or index == 0,
                align="r" if numeric[index] else "l",
            )
            cell = drawn.cell(row_index, index)
            place = Box(0, 0, measured.widths[index] - 2 * PADDING_X, height)
            write_text(cell, [Paragraph(text)], style, look, language, place)
            _style_cell(cell, look, is_head=is_head)
    return frame


def _measure(table: Table, box: Box, look: Look, size: float) -> TableSizes:
    columns = list(zip(table.header, *table.rows, strict=True))
    face, bold = find_face(look.body), find_face(look.body, bold=True)
    wants, needs = [], []
    for index, (head, *cells) in enumerate(columns):
        own = bold if index == 0 else face
        texts = [bold.width(head), *(own.width(cell) for cell in cells)]
        wants.append(min(max(texts) * size, box.width * 0.6) + 2 * PADDING_X)
        words = [bold.width(word) for text in (head, *cells) for word in text.split()]
        needs.append(min(max(words, default=0.0) * size, box.width / len(columns) * 0.8) + 2 * PADDING_X)
    widths = _share(wants, needs, box.width)
    heights = []
    for row_index, row in enumerate((table.header, *table.rows)):
        cells = [
            height_of([Paragraph(text)], look.body, size, width - 2 * PADDING_X, bold=row_index == 0 or index == 0)
            for index, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        heights.append(max(cells) + 2 * PADDING_Y)
    return TableSizes(size, widths, tuple(heights))


def _share(wants: Sequence[float], needs: Sequence[float], room: float) -> tuple[float, ...]:
    """Each what it wants, if there is room; otherwise what its longest word needs, and of the rest by its wants."""
    if sum(wants) <= room:
        spare = room - sum(wants)
        return tuple(want + spare * want / sum(wants) for want in wants)
    rest = max(0.0, room - sum(needs))
    extra = [max(0.0, want - need) for want, need in zip(wants, needs, strict=True)]
    widths = [need + rest * more / (sum(extra) or 1) for need, more in zip(needs, extra, strict=True)]
    return tuple(width * room / sum(widths) for width in widths)


def is_numeric(cells: Sequence[str]) -> bool:
    """Whether a column is of numbers, with their units and signs."""
    numbers = sum(bool(_NUMBER.match(cell)) for cell in cells)
    return numbers * 3 >= len(cells) * 2 and numbers > 0


def _style_cell(cell: Any, look: Look, *, is_head: bool) -> None:
    cell.vertical_anchor = MSO_ANCHOR.BOTTOM if is_head else MSO_ANCHOR.MIDDLE
    cell.margin_left = cell.margin_right = Pt(PADDING_X)
    cell.margin_top = cell.margin_bottom = Pt(PADDING_Y)
    properties = cell._tc.get_or_add_tcPr()
    width, colour, alpha = (1.75, look.accent, 100) if is_head else (1.0, look.line, 100)
    line = parse_xml(f'<a:lnB {NAMESPACES} w="{emu(width)}" cap="flat">{fill(colour, alpha=alpha)}</a:lnB>')
    properties.insert(0, line)
