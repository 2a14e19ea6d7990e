"""What is known of the backends: who is up, which models each has, and who can answer for a model's name.

A name is resolved in this order: an alias; "default" or none at all (each backend's own default model); a name on the
backend's list; what `BACKEND_MODEL_MAP` says the name is called there. A backend whose list was never seen is asked
only for its default model and for mapped names.

Every backend is probed by a task of its own, so that a slow one delays nobody, and never by two probes at once. The
last known lists are kept in a file: after a restart they are there before the first probe has ended.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from backend.core.errors import BackendUnavailable, ModelNotFound
from backend.core.llm.base import LLMBackend, ModelInfo
from backend.core.llm.breaker import CircuitBreaker, Reason, is_unreachable, reason_of
from backend.core.llm.kept_lists import KeptLists

DEFAULT = "default"
PROBE_TIMEOUT_S = 5.0  # backends have a shorter one of their own
FIRST_LOOK_S = 1.0  # how long the very first questions wait for the first probes
SECOND_LOOK_S = 2.0
FRESH_S = 2.0  # knowledge of this age is not asked for again
MAX_SHOWN_NAME = 100

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A backend that may have the model, and what the model is called there."""

    backend: LLMBackend
    model_name: str
    breaker: CircuitBreaker


@dataclass(frozen=True, slots=True)
class BackendStatus:
    name: str
    kind: str
    state: Literal["up", "down", "unknown"]  # what the last probe found
    since: float  # Unix seconds
    age_s: float | None  # of the last probe; None: there was none yet
    error: Reason | None
    models: tuple[ModelInfo, ...]  # the last known list


@dataclass(slots=True)
class _Entry:
    backend: LLMBackend
    breaker: CircuitBreaker
    state: Literal["up", "down", "unknown"] = "unknown"
    since: float = field(default_factory=time.time)
    error: Reason | None = None
    models: Sequence[ModelInfo] | None = None  # None: never seen
    ids: frozenset[str] = frozenset()  # of the models
    probed_at: float | None = None
    probe: asyncio.Task[None] | None = None

    def take(self, models: Sequence[ModelInfo]) -> None:
        self.models = models
        self.ids = frozenset(model.id for model in models)

    @property
    def default_name(self) -> str | None:
        """What to ask for where no model is named; None where the backend has no model that can chat."""
        if self.backend.default_model or self.models is None:
            return self.backend.default_model or DEFAULT
        return next((m.id for m in self.models if not m.capabilities or "completion" in m.capabilities), None)

    def lists(self, name: str) -> str | None:
        """The name as it stands on the backend's list."""
        if name in self.ids:
            return name
        tagged = f"{name}:latest"
        is_untagged = self.backend.kind == "ollama" and ":" not in name.rpartition("/")[2]
        return tagged if is_untagged and tagged in self.ids else None


class ModelCatalog:
    """The backends of the chain, first choice first.

    Args:
        aliases: names that clients ask for -> names of models; one step, no chains.
        model_map: for a kind of backend: name of a model -> what it is called there.
        cache_file: where the last known lists outlive the process; None keeps none.
        refresh_s: between two probes of a backend that is up.
        probe_s: between two probes of one that is not.
        retry_s: how long a failed backend is left alone; see `CircuitBreaker`.
        clock: seconds that never go backwards.
    """

    def __init__(
        self,
        backends: Sequence[LLMBackend],
        *,
        aliases: Mapping[str, str],
        model_map: Mapping[str, Mapping[str, str]],
        cache_file: Path | None,
        refresh_s: float = 30.0,
        probe_s: float = 5.0,
        retry_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._entries = [_Entry(backend, CircuitBreaker(retry_s, clock=clock)) for backend in backends]
        self._aliases = aliases
        self._model_map = model_map
        self._kept = KeptLists(cache_file)
        self._refresh_s = refresh_s
        self._probe_s = probe_s
        self._clock = clock
        self._watchers: list[asyncio.Task[None]] = []
        self._first_look_until: float | None = None

    async def start(self) -> None:
        """Load the lists of the last run and begin to probe; waits for no backend."""
        lists = await self._kept.load()
        for entry in self._entries:
            if entry.backend.name in lists:
                entry.take(lists[entry.backend.name])
        self._watchers = [asyncio.create_task(self._watch(entry)) for entry in self._entries]

    async def close(self) -> None:
        """End every probe and keep what is known."""
        tasks = [*self._watchers, *(entry.probe for entry in self._entries if entry.probe)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._save()

    def states(self) -> list[BackendStatus]:
        now = self._clock()
        return [
            BackendStatus(
                name=entry.backend.name,
                kind=entry.backend.kind,
                state=entry.state,
                since=entry.since,
                age_s=None if entry.probed_at is None else now - entry.probed_at,
                error=entry.error,
                models=tuple(entry.models or ()),
            )
            for entry in self._entries
        ]

    async def models(self) -> list[ModelInfo]:
        """All models in the order of the chain, of two with one id the first, also of a backend that is down.

        Waits for the backends only the first time, and then a second at most.
        """
        await self._take_first_look()
        merged: dict[str, ModelInfo] = {}
        for entry in self._entries:
            for model in entry.models or ():
                merged.setdefault(model.id, model)
        return list(merged.values())

    def context_tokens(self, model: str) -> int | None:
        """The window of the model on the backend that is likely to answer; None where it is not known."""
        info = self._likely(model)
        return info.context_tokens if info else None

    def capabilities(self, model: str) -> frozenset[str]:
        """What the model can do on the backend that is likely to answer; empty where it is not known."""
        info = self._likely(model)
        return info.capabilities if info else frozenset()

    async def candidates(self, model: str | None) -> list[Candidate]:
        """Who may answer for this name, first choice first. Never empty.

        Raises:
            ModelNotFound: no backend has it.
            BackendUnavailable: no backend was ever reached, so that nobody knows.
        """
        await self._take_first_look()
        found = self.known_candidates(model)
        if not found:  # it may have been pulled since the last probe
            await self._look([entry for entry in self._entries if not self._is_fresh(entry)], FIRST_LOOK_S)
            found = self.known_candidates(model)
        if found:
            return found
        if all(entry.models is None for entry in self._entries):
            raise nobody_answers(self._down_sentences(self._entries), retry_after_s=self._probe_s)
        raise ModelNotFound(shown_name(model or DEFAULT))

    def known_candidates(self, model: str | None) -> list[Candidate]:
        """The same from what is known now, without a look at the backends; may be empty."""
        return [Candidate(entry.backend, name, entry.breaker) for entry, name in self._find(model)]

    async def look_again(self, names: Collection[str]) -> dict[str, str]:
        """Probe these backends now, for a bounded time, and tell of each that is still down, in a sentence."""
        entries = [entry for entry in self._entries if entry.backend.name in names]
        await self._look(entries, SECOND_LOOK_S)
        return self._down_sentences([entry for entry in entries if entry.state != "up"])

    def _likely(self, model: str) -> ModelInfo | None:
        found = self._find(model)
        for entry, name in [pair for pair in found if pair[0].state != "down"] or found:
            for info in entry.models or ():
                if info.id == name:
                    return info
        return None

    def _find(self, model: str | None) -> list[tuple[_Entry, str]]:
        name = self._aliases.get(model, model) if model else DEFAULT
        pairs = [(entry, self._name_on(entry, name)) for entry in self._entries]
        return [(entry, called) for entry, called in pairs if called]

    def _name_on(self, entry: _Entry, name: str) -> str | None:
        if name == DEFAULT:
            return entry.default_name
        if listed := entry.lists(name):
            return listed
        mapped = self._model_map.get(entry.backend.kind, {}).get(name)
        if mapped:
            return entry.default_name if mapped == DEFAULT else mapped
        return name if entry.models is None and name == entry.backend.default_model else None

    def _down_sentences(self, entries: Sequence[_Entry]) -> dict[str, str]:
        return {entry.backend.name: f"The model server is down ({entry.error or 'timeout'})." for entry in entries}

    def _is_fresh(self, entry: _Entry) -> bool:
        return entry.probed_at is not None and self._clock() - entry.probed_at < FRESH_S

    async def _take_first_look(self) -> None:
        """Wait for backends of which nothing is known yet, but only once in the life of the process."""
        now = self._clock()
        if self._first_look_until is None:
            self._first_look_until = now + FIRST_LOOK_S
        if now < self._first_look_until:
            new = [entry for entry in self._entries if entry.probed_at is None and entry.models is None]
            await self._look(new, self._first_look_until - now)

    async def _look(self, entries: Sequence[_Entry], wait_s: float) -> None:
        """Probe, or join the probes under way. They go on when the wait is over."""
        if entries:
            await asyncio.wait([self._begin_probe(entry) for entry in entries], timeout=wait_s)

    def _begin_probe(self, entry: _Entry) -> asyncio.Task[None]:
        if entry.probe is None or entry.probe.done():
            entry.probe = asyncio.create_task(self._probe(entry))
        return entry.probe

    async def _probe(self, entry: _Entry) -> None:
        name = entry.backend.name
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                models = await entry.backend.list_models()
        except (BackendUnavailable, TimeoutError) as error:
            reason = reason_of(error)
            # One slow answer may be a busy machine; two in a row, or no connection at all, are an outage.
            if is_unreachable(reason) or entry.state == "down":
                entry.breaker.fail(unreachable=True)
            self._note(entry, "down", reason)
        except Exception:  # a defect in one backend must not end the watch over it
            logger.exception("The probe of backend %s failed unexpectedly", name)
            self._note(entry, "down", "failed")
        else:
            entry.take(models)
            entry.breaker.note_reachable()
            self._note(entry, "up", None)

    def _note(self, entry: _Entry, state: Literal["up", "down"], error: Reason | None) -> None:
        if entry.state != state:
            entry.since = time.time()
            logger.info("Backend %s is %s%s", entry.backend.name, state, f" ({error})" if error else "")
        entry.state, entry.error, entry.probed_at = state, error, self._clock()

    async def _watch(self, entry: _Entry) -> None:
        while True:
            due = entry.probed_at is None or self._clock() - entry.probed_at >= self._refresh_s
            if due or entry.state != "up" or entry.breaker.state != "closed":
                await asyncio.wait([self._begin_probe(entry)])
                await self._save()
            await asyncio.sleep(min(self._probe_s, self._refresh_s))

    async def _save(self) -> None:
        await self._kept.save({e.backend.name: list(e.models) for e in self._entries if e.models is not None})


def nobody_answers(sentences: Mapping[str, str], *, retry_after_s: float) -> BackendUnavailable:
    """The error of a request that no backend could answer; `sentences` tell what went wrong at each of them."""
    told = " ".join(f"{name}: {sentence}" for name, sentence in sentences.items()) or "None is configured."
    return BackendUnavailable(f"No model server could answer. {told}", retry_after_s=retry_after_s)


def shown_name(name: str) -> str:
    """A name that a client made up, fit for a message."""
    shown = "".join(c if c.isprintable() and c != "`" else "?" for c in name[:MAX_SHOWN_NAME])
    return shown if len(name) <= MAX_SHOWN_NAME else f"{shown}…"
