"""CSV and its relatives, read row by row, so that their size does not matter."""

import csv
import itertools
from collections.abc import Iterator

from backend.core.documents.document import DocumentInfo, DocumentPart
from backend.core.documents.formats.source import Source
from backend.core.documents.formats.tables import Row, describe_table, row_blocks, take_header
from backend.core.documents.formats.text import count_lines

DELIMITERS = ",;\t|"
MAX_FIELD = 2**20
SNIFFED = 2**14
SAMPLE_ROWS = 100
EXACT_BYTES = 2**23  # rows of larger files are told by their lines: a quoted value may hold several


def read(source: Source) -> Iterator[DocumentPart]:
    yield DocumentInfo(source.name)
    yield from row_blocks(_rows(source))


def describe(source: Source) -> Iterator[str]:
    header, below = take_header(_rows(source))
    sample = list(itertools.islice(below, SAMPLE_ROWS))
    if source.size <= EXACT_BYTES:
        count = len(sample)
        for _ in below:
            count += 1
            if source.is_late:
                yield f"A table of at least {count:,} rows."
                break
        else:
            yield f"A table of {count:,} rows."
    else:
        yield f"A table of {count_lines(source)} lines."
    yield from describe_table(header, sample)


def _rows(source: Source) -> Iterator[Row]:
    csv.field_size_limit(MAX_FIELD)
    with source.open_text(newline="") as file:
        dialect = _find_dialect(file.read(SNIFFED), source.suffix)
        file.seek(0)
        for row in csv.reader(file, dialect):
            yield [cell.strip() for cell in row]


def _find_dialect(sample: str, suffix: str) -> type[csv.Dialect]:
    lines = sample.splitlines()[:20]
    counts = {delimiter: sorted(line.count(delimiter) for line in lines if line) for delimiter in DELIMITERS}
    if suffix == ".tsv":
        best = "\t"
    else:
        # The one that most lines have about as often; the comma where none is found.
        best = max(DELIMITERS, key=lambda one: counts[one][len(counts[one]) // 2] if counts[one] else 0)

    class Found(csv.excel):
        delimiter = best

    return Found
