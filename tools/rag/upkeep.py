"""What is done for open collections while nobody waits for it: better indexes, and files without what was removed."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from backend.core.errors import ApiError, NotFound

from .shelf import OpenCollection
from .threads import Threads

MAX_TRIES = 10  # of a cleaning that somebody is in the way of; the next change or opening begins anew
RETRY_AFTER_S = 1.0
REST_TIMES = 4  # as long as a cleaning took: many deletions, one by one, never take all of a processor

log = logging.getLogger(__name__)


class Upkeep:
    """One task a collection and kind of work; `close` ends them."""

    def __init__(self) -> None:
        self._improving = Threads(1, "rag-index")
        self._cleaning = Threads(1, "rag-clean")
        self._tasks: dict[tuple[str, Path], asyncio.Task[None]] = {}

    async def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        for threads in (self._improving, self._cleaning):
            await threads.close()

    def begin(self, opened: OpenCollection) -> None:
        """Begin what the collection is in need of, unless it is being done."""
        if opened.wants_better_index:
            self._start("improve", opened, self._improve)
        if opened.wants_cleaning:
            self._start("clean", opened, self._clean)

    async def finish(self) -> None:
        """Wait until nothing is being done."""
        while self._tasks:
            await asyncio.wait(self._tasks.values())

    def _start(self, kind: str, opened: OpenCollection, work: Callable[[OpenCollection], Awaitable[None]]) -> None:
        key = (kind, opened.folder)
        if key not in self._tasks:
            self._tasks[key] = task = asyncio.ensure_future(work(opened))
            task.add_done_callback(lambda done: self._note_end(key, done))

    def _note_end(self, key: tuple[str, Path], task: "asyncio.Future[None]") -> None:
        self._tasks.pop(key, None)
        if not task.cancelled() and (error := task.exception()):
            log.warning("rag: upkeep (%s) failed: %s", key[0], error)

    async def _improve(self, opened: OpenCollection) -> None:
        await self._improving.run(opened.improve)

    async def _clean(self, opened: OpenCollection) -> None:
        tries = 0
        while opened.wants_cleaning and tries < MAX_TRIES:
            started = time.monotonic()
            try:
                await self._cleaning.run(opened.clean)
                tries = 0
            except NotFound:  # the collection was deleted
                return
            except ApiError as error:
                tries += 1
                log.info("rag: what was removed is cleaned up later: %s", error)
                await asyncio.sleep(RETRY_AFTER_S)
            await asyncio.sleep(REST_TIMES * (time.monotonic() - started))
