"""How results look: a value as text, a traceback cut to the user's own lines, figures as pictures.

Runs inside the sandbox, with the user's objects: anything here may raise whatever their methods raise.
"""

import functools
import os
import sys
import traceback
import weakref
from pathlib import Path
from typing import Any

MAX_ROWS, MAX_COLUMNS = 40, 20
MAX_CELL = 200
MAX_FIGURES = 20
MAX_VALUE = 1 << 20
MAX_ERROR = 4000
MAX_CHAIN = 8
_saved: weakref.WeakSet[Any] = weakref.WeakSet()


def render_value(value: object) -> str:
    """Tables as Markdown, everything else as the object describes itself."""
    pandas: Any = sys.modules.get("pandas")
    if pandas is not None and isinstance(value, pandas.Series):
        return _render_table(value.to_frame(), len(value), f"{len(value)} rows")
    if pandas is not None and isinstance(value, pandas.DataFrame):
        return _render_table(value, len(value), f"{len(value)} rows × {len(value.columns)} columns")
    return repr(value)


def _render_table(table: Any, rows: int, size: str) -> str:
    columns = list(table.columns[:MAX_COLUMNS])
    shown = table.iloc[:, :MAX_COLUMNS]
    if cut := rows > MAX_ROWS:
        half = MAX_ROWS // 2
        head, tail = shown.iloc[:half], shown.iloc[-half:]
        lines = [*_table_lines(head), _line(["…"] * (len(columns) + 1)), *_table_lines(tail)]
    else:
        lines = _table_lines(shown)
    title = _line([_cell(name) for name in (" / ".join(map(str, table.index.names)).replace("None", ""), *columns)])
    note = f"\n\n({size})" if cut or len(table.columns) > MAX_COLUMNS else ""
    return "\n".join([title, _line(["---"] * (len(columns) + 1)), *lines]) + note


def _table_lines(table: Any) -> list[str]:
    return [_line([_cell(part) for part in row]) for row in table.itertuples(index=True, name=None)]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: object) -> str:
    if isinstance(value, float):  # NumPy's float64 is one
        text = f"{value:.6f}".rstrip("0").rstrip(".") if 1e-3 <= abs(value) < 1e15 else f"{value:.6g}"
    elif isinstance(value, tuple):
        text = " / ".join(map(str, value))
    else:
        text = str(value)
    text = text if len(text) <= MAX_CELL else text[:MAX_CELL] + "…"
    return text.replace("|", "\\|").replace("\n", " ")


def describe_error(error: BaseException, workspace: str) -> tuple[str, str]:
    """The traceback with the user's own lines alone, and the line that names the error."""
    report = traceback.TracebackException.from_exception(error)
    _keep_own_lines(report, workspace, MAX_CHAIN)
    last = list(report.format_exception_only())
    message = last[-1] if isinstance(error, SyntaxError) else "".join(last)
    return "".join(report.format()), message.strip()[:MAX_ERROR]


def _keep_own_lines(report: traceback.TracebackException | None, workspace: str, depth: int) -> None:
    if report is None:
        return
    own = [frame for frame in report.stack if frame.filename.startswith(("<cell ", workspace))]
    report.stack = traceback.StackSummary.from_list(own)
    if depth == 0:
        report.__cause__ = report.__context__ = None
    _keep_own_lines(report.__cause__, workspace, depth - 1)
    _keep_own_lines(report.__context__, workspace, depth - 1)
    for part in report.exceptions or ():
        _keep_own_lines(part, workspace, depth - 1)


def note_own_saves() -> None:
    """From now on know which figures the user's code has saved under a name of its own."""
    figure: Any = sys.modules.get("matplotlib.figure")
    if figure is None:
        return
    save = figure.Figure.savefig

    @functools.wraps(save)
    def savefig(self: Any, target: Any, *args: Any, **options: Any) -> Any:
        result = save(self, target, *args, **options)
        if isinstance(target, (str, os.PathLike)):
            _saved.add(self)
        return result

    figure.Figure.savefig = savefig


def save_figures(folder: str) -> None:
    """Keep every open figure as a picture, unless the code has done so itself, and close it."""
    pyplot: Any = sys.modules.get("matplotlib.pyplot")
    if pyplot is None:
        return
    number = 0
    for figure in map(pyplot.figure, pyplot.get_fignums()[:MAX_FIGURES]):
        if figure not in _saved:
            number += 1
            while (path := Path(folder, f"figure-{number}.png")).exists():
                number += 1
            figure.savefig(path, bbox_inches="tight")
    pyplot.close("all")
