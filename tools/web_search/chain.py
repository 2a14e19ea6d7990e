"""The chain of providers: the first that answers is the one that counts, and what went wrong before it is told.

key              the provider is off until the tools API is started again
quota plan rate  it is left alone for as long as it says, or else for a time that fits the trouble
network          asked once more at once; then left alone for a moment
query            nothing is held against it
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .search import FailureKind, SearchFailed, SearchProvider, SearchRequest, SearchResult

logger = logging.getLogger(__name__)

REST_S: Mapping[FailureKind, float] = {"plan": 600.0, "quota": 3600.0, "rate": 60.0, "network": 15.0}
LONGEST_REST_S = 24 * 3600.0
RETRY_PAUSE_S = 0.2
QUICK_S = 2.0  # what failed faster than this is worth a second try


@dataclass(frozen=True, slots=True)
class Failure:
    provider: str
    kind: FailureKind
    message: str
    retry_after_s: float | None  # None: not before something is changed

    def as_data(self) -> dict[str, Any]:
        wait = None if self.retry_after_s is None else round(self.retry_after_s)
        return {"provider": self.provider, "kind": self.kind, "message": self.message, "retry_after_s": wait}


@dataclass(frozen=True, slots=True)
class Found:
    provider: str
    results: tuple[SearchResult, ...]
    failures: tuple[Failure, ...]  # of those that were asked, or would have been, before


class NothingFound(Exception):
    """No provider answered; `failures` tell why, one for each."""

    def __init__(self, failures: Sequence[Failure]) -> None:
        super().__init__("no provider answered")
        self.failures = tuple(failures)


@dataclass(slots=True)
class _Entry:
    provider: SearchProvider
    failed: SearchFailed | None = None
    until: float = 0.0  # of the clock; left alone so long


class SearchChain:
    """
    Args:
        providers: first choice first.
        clock: seconds that never go backwards.
    """

    def __init__(self, providers: Sequence[SearchProvider], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._entries = [_Entry(provider) for provider in providers]
        self._clock = clock

    @property
    def is_usable(self) -> bool:
        """Whether any provider may answer, now or later."""
        return any(not self._is_off(entry) for entry in self._entries)

    def states(self) -> list[dict[str, Any]]:
        """For each provider: `state` is `ready`, `resting` or `off`, and `reason` why."""
        listed = []
        for entry in self._entries:
            resting = self._failure_of(entry)
            state = "off" if self._is_off(entry) else "resting" if resting else "ready"
            listed.append({"name": entry.provider.name, "state": state, "reason": resting.message if resting else ""})
        return listed

    async def search(self, request: SearchRequest) -> Found:
        """Raises: NothingFound"""
        failures: list[Failure] = []
        for entry in self._entries:
            if known := self._failure_of(entry):
                failures.append(known)
                continue
            try:
                results = await self._ask(entry.provider, request)
            except SearchFailed as error:
                failures.append(self._note(entry, error))
            else:
                entry.failed = None
                return Found(entry.provider.name, tuple(results), tuple(failures))
        raise NothingFound(failures)

    async def close(self) -> None:
        for entry in self._entries:
            await entry.provider.close()

    async def _ask(self, provider: SearchProvider, request: SearchRequest) -> list[SearchResult]:
        started = self._clock()
        try:
            return await provider.search(request)
        except SearchFailed as error:
            if error.kind != "network" or self._clock() - started > QUICK_S:
                raise
        await asyncio.sleep(RETRY_PAUSE_S)
        return await provider.search(request)

    def _is_off(self, entry: _Entry) -> bool:
        return entry.failed is not None and entry.failed.kind == "key"

    def _failure_of(self, entry: _Entry) -> Failure | None:
        """Why the provider is left alone; None where it is not."""
        if entry.failed is None:
            return None
        rest_s = entry.until - self._clock()
        if rest_s <= 0:
            return None
        wait = None if self._is_off(entry) else rest_s
        return Failure(entry.provider.name, entry.failed.kind, entry.failed.message, wait)

    def _note(self, entry: _Entry, error: SearchFailed) -> Failure:
        name = entry.provider.name
        if error.kind == "query":
            return Failure(name, error.kind, error.message, None)
        logger.warning("search provider %s: %s: %s", name, error.kind, error.message)
        rest_s = min(error.retry_after_s or REST_S.get(error.kind, 0.0), LONGEST_REST_S)
        entry.failed = error
        entry.until = float("inf") if error.kind == "key" else self._clock() + rest_s
        return Failure(name, error.kind, error.message, None if error.kind == "key" else rest_s)
