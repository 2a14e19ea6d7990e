"""Counts what is used, at the price of a dictionary's entry for each model call.

Every model call is counted where it ends (`CallObserver`), whether it was streamed, collected, broken off or cancelled,
for an agent or a plain chat; the tools API counts the calls of its tools. A request counts once, with the first of its
model calls that said something: it is known by the `Asker` of the context that it runs in.

Where a call ended without the backend's own count, it is estimated from what was sent and received, and marked so; a
call that brought nothing counts nothing. Counts are gathered and written every `FLUSH_EVERY_S` and at the end: a
process that is killed loses what it counted since, and a disk that fails gets it later.

What a user or a key spent today is known without the disk: it is read once, then counted along, and read again every
`REREAD_S` for what other processes have counted meanwhile.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from backend.core.errors import ApiError
from backend.core.events import Usage
from backend.core.llm.call_log import CallRecord
from backend.core.llm.fitting import prompt_bytes
from backend.core.storage.database import Database
from backend.core.storage.usage import Subject, UsageCounts, UsageKey, read_totals, usage_rows

FLUSH_EVERY_S = 1.0
REREAD_S = 5.0
FORGET_S = 600.0  # a subject that nobody asks about is no longer counted along
MAX_PENDING = 10_000
BYTES_PER_TOKEN = 4

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Asker:
    """Who has sent the request that is being answered in this context."""

    username: str
    key_id: str | None
    counted: bool = False


asker_var: ContextVar[Asker | None] = ContextVar("asker", default=None)


@dataclass(slots=True)
class _Spent:
    tokens: int
    asked_at: float  # time.monotonic() seconds


class UsageLedger:
    """The counts of one process. `open_usage_ledger` makes one and writes it out."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pending: dict[UsageKey, UsageCounts] = {}
        self._spent: dict[Subject, _Spent] = {}
        self._spent_day = ""
        self._reread_at = 0.0  # time.monotonic() seconds
        self._turn = asyncio.Lock()  # of writing and of reading: what is read holds all that was written

    def call_finished(self, record: CallRecord) -> None:
        usage, estimated = record.usage, False
        if usage is None:
            if record.first_token_s is None:
                return
            written = sum(len(call.arguments) for call in record.tool_calls) + len(record.text) + len(record.reasoning)
            usage = Usage(prompt_bytes(record.request) // BYTES_PER_TOKEN, written // BYTES_PER_TOKEN + 1)
            estimated = True
        context = record.request.context
        self.count(context.username, record.model or record.request.model, context.agent, usage, estimated=estimated)

    def count(self, username: str, model: str, agent: str, usage: Usage, *, estimated: bool = False) -> None:
        """Count one call of a model: any model, also one that embeds.

        Args:
            agent: who called it: an agent, a tool, or what the route does.
        """
        if not username:
            return
        asker = asker_var.get()
        is_first = asker is not None and not asker.counted
        tokens = usage.prompt_tokens + usage.completion_tokens
        counts = UsageCounts(
            int(is_first), usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens, tokens if estimated else 0
        )
        key_id = ""
        if asker is not None:
            asker.counted = True
            key_id = asker.key_id or ""
        self._add(UsageKey(_today(), username, model, agent, key_id), counts)
        for subject in (Subject("user", username), Subject("key", key_id)):
            if spent := self._spent.get(subject):
                spent.tokens += tokens

    async def spent_today(self, subject: Subject) -> int:
        """The tokens of a user or a key since midnight UTC. Waits for the disk only at the first time."""
        if self._spent_day != _today():
            self._spent_day = _today()
            self._spent.clear()
        spent = self._spent.get(subject)
        if spent is None:
            async with self._turn:
                await self._read_spent([subject])
            spent = self._spent.setdefault(subject, _Spent(0, 0.0))  # empty only right after midnight
        spent.asked_at = time.monotonic()
        return spent.tokens

    async def flush(self) -> None:
        """Write what was counted so far. What cannot be written stays, and is tried again."""
        async with self._turn:
            if not self._pending:
                return
            batch, self._pending = self._pending, {}
            try:
                await self._database.write_rows(usage_rows(batch.items()))
            except (ApiError, SQLAlchemyError) as error:
                for key, counts in batch.items():
                    self._add(key, counts)
                logger.warning("What was used could not be written, and waits: %s", error)

    async def flush_until(self, closing: asyncio.Event) -> None:
        while not closing.is_set():
            try:
                async with asyncio.timeout(FLUSH_EVERY_S):
                    await closing.wait()
            except TimeoutError:
                pass
            await self.flush()
            if self._spent and time.monotonic() >= self._reread_at:
                await self._reread()

    def _add(self, key: UsageKey, counts: UsageCounts) -> None:
        if known := self._pending.get(key):
            known.add(counts)
        elif len(self._pending) < MAX_PENDING:
            self._pending[key] = counts
        else:
            logger.warning("A count of what was used is lost: too many wait for the disk.")

    async def _reread(self) -> None:
        now = time.monotonic()
        self._reread_at = now + REREAD_S
        self._spent = {subject: spent for subject, spent in self._spent.items() if now - spent.asked_at < FORGET_S}
        try:
            async with self._turn:
                await self._read_spent(list(self._spent))
        except (ApiError, SQLAlchemyError) as error:
            logger.warning("What was used today cannot be read: %s", error)

    async def _read_spent(self, subjects: list[Subject]) -> None:
        """Take over what the database tells, with what is still to be written to it on top."""
        day = _today()
        totals = await read_totals(self._database, day, subjects)
        for subject, tokens in totals.items():
            pending = sum(
                counts.total_tokens
                for key, counts in self._pending.items()
                if key.day == day and subject.id == (key.username if subject.kind == "user" else key.key_id)
            )
            known = self._spent.get(subject)
            self._spent[subject] = _Spent(tokens + pending, known.asked_at if known else time.monotonic())


@asynccontextmanager
async def open_usage_ledger(database: Database) -> AsyncIterator[UsageLedger]:
    ledger = UsageLedger(database)
    closing = asyncio.Event()
    flushing = asyncio.create_task(ledger.flush_until(closing))
    try:
        yield ledger
    finally:
        closing.set()
        await flushing


def _today() -> str:
    return time.strftime("%Y-%m-%d", time.gmtime())
