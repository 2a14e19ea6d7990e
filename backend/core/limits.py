"""How much a caller may ask for: requests a minute, tokens a day (UTC), and requests at once.

Each bound holds for a user over all tokens and keys, and once more for a key that has bounds of its own; where an admin
has set nothing for a user, the settings hold. A request counts when it is let in, whatever becomes of it; one that is
refused does not, so that trying again makes nothing worse. One question is one request, however many models an agent
asks for it, and all their tokens count. Tokens are known only afterwards: what is running when the last of them is
spent is answered to its end.

Where no bound is set, nothing is counted here. Otherwise a minute is a sliding window (`limits`) in this process's
memory. Several processes over one database each count requests on their own; tokens they count together, a few seconds
apart (`UsageLedger`).
"""

import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from backend.core.errors import QuotaExceeded, TooManyRequests
from backend.core.identity import Principal
from backend.core.storage.allowances import UNSET, Allowance
from backend.core.storage.usage import Subject
from backend.core.usage import UsageLedger
from config import Settings

DAY_S = 86_400
BUSY_RETRY_S = 1.0


@dataclass(slots=True)
class Standing:
    """How a caller stands with the tightest of the bounds, as `x-ratelimit-*` headers. Empty where there is none."""

    headers: dict[str, str] = field(default_factory=dict)
    _remaining: dict[str, int] = field(default_factory=dict)

    def note(self, what: str, limit: int, remaining: int, reset_s: float) -> None:
        remaining = max(0, remaining)
        if remaining < self._remaining.get(what, limit + 1):
            self._remaining[what] = remaining
            self.headers |= {
                f"x-ratelimit-limit-{what}": str(limit),
                f"x-ratelimit-remaining-{what}": str(remaining),
                f"x-ratelimit-reset-{what}": format_duration(reset_s),
            }


def default_allowance(settings: Settings) -> Allowance:
    """What a user may use for whom no admin has set anything."""
    return Allowance(settings.USER_REQUESTS_PER_MINUTE, settings.USER_TOKENS_PER_DAY, settings.USER_CONCURRENT_REQUESTS)


class Bound(NamedTuple):
    subject: Subject
    allowance: Allowance


class RateLimits:
    """Lets requests in, or not. One for the life of the process.

    Args:
        default: of a user for whom no admin has set anything.
    """

    def __init__(self, ledger: UsageLedger, default: Allowance) -> None:
        self._ledger = ledger
        self._default = default
        self._bounds_everybody = default.is_bounded
        self._windows = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._running: Counter[Subject] = Counter()

    def allowance(self, own: Allowance) -> Allowance:
        """What holds for a user, with the defaults where an admin has set nothing."""
        values = {name: getattr(own, name) for name in Allowance.__slots__}
        filled = {name: getattr(self._default, name) if value is None else value for name, value in values.items()}
        return Allowance(**filled)

    def bounds(self, caller: Principal) -> list[Bound]:
        """What bounds this caller; mostly nothing."""
        bounds = []
        if self._bounds_everybody or caller.allowance is not UNSET:
            user = self.allowance(caller.allowance)
            if user.is_bounded:
                bounds.append(Bound(Subject("user", caller.username), user))
        if caller.key_id and caller.key_allowance.is_bounded:
            bounds.append(Bound(Subject("key", caller.key_id), caller.key_allowance))
        return bounds

    @asynccontextmanager
    async def admitted(self, bounds: Sequence[Bound], standing: Standing) -> AsyncIterator[None]:
        """Hold a place for a request as long as the context is open.

        Args:
            standing: is told how the caller stands, also when the request is refused.

        Raises:
            TooManyRequests: too many in this minute, or at once.
            QuotaExceeded: the day's tokens are spent.
        """
        for subject, allowance in bounds:
            if allowance.tokens_per_day:
                await self._check_tokens(subject, allowance.tokens_per_day, standing)
        for subject, allowance in bounds:
            if allowance.concurrent_requests and self._running[subject] >= allowance.concurrent_requests:
                raise TooManyRequests(
                    f"{_whose(subject)} {allowance.concurrent_requests} requests at once are all being answered. "
                    "Wait for one to end.",
                    retry_after_s=BUSY_RETRY_S,
                )
        counted = [subject for subject, allowance in bounds if allowance.concurrent_requests]
        self._running.update(counted)  # before the next wait: nobody else gets this place meanwhile
        try:
            rates = [(subject, own.requests_per_minute) for subject, own in bounds if own.requests_per_minute]
            for subject, limit in rates:
                await self._check_requests(subject, limit, standing)
            for subject, limit in rates:
                await self._take_request(subject, limit, standing)
            yield
        finally:
            for subject in counted:
                self._running[subject] -= 1
                if not self._running[subject]:
                    del self._running[subject]

    async def _check_tokens(self, subject: Subject, limit: int, standing: Standing) -> None:
        spent = await self._ledger.spent_today(subject)
        midnight_s = DAY_S - time.time() % DAY_S
        standing.note("tokens", limit, limit - spent, midnight_s)
        if spent >= limit:
            raise QuotaExceeded(
                f"{_whose(subject)} {limit} tokens of today are spent. There are new ones at midnight UTC, in "
                f"{format_duration(midnight_s)}; an admin can allow more.",
                retry_after_s=midnight_s,
            )

    async def _check_requests(self, subject: Subject, limit: int, standing: Standing) -> None:
        if await self._windows.test(RateLimitItemPerMinute(limit), *subject):
            return
        reset_s = await self._note_requests(subject, limit, standing)
        raise TooManyRequests(
            f"{_whose(subject)} {limit} requests a minute are used up. Try again in {format_duration(reset_s)}.",
            retry_after_s=math.ceil(reset_s),
        )

    async def _take_request(self, subject: Subject, limit: int, standing: Standing) -> None:
        # Nothing waits between the check and this: the windows are in memory.
        await self._windows.hit(RateLimitItemPerMinute(limit), *subject)
        await self._note_requests(subject, limit, standing)

    async def _note_requests(self, subject: Subject, limit: int, standing: Standing) -> float:
        window = await self._windows.get_window_stats(RateLimitItemPerMinute(limit), *subject)
        reset_s = max(0.0, window.reset_time - time.time())
        standing.note("requests", limit, window.remaining, reset_s)
        return reset_s


def format_duration(seconds: float) -> str:
    """As OpenAI writes it: `6m0s`, `1s`, `20ms`."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    whole = math.ceil(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if whole >= 60 else "") + f"{rest}s"


def _whose(subject: Subject) -> str:
    return "Your" if subject.kind == "user" else "This API key's"
