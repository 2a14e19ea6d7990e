"""Lets words through as they come, and holds back what may be a call that a model wrote as text.

A mark that only calls have holds the rest, wherever it stands. A JSON object holds the answer that begins with it,
until its first key shows that it is none.
"""

import re

MAX_HELD_CHARS = 20_000  # longer than the calls that models write as text
_MARKS = ("<tool_call", "<function=", "<function ", "[TOOL_CALLS]", "<|python_tag|>")
_MARK = re.compile("|".join(map(re.escape, _MARKS)))
_MAX_MARK = max(map(len, _MARKS))
_OBJECT = re.compile(r"(?:```(?:\w*\s+|\w*\Z)|`{1,2}\Z)?(?:[\[{]|\Z)")
_FIRST_KEY = re.compile(r'(?:```\w*\s*)?\[?\s*\{\s*"(\w+)"')
_CALL_KEYS = frozenset(
    {"name", "tool", "tool_name", "action", "function", "function_name", "type", "id", "arguments", "args"}
    | {"parameters", "params", "input", "action_input", "tool_input", "tool_calls"}
)
_MAX_BEFORE_KEY = 40


class CallGate:
    """One for a model call."""

    def __init__(self) -> None:
        self.held = ""
        self._begun = False  # words were let through
        self._marked = False

    def feed(self, text: str) -> str:
        """The words that may be shown now."""
        self.held += text
        if len(self.held) > MAX_HELD_CHARS:
            self._marked = False
            return self._let_through(len(self.held))
        if not self._marked:
            if mark := _MARK.search(self.held):
                self._marked = True
                return self._let_through(mark.start())
            if not self._begun and _may_be_call(self.held.lstrip()):
                return ""
            return self._let_through(len(self.held) - _unfinished_mark(self.held))
        return ""

    def _let_through(self, count: int) -> str:
        shown, self.held = self.held[:count], self.held[count:]
        self._begun = self._begun or bool(shown.strip())
        return shown


def _may_be_call(beginning: str) -> bool:
    """Whether an answer that begins like this may be a call in JSON. True of one that has not begun."""
    if not _OBJECT.match(beginning):
        return False
    if key := _FIRST_KEY.match(beginning):
        return key[1] in _CALL_KEYS
    return len(beginning) <= _MAX_BEFORE_KEY


def _unfinished_mark(text: str) -> int:
    """How many characters at the end may be the beginning of a mark."""
    tail = text[-_MAX_MARK:]
    starts = (size for size in range(len(tail), 0, -1) if any(mark.startswith(tail[-size:]) for mark in _MARKS))
    return next(starts, 0)
