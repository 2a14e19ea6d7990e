"""How often one user may ask: a bucket of tokens for each, which fills again steadily."""

import time
from collections import OrderedDict
from collections.abc import Callable

MAX_USERS = 10_000  # whoever was here the longest ago is forgotten first


class UserRates:
    """
    Args:
        per_minute: calls that refill in a minute; as many may come at once.
        clock: seconds that never go backwards.
    """

    def __init__(self, per_minute: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._size = per_minute
        self._per_s = per_minute / 60
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, and when there were so many

    def take(self, username: str) -> float:
        """Take a token and return 0, or return the seconds until there is one."""
        now = self._clock()
        tokens, at = self._buckets.pop(username, (float(self._size), now))
        tokens = min(self._size, tokens + (now - at) * self._per_s)
        wait_s = 0.0 if tokens >= 1 else (1 - tokens) / self._per_s
        self._buckets[username] = (tokens - (wait_s == 0), now)
        while len(self._buckets) > MAX_USERS:
            self._buckets.popitem(last=False)
        return wait_s
