"""Rows of cells, from whatever format: their header, their types, and rows as text that can be understood alone."""

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence

from backend.core.documents.document import Block

Row = Sequence[str]

SMALL_TABLE = 2_000  # characters: a table up to this size stays in one piece
MAX_NAMED = 40  # columns in a description
SAMPLE_ROWS = 5
MAX_CELL = 80  # characters of a cell in a description

_NUMBER = re.compile(r"[-+]?(?:\d[\d ,._]*|\.\d+)(?:[eE][-+]?\d+)?\s?%?")
_INTEGER = re.compile(r"[-+]?\d{1,18}")
_DATE = re.compile(r"\d{4}-\d{1,2}-\d{1,2}(?:[T ]\d{1,2}:\d{2}.*)?|\d{1,2}[./]\d{1,2}[./]\d{2,4}")
_TRUTH = frozenset({"true", "false", "yes", "no"})


def take_header(rows: Iterable[Row]) -> tuple[Row, Iterator[Row]]:
    """The names of the columns, and the rows below them. Columns without names are counted."""
    remaining = iter(rows)
    first = next((row for row in remaining if any(row)), None)
    if first is None:
        return (), iter(())
    second = next((row for row in remaining if any(row)), None)
    below = itertools.chain(() if second is None else (second,), remaining)
    if _looks_like_header(first, second):
        return [cell or f"column {number}" for number, cell in enumerate(first, 1)], below
    return [f"column {number}" for number in range(1, len(first) + 1)], itertools.chain((first,), below)


def _looks_like_header(first: Row, second: Row | None) -> bool:
    named = [cell for cell in first if cell]
    return (
        second is not None
        and len(named) * 2 > len(first)
        and len(set(named)) == len(named)
        and not any(_type_of(cell) in {"integer", "number", "date"} for cell in named)
    )


def row_text(header: Row, row: Row) -> str:
    """`name: value` pairs of the cells that hold something."""
    names = itertools.chain(header, (f"column {number}" for number in itertools.count(len(header) + 1)))
    return "; ".join(f"{name}: {cell}" for name, cell in zip(names, row, strict=False) if cell)


def row_blocks(rows: Iterable[Row], page: int | None = None) -> Iterator[Block]:
    """Every row as a block of its own."""
    header, below = take_header(rows)
    empty = True
    for row in below:
        if text := row_text(header, row):
            empty = False
            yield Block("row", text, page)
    if empty and header:
        yield Block("table", " | ".join(header), page)


def table_blocks(rows: Sequence[Row], page: int | None = None) -> Iterator[Block]:
    """A table in one piece where it is small, else row by row."""
    lines = [" | ".join(" ".join(cell.split()) for cell in row) for row in rows if any(row)]
    if sum(map(len, lines)) > SMALL_TABLE:
        yield from row_blocks(rows, page)
    elif lines:
        yield Block("table", "\n".join(lines), page)


def describe_table(header: Row, sample: Sequence[Row]) -> Iterator[str]:
    """The columns with their types, and some rows."""
    columns = [
        f"{_short(name)} ({_type_of_column([row[number] for row in sample if number < len(row)])})"
        for number, name in enumerate(header[:MAX_NAMED])
    ]
    more = f", and {len(header) - MAX_NAMED:,} more" if len(header) > MAX_NAMED else ""
    yield f"{len(header):,} columns: {', '.join(columns)}{more}"
    yield "First rows:"
    yield " | ".join(_short(name) for name in header[:MAX_NAMED])
    for row in sample[:SAMPLE_ROWS]:
        yield " | ".join(_short(cell) for cell in row[:MAX_NAMED])


def _short(cell: str) -> str:
    text = " ".join(cell.split())
    return text if len(text) <= MAX_CELL else text[: MAX_CELL - 1] + "…"


def _type_of_column(cells: Iterable[str]) -> str:
    types = {_type_of(cell) for cell in cells if cell}
    if len(types) == 1:
        return types.pop()
    if types == {"integer", "number"}:
        return "number"
    return "mixed" if types else "empty"


def _type_of(cell: str) -> str:
    cell = cell.strip()
    if _INTEGER.fullmatch(cell):
        return "integer"
    if _DATE.fullmatch(cell):
        return "date"
    if len(cell) < 40 and _NUMBER.fullmatch(cell):
        return "number"
    return "true or false" if cell.lower() in _TRUTH else "text"
