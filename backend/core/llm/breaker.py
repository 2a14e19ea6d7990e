"""When to leave a backend alone, and how its failures are called.

    closed --- unreachable, or MAX_FAILURES failures in a row ---> open
    open   --- retry_s later, one call is let through -----------> half open
    half open --- it gets an answer ---> closed; it fails ---> open

A successful probe ends an outage at once. It does not end a series of failed calls: a backend whose list of models is
fine while its answers are not is let back in by one trial call at a time, never by the whole crowd.
"""

import errno
import time
from collections.abc import Callable
from typing import Literal

from aiohttp import ConnectionTimeoutError

BreakerState = Literal["closed", "open", "half_open"]
Reason = Literal["refused", "timeout", "unreachable", "failed"]

MAX_FAILURES = 2


class CircuitBreaker:
    """Remembers how the calls to one backend ended. Of one event loop; never waits.

    Args:
        retry_s: how long an open breaker lets nothing through.
        clock: seconds that never go backwards.
    """

    def __init__(self, retry_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._retry_s = retry_s
        self._clock = clock
        self._failures = 0
        self._unreachable = False
        self._opened_at: float | None = None
        self._trial: object | None = None

    @property
    def state(self) -> BreakerState:
        if self._opened_at is None:
            return "closed"
        return "open" if self._trial is None else "half_open"

    def admit(self, call: object) -> bool:
        """Whether this call may go to the backend. The one that is let through as a trial must be released."""
        if self._opened_at is None:
            return True
        if self._trial is not None or self._clock() - self._opened_at < self._retry_s:
            return False
        self._trial = call
        return True

    def release(self, call: object) -> None:
        """Make room for another trial if this call was one and ended without a verdict: its client went away."""
        if self._trial is call:
            self._trial = None

    def succeed(self) -> None:
        """A call got an answer."""
        self._failures = 0
        self._unreachable = False
        self._opened_at = self._trial = None

    def fail(self, *, unreachable: bool) -> None:
        """A call got none."""
        self._failures += 1
        self._trial = None
        if unreachable or self._failures >= MAX_FAILURES:
            self._opened_at = self._clock()
            self._unreachable = unreachable

    def note_reachable(self) -> None:
        """A probe got an answer."""
        if self._unreachable:
            self.succeed()


def reason_of(error: BaseException) -> Reason:
    """What went wrong in a word or two that are safe to show: no address, nothing a backend said."""
    cause = error if isinstance(error, OSError) else error.__cause__
    if isinstance(cause, ConnectionTimeoutError):
        return "unreachable"
    if isinstance(cause, TimeoutError):  # before OSError, which it is as well
        return "timeout"
    if isinstance(cause, OSError):
        return "refused" if cause.errno == errno.ECONNREFUSED else "unreachable"
    return "failed"


def is_unreachable(reason: Reason) -> bool:
    """Whether the connection itself failed: the next call would fare no better."""
    return reason in {"refused", "unreachable"}
