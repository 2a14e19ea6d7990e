"""What keeps a run from going on for ever: budgets, and an eye for repetition.

Limits are ordinary control flow: `Watch.find_end` names the reason to stop, and the agent then sums up what it knows.
"""

import asyncio
from dataclasses import dataclass, field

from backend.core.events import Usage

SUMMING_UP = 0.2  # the share of the time that is kept for the last answer
MAX_SAME_CALLS = 2  # a third one is not made
MAX_MALFORMED = 3  # turns in a row without a call or an answer
MAX_STALLED = 3  # turns in a row that brought nothing new
MAX_FAILED = 5  # turns in a row in which every call failed

_REPEATED_CHARS = 600  # a text whose end is this long and made of one piece over and over is going in circles
_LONGEST_PIECE = 150


@dataclass(frozen=True, slots=True)
class Limits:
    """Of every run; see the settings of the same names."""

    max_iterations: int
    retry_on_error: bool
    max_seconds: float
    max_tokens: int
    plan_max_steps: int
    plan_max_retries: int


class Budget:
    """Time and tokens of one question, shared by all that works on it."""

    def __init__(self, limits: Limits) -> None:
        now = asyncio.get_running_loop().time()
        self.until = now + limits.max_seconds  # by then the last word is said
        self.work_until = now + limits.max_seconds * (1 - SUMMING_UP)  # until then new steps are begun
        self.usage = Usage()
        self._limits = limits

    def spend(self, usage: Usage) -> None:
        self.usage += usage

    def find_end(self) -> str:
        """Why no further step may begin; empty while there is enough left."""
        if asyncio.get_running_loop().time() >= self.work_until:
            return f"The time for one question ({self._limits.max_seconds:g} s) is nearly over."
        if self.usage.prompt_tokens + self.usage.completion_tokens >= self._limits.max_tokens:
            return f"The budget of {self._limits.max_tokens} tokens for one question is used up."
        return ""


@dataclass(slots=True)
class Watch:
    """Counts what one run does, turn by turn."""

    limits: Limits
    budget: Budget
    turns: int = 0
    malformed: int = 0
    stalled: int = 0
    failed: int = 0
    _calls: dict[tuple[str, str], int] = field(default_factory=dict)
    _seen: set[int] = field(default_factory=set)

    def begin_turn(self) -> str:
        """Why no further turn may begin, in a sentence; empty when one may."""
        if end := self._find_end():
            return end
        self.turns += 1
        return ""

    def is_repeated(self, tool: str, arguments: str) -> bool:
        """Count a call; whether it was made often enough."""
        made = self._calls[tool, arguments] = self._calls.get((tool, arguments), 0) + 1
        return made > MAX_SAME_CALLS

    def note_results(self, results: list[tuple[bool, str]]) -> None:
        """The calls that were made in a turn: whether each succeeded, and what it brought."""
        self.malformed = 0
        new = {hash(text) for _, text in results} - self._seen
        self._seen |= new
        self.stalled = 0 if new else self.stalled + 1
        if results:
            self.failed = 0 if any(success for success, _ in results) else self.failed + 1

    def _find_end(self) -> str:
        if end := self.budget.find_end():
            return end
        if self.turns >= self.limits.max_iterations:
            return f"The limit of {self.limits.max_iterations} steps is reached."
        if self.malformed >= MAX_MALFORMED:
            return f"{self.malformed} replies in a row were neither a call that can be made nor an answer."
        if self.stalled >= MAX_STALLED:
            return "The last steps brought nothing new."
        if self.failed >= (MAX_FAILED if self.limits.retry_on_error else 1):
            return "The calls keep failing." if self.limits.retry_on_error else "A call failed."
        return ""


def goes_in_circles(text: str) -> bool:
    """Whether the end of a text is one piece over and over again."""
    tail = text[-_REPEATED_CHARS:]
    if len(tail) < _REPEATED_CHARS or not tail.strip():
        return len(tail) == _REPEATED_CHARS
    # The last piece occurs right before itself: that gives the period, which then must hold all the way.
    end = tail[-8:]
    before = tail.rfind(end, 0, len(tail) - 1)
    period = len(tail) - 8 - before
    return before >= 0 and period <= _LONGEST_PIECE and tail[period:] == tail[:-period]
