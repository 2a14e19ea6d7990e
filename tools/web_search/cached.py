"""What was found a moment ago: the same search again costs nothing, and brings the same."""

import time
from collections import OrderedDict
from collections.abc import Callable

from .chain import Found
from .search import SearchRequest

KEEP_S = 300.0
MAX_SEARCHES = 256


class RecentSearches:
    """The newest `MAX_SEARCHES`, each for `KEEP_S`.

    Args:
        clock: seconds that never go backwards.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._found: OrderedDict[SearchRequest, tuple[float, Found]] = OrderedDict()

    def get(self, request: SearchRequest) -> Found | None:
        at, found = self._found.get(request, (0.0, None))
        if found is None or self._clock() - at > KEEP_S:
            self._found.pop(request, None)
            return None
        self._found.move_to_end(request)
        return found

    def put(self, request: SearchRequest, found: Found) -> None:
        self._found[request] = (self._clock(), found)
        self._found.move_to_end(request)
        while len(self._found) > MAX_SEARCHES:
            self._found.popitem(last=False)
