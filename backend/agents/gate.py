"""Lets an answer through while it is being said, and holds back what may turn out to be none.

A text streams at once unless it begins like a promise ("Let me search ...") or like a call written as text; from the
first sign of a call on, the rest is held until the end of the step. Held text that grows beyond what promises and
calls are is let go.
"""

import re

from backend.core.events import TextDelta
from backend.core.llm.text_calls import may_become_promise

MAX_HELD_CHARS = 6_000
_SIGN = re.compile(
    r"(?:^|\n)[ \t]*(?:```(?:json|tool\w*)?[ \t]*\n?\s*[{\[]|[\[{]\s*[{\"]|\**(?:Action|Thought|Final Answer)\**\s*:)"
    r"|<tool_call|<function|<think|\[TOOL_CALLS\]|<\|",
    re.IGNORECASE,
)
_SIGN_CHARS = 20  # a sign that has only begun: text from the last line break or bracket on, when it is this near
_MAY_BEGIN = re.compile(r"(?:^|\n)[ \t]*(?:`{1,3}\w{0,9}\s*|[{\[]\s*|\**\w{0,7}(?: \w{0,6})?)$|[<\[][\w|]{0,10}$")


class Gate:
    """One for a model call.

    Args:
        watchful: whether calls and promises are to be looked for at all.
    """

    shows = TextDelta

    def __init__(self, *, watchful: bool) -> None:
        self._watchful = watchful
        self._held = ""
        self._begun = False  # something that is not blank was let through
        self._sign_at: int | None = None  # of a call, in what is held

    @property
    def held(self) -> str:
        return self._held

    @property
    def has_let_through(self) -> bool:
        return self._begun

    def clear(self) -> None:
        """Forget what is held: the call failed, and is made again."""
        self._held, self._sign_at = "", None

    def feed(self, text: str) -> str:
        """What may be shown now."""
        self._held += text
        if not self._begun:
            self._held = self._held.lstrip()
            if not self._held:
                return ""
        if not self._watchful or len(self._held) > MAX_HELD_CHARS:
            return self._let_go(len(self._held))
        if self._sign_at is None and (sign := _SIGN.search(self._held)):
            self._sign_at = sign.start()
        if self._sign_at is not None:
            # What stands before a call may be a promise, which is then a thought.
            waits = not self._begun and may_become_promise(self._held[: self._sign_at])
            return "" if waits else self._let_go(self._sign_at)
        if not self._begun and may_become_promise(self._held):
            return ""
        begins = _MAY_BEGIN.search(self._held[-_SIGN_CHARS:])
        return self._let_go(len(self._held) - (len(begins.group()) if begins else 0))

    def open(self) -> str:
        """The rest, at the end of a step that was an answer."""
        return self._let_go(len(self._held))

    def _let_go(self, count: int) -> str:
        shown, self._held = self._held[:count], self._held[count:]
        self._begun = self._begun or bool(shown.strip())
        if self._sign_at is not None:
            self._sign_at = max(0, self._sign_at - count) if self._held else None
        return shown
