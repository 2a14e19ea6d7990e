"""The user's side of an interpreter: names that live from call to call, and one piece of code run among them.

As in a notebook: the last expression is the value, `await` works at the top level, `sys.exit` ends the call and not the
interpreter, open figures are saved. The code runs as `__main__`, so that its classes can be pickled.
"""

import ast
import linecache
import signal
import sys
import types
from dataclasses import dataclass
from typing import Any

from . import display

MAX_CELLS = 200  # whose source is kept for tracebacks
_FLAGS = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


@dataclass(frozen=True, slots=True)
class Outcome:
    exit_code: int
    value: str = ""
    error: str = ""


class Notebook:
    def __init__(self, workspace: str) -> None:
        self.workspace = workspace
        module = types.ModuleType("__main__")
        sys.modules["__main__"] = module
        self.names: dict[str, Any] = module.__dict__
        self.cells: list[str] = []
        self.runner: Any = None  # made by the first code that awaits

    def run(self, source: str, number: int) -> Outcome:
        """Run one piece of code. Raises nothing, whatever the code does, short of ending the process."""
        try:
            try:
                signal.signal(signal.SIGINT, signal.default_int_handler)
                value = self._execute(source, self._remember(source, number))
                text = "" if value is None else display.render_value(value)[: display.MAX_VALUE]
                display.save_figures(self.workspace)
                return Outcome(0, text)
            finally:
                signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt that comes late must not hit the machinery
        except SystemExit as error:
            return self._leave(error)
        except BaseException as error:
            return self._explain(error)

    def _execute(self, source: str, name: str) -> object:
        tree = ast.parse(source, name)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        self._evaluate(compile(tree, name, "exec", _FLAGS, dont_inherit=True))
        if not isinstance(last, ast.Expr):
            return None
        value = self._evaluate(compile(ast.Expression(last.value), name, "eval", _FLAGS, dont_inherit=True))
        return None if source.rstrip().endswith(";") else value

    def _evaluate(self, code: types.CodeType) -> object:
        result = eval(code, self.names)  # noqa: S307 (running the user's code is what this process is for)
        if not code.co_flags & 0x80:  # CO_COROUTINE: the code awaits
            return result
        if self.runner is None:
            import asyncio

            self.runner = asyncio.Runner()
        return self.runner.run(result)

    def _remember(self, source: str, number: int) -> str:
        name = f"<cell {number}>"
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        self.cells.append(name)
        if len(self.cells) > MAX_CELLS:
            linecache.cache.pop(self.cells.pop(0), None)
        return name

    def _leave(self, error: SystemExit) -> Outcome:
        if error.code is None or error.code == 0:
            display.save_figures(self.workspace)
            return Outcome(0)
        code = error.code if isinstance(error.code, int) else 1
        return Outcome(code & 0xFF or 1, error=f"SystemExit: {error.code}")

    def _explain(self, error: BaseException) -> Outcome:
        try:
            report, message = display.describe_error(error, self.workspace)
            sys.stderr.write(report)
            if not isinstance(error, KeyboardInterrupt):  # it has no time left
                display.save_figures(self.workspace)
        except BaseException as second:
            message = f"{type(error).__name__} (and describing it failed: {type(second).__name__})"
        return Outcome(1, error=message)
