"""Shows the thought of a constrained step while it is being written: the text in `{ "thought": "...` as it grows."""

import json
import re

from backend.core.events import ReasoningDelta
from backend.utils.clean_text import clean_text

_BEGIN = re.compile(r'\s*(?:```\w*\s*)?\{\s*"thought"\s*:\s*"')
MAX_BEGIN_CHARS = 60  # a text that has not begun in this way by then is something else
_WHOLE = re.compile(
    r'(?:[^"\\]+|\\[^u]|\\u(?![dD][89abAB])[0-9a-fA-F]{4}'
    r"|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})*"
)


class ThoughtReader:
    """One for a model call. `shown` is the thought as far as it was let through."""

    shows = ReasoningDelta
    has_let_through = False  # nothing of an answer

    def __init__(self) -> None:
        self.shown = self._rest = ""
        self._begun = self._done = False

    def feed(self, text: str) -> str:
        """What may be shown now: characters that are whole, also where an escape is still being written."""
        if self._done:
            return ""
        self._rest += text
        if not self._begun:
            if not (begin := _BEGIN.match(self._rest)):
                self._done = len(self._rest) > MAX_BEGIN_CHARS
                return ""
            self._begun = True
            self._rest = self._rest[begin.end() :]
        whole = _WHOLE.match(self._rest)
        written = whole.group() if whole else ""
        self._rest = self._rest[len(written) :]
        self._done = self._rest.startswith('"')
        try:
            thought = clean_text(json.loads(f'"{written}"', strict=False))
        except ValueError:  # an escape that JSON does not know
            self._done = True
            return ""
        self.shown += thought
        return thought

    def clear(self) -> None:
        """Forget what was read: the call failed, and is made again."""
        self.shown = self._rest = ""
        self._begun = self._done = False
