"""Data of the session's files as tables, and charts made of their columns. Every number comes from the file."""

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from .deck import MAX_CATEGORIES, Chart, ChartKind, Series, Table

MAX_ROWS = 20_000
MAX_COLUMNS = 40
MAX_DRAWN = 24  # categories of a chart; more cannot be read
MAX_SLICES = 6
MAX_SERIES = 4
SHOWN_ROWS = 8


@dataclass(frozen=True, slots=True)
class DataTable:
    name: str  # of the file
    columns: dict[str, tuple[str, ...]]  # cells as text, by the head of their column

    @property
    def rows(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    @property
    def numeric(self) -> list[str]:
        """The columns of numbers."""
        return [name for name, cells in self.columns.items() if _is_numeric(cells)]

    @property
    def labels(self) -> list[str]:
        """The columns that can name what the numbers are of: texts, years, and where there are none, the first."""
        numeric = set(self.numeric)
        years = [name for name in numeric if _are_years(self.columns[name])]
        return [n for n in self.columns if n not in numeric or n in years] or list(self.columns)[:1]

    @property
    def values(self) -> list[str]:
        """The columns whose numbers are worth a chart."""
        return [name for name in self.numeric if name not in self.labels] or self.numeric

    def describe(self) -> str:
        """What a model needs to know of it: columns, sizes and some rows."""
        heads = ", ".join(f"{name} ({'numbers' if name in self.numeric else 'text'})" for name in self.columns)
        sample = [", ".join(cells) for cells in list(zip(*self.columns.values(), strict=True))[:SHOWN_ROWS]]
        totals = [
            f"{name}: sum {_sum(cells):g}, mean {_sum(cells) / max(1, len(_numbers(cells))):.4g}, "
            f"least {min(_numbers(cells)):g}, most {max(_numbers(cells)):g}"
            for name, cells in self.columns.items()
            if name in self.values and _numbers(cells)
        ]
        return "\n".join([f"Columns: {heads}", f"{self.rows} rows, the first of them:", *sample, *totals])


@dataclass(frozen=True, slots=True)
class ChartChoice:
    """Which columns of a table a chart is to show, and how."""

    kind: ChartKind
    label: str
    values: tuple[str, ...]


def read_table(name: str, content: str) -> DataTable | None:
    """A CSV or TSV, or JSON that is a list of objects or an object of lists. None: it is not a table."""
    rows = _read_json(content) if name.lower().endswith(".json") else _read_csv(content)
    if len(rows) < 2 or not rows[0]:
        return None
    heads = [head.strip() or f"column {number}" for number, head in enumerate(rows[0][:MAX_COLUMNS], 1)]
    heads = [head if head not in heads[:at] else f"{head} {at + 1}" for at, head in enumerate(heads)]
    padded = [[*row, *[""] * len(heads)][: len(heads)] for row in rows[1 : MAX_ROWS + 1] if any(row)]
    return DataTable(name, {head: tuple(row[at].strip() for row in padded) for at, head in enumerate(heads)})


def choose_chart(table: DataTable, number: int = 0) -> ChartChoice | None:
    """A chart that suits the table, without asking anybody; another one for each number. None: nothing is countable."""
    if not table.values:
        return None
    label = table.labels[(number // max(1, len(table.values))) % len(table.labels)]
    count = len(set(table.columns[label]))
    if number == 0 and len(table.values) in {2, 3} and _are_alike(table):
        return ChartChoice("line" if _are_years(table.columns[label]) else "column", label, tuple(table.values))
    value = table.values[number % len(table.values)]
    if _are_years(table.columns[label]) or count > MAX_SLICES * 2:
        kind: ChartKind = "line"
    elif number and count <= MAX_SLICES and min(_numbers(table.columns[value]), default=0) >= 0:
        kind = "doughnut"
    else:
        kind = "bar" if max(map(len, table.columns[label]), default=0) > 14 else "column"
    return ChartChoice(kind, label, (value,))


def make_chart(table: DataTable, choice: ChartChoice) -> Chart | None:
    """The chart with its data; values of one label are added up. None: the columns hold nothing that can be drawn."""
    values = [name for name in choice.values if name in table.numeric][:MAX_SERIES]
    if choice.label not in table.columns or not values:
        return None
    sums: dict[str, list[float | None]] = {}
    for at, label in enumerate(table.columns[choice.label]):
        if not label:
            continue
        totals = sums.setdefault(label, [None] * len(values))
        for index, name in enumerate(values):
            if (number := read_number(table.columns[name][at])) is not None:
                totals[index] = (totals[index] or 0.0) + number
    kind = choice.kind
    if kind == "scatter" and not all(read_number(label) is not None for label in sums):
        kind = "column"
    if kind in {"pie", "doughnut"} and (len(values) > 1 or any((v[0] or 0) < 0 for v in sums.values())):
        kind = "column"
    items = _fewer(list(sums.items()), kind)
    if not items:
        return None
    return Chart(
        kind=kind,
        categories=tuple(label for label, _ in items),
        series=tuple(
            Series(name=name, values=tuple(_rounded(totals[index]) for _, totals in items))
            for index, name in enumerate(values)
        ),
        x_title=choice.label if kind in {"line", "area", "scatter"} else "",
        y_title=values[0] if len(values) == 1 else "",
    )


def make_table(table: DataTable, rows: int = 10, columns: int = 6) -> Table:
    """The head of the table, as a table of a page."""
    heads = tuple(table.columns)[:columns]
    cells = [table.columns[head][:rows] for head in heads]
    return Table(header=heads, rows=tuple(zip(*cells, strict=True)))


def read_number(text: str) -> float | None:
    """A number as people write it: with a sign, a unit, separators of thousands, and a point or a comma."""
    plain = text.strip().strip("%€$£¥ ").replace("\u00a0", "").replace(" ", "").replace("'", "").replace("−", "-")
    if "," in plain and "." in plain:
        decimal = max(plain.rfind(","), plain.rfind("."))
        plain = plain[:decimal].replace(",", "").replace(".", "") + "." + plain[decimal + 1 :]
    elif "," in plain:
        tail = plain.rsplit(",", 1)[1]
        plain = plain.replace(",", "") if len(tail) == 3 or plain.count(",") > 1 else plain.replace(",", ".")
    try:
        number = float(plain)
    except ValueError:
        return None
    return number if math.isfinite(number) and abs(number) < 1e15 else None


def _fewer(items: list[tuple[str, list[float | None]]], kind: ChartKind) -> list[tuple[str, list[float | None]]]:
    """As many as can be read: of a line every n-th, of the others the largest, and of slices the rest as one."""
    if kind in {"line", "area", "scatter"}:
        step = -(-len(items) // MAX_CATEGORIES)
        return items[::step]
    most = MAX_SLICES if kind in {"pie", "doughnut"} else MAX_DRAWN if kind == "column" else MAX_DRAWN // 2
    if len(items) <= most:
        return items
    largest = sorted(items, key=lambda item: -(item[1][0] or 0.0))
    if kind in {"pie", "doughnut"}:
        rest = sum(totals[0] or 0.0 for _, totals in largest[most - 1 :])
        return [*largest[: most - 1], ("…", [rest])]
    return largest[:most]


def _rounded(number: float | None) -> float | None:
    return None if number is None else float(f"{number:.10g}")


def _read_csv(content: str) -> list[list[str]]:
    sample = content[:4096]
    try:
        dialect: type[csv.Dialect] | csv.Dialect = csv.Sniffer().sniff(sample, delimiters=",;\t|")
    except csv.Error:
        dialect = csv.excel
    rows = []
    try:
        for row in csv.reader(io.StringIO(content), dialect):
            rows.append(row)
            if len(rows) > MAX_ROWS:
                break
    except csv.Error:
        return []
    return [row for row in rows if any(cell.strip() for cell in row)]


def _read_json(content: str) -> list[list[str]]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return []
    if isinstance(value, dict):
        lists = {str(head): cells for head, cells in value.items() if _is_column(cells)}
        if lists and len({len(cells) for cells in lists.values()}) == 1:
            return [list(lists), *(list(map(_cell, row)) for row in zip(*lists.values(), strict=True))]
        if value and all(isinstance(number, int | float) for number in value.values()):
            return [["name", "value"], *([str(name), _cell(number)] for name, number in value.items())]
        value = next((part for part in value.values() if isinstance(part, list)), [])
    if not isinstance(value, list) or not value or not all(isinstance(row, dict) for row in value):
        return []
    heads = list(dict.fromkeys(str(head) for row in value[:MAX_ROWS] for head in row))[:MAX_COLUMNS]
    return [heads, *([_cell(row.get(head)) for head in heads] for row in value[:MAX_ROWS])]


def _is_column(value: object) -> bool:
    return isinstance(value, list) and not any(isinstance(cell, dict | list) for cell in value)


def _cell(value: object) -> str:
    return "" if value is None else str(value)


def _numbers(cells: Sequence[str]) -> list[float]:
    return [number for cell in cells if (number := read_number(cell)) is not None]


def _sum(cells: Sequence[str]) -> float:
    return math.fsum(_numbers(cells))


def _is_numeric(cells: Sequence[str]) -> bool:
    filled = [cell for cell in cells if cell]
    return bool(filled) and len(_numbers(filled)) * 10 >= len(filled) * 9


def _are_years(cells: Sequence[str]) -> bool:
    """Years, months or days, in order: a line goes through them."""
    return bool(cells) and all(len(c) >= 4 and c[:4].isdigit() and 1000 <= int(c[:4]) <= 2999 for c in cells if c)


def _are_alike(table: DataTable) -> bool:
    """Whether the numbers of all columns are of one size, so that one axis suits them."""
    largest = [max(map(abs, _numbers(table.columns[name])), default=0.0) for name in table.values]
    return min(largest) > 0 and max(largest) / min(largest) < 10
