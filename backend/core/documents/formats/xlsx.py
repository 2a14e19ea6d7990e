"""XLSX, sheet by sheet and row by row: the values that were last computed, not the formulas."""

import datetime
import itertools
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from backend.core.documents.document import Block, DocumentInfo, DocumentPart, PageRead, Problem
from backend.core.documents.formats.office import open_archive
from backend.core.documents.formats.source import Source
from backend.core.documents.formats.tables import Row, describe_table, row_blocks, take_header

# openpyxl loads these where it finds them, for what is not needed here: they would cost half a second, and memory.
sys.modules.setdefault("numpy", None)  # type: ignore[arg-type]
sys.modules.setdefault("PIL", None)  # type: ignore[arg-type]
os.environ["OPENPYXL_LXML"] = "False"

import openpyxl  # noqa: E402

MAX_COLUMNS = 1_000
MAX_EMPTY_ROWS = 1_000  # in a row: then a sheet is over
MAX_DESCRIBED_SHEETS = 5
SAMPLE_ROWS = 100


def read(source: Source) -> Iterator[DocumentPart]:
    with open_archive(source), closing(_open(source)) as workbook:
        sheets = workbook.worksheets
        title = workbook.properties.title
        yield DocumentInfo(title or source.name, workbook.properties.creator, len(sheets))
        for number, sheet in enumerate(sheets[source.first_page - 1 :], source.first_page):
            yield Block("heading", sheet.title, number, 1)
            try:
                yield from row_blocks(_rows(sheet), number)
            except (KeyError, SyntaxError, ValueError):
                yield Problem("The rest of the sheet cannot be read: it is broken.", number)
            yield PageRead(number, len(sheets))


def describe(source: Source) -> Iterator[str]:
    with open_archive(source), closing(_open(source)) as workbook:
        sheets = workbook.worksheets
        yield f"An Excel workbook of {len(sheets):,} sheets."
        for sheet in sheets[:MAX_DESCRIBED_SHEETS]:
            header, below = take_header(_rows(sheet))
            sample = list(itertools.islice(below, SAMPLE_ROWS))
            count = len(sample)
            at_least = ""
            for row in below:
                count += any(row)
                if source.is_late:
                    at_least = "at least "
                    break
            yield f"Sheet {sheet.title!r}: {at_least}{count:,} rows below the header."
            if header:
                yield from describe_table(header, sample)
        if len(sheets) > MAX_DESCRIBED_SHEETS:
            yield f"More sheets: {', '.join(sheet.title for sheet in sheets[MAX_DESCRIBED_SHEETS:][:20])}"


def _open(source: Source) -> Any:
    warnings.simplefilter("ignore")
    return openpyxl.load_workbook(source.path, read_only=True, data_only=True, keep_links=False)


def _rows(sheet: Any) -> Iterator[Row]:
    sheet.reset_dimensions()  # what a sheet says of its size is not believed
    empty = 0
    for row in sheet.iter_rows(values_only=True, max_col=MAX_COLUMNS):
        cells = [_text_of(value) for value in row]
        while cells and not cells[-1]:
            cells.pop()
        empty = 0 if cells else empty + 1
        if empty > MAX_EMPTY_ROWS:
            return
        if cells:
            yield cells


def _text_of(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case float():
            return f"{value:.15g}"
        case datetime.datetime() if value.time() == datetime.time():
            return value.date().isoformat()
        case datetime.datetime():
            return value.isoformat(" ")
        case _:
            return str(value).strip()
