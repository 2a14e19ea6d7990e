"""Keeps what is said in a turn: the question at its start, the answer at its end."""

import asyncio
import logging
from collections.abc import Sequence

from backend.core.answers import Answer
from backend.core.errors import ApiError, NotFound
from backend.core.messages import Message
from backend.core.runs import Runs, Trace, describe_run
from backend.core.storage import prefixes
from backend.core.storage.conversations import StoredMessage
from backend.core.storage.sessions import Sessions
from backend.core.storage.spans import Spans, extend

logger = logging.getLogger(__name__)


class Recorder:
    """Writes one turn into one session.

    Args:
        messages: what this turn adds to the conversation before the answer.
        agent: who answers.
        new: the session is made together with the question.
        seen: what a client that sends its whole history has sent, to know it again next time; None for others.
        chat: the digest of what such a client calls the conversation, by which it is known again instead.
        runs: where the traces of agents are kept.
        trace: of this turn, where an agent answers.
    """

    def __init__(
        self,
        sessions: Sessions,
        username: str,
        session_id: str,
        messages: Sequence[Message],
        *,
        agent: str,
        new: bool = False,
        seen: Sequence[Message] | None = None,
        chat: str | None = None,
        runs: Runs,
        trace: Trace | None = None,
    ) -> None:
        self.trace = trace
        self.kept: Spans = ()  # the numbers of the messages that were written
        self._runs = runs
        self._sessions = sessions
        self._username = username
        self._session_id = session_id
        self._question = [StoredMessage.from_message(message) for message in messages]  # asked now, whenever written
        self._agent = agent
        self._new = new
        self._seen = seen
        self._chat = chat
        self._asked = False  # the question is kept

    async def keep_question(self) -> None:
        """Write the question; with it the session, when that is new.

        Raises:
            StorageFailed, Unavailable: it could not be kept.
            NotFound: the session was deleted meanwhile.
        """
        await self._write([])
        self._asked = True

    async def keep_answer(self, answer: Answer, *, interrupted: bool = False) -> None:
        """Return when the answer is on the disk for good; and the question with it, if it is not there yet.

        Raises:
            StorageFailed, Unavailable: it could not be kept.
        """
        message = answer.to_message()
        stored = StoredMessage.from_message(
            message,
            model=answer.backend.model if answer.backend else None,
            backend=answer.backend.backend if answer.backend else None,
            agent=self._agent,
            finish_reason=answer.finish_reason,
            interrupted=interrupted,
            run_id=self.trace.run_id if self.trace else None,
            run_note=describe_run(answer.steps),
            citations=answer.citations,
        )
        digest = self._chat or (None if self._seen is None else prefixes.digest((*self._seen, message)))
        try:
            await self._write([stored], durable=True, prefix_digest=digest)
        except NotFound:
            logger.info("A session was deleted while it was answered.")
            return
        if self.trace:
            try:
                await self._runs.keep(self.trace, answer, interrupted=interrupted)
            except OSError as error:  # the answer itself is kept: that counts
                logger.error("The trace %s could not be kept: %s", self.trace.run_id, error.strerror)

    async def keep_interrupted(self, answer: Answer, question: "asyncio.Task[None] | None") -> None:
        """Keep what there is of an answer that broke off. Never raises: why it broke off is what the caller tells."""
        try:
            if question:
                await question
            if not answer.is_empty:
                await self.keep_answer(answer, interrupted=True)
        except ApiError as error:
            logger.warning("An interrupted answer could not be kept: %s", error.message)

    async def _write(
        self, answer: list[StoredMessage], *, durable: bool = False, prefix_digest: str | None = None
    ) -> None:
        messages = answer if self._asked else [*self._question, *answer]
        if self._new and not self._asked:
            await self._sessions.create(
                self._username, self._session_id, messages, durable=durable, prefix_digest=prefix_digest
            )
            count = len(messages)
        else:
            count = await self._sessions.append(
                self._session_id, messages, durable=durable, prefix_digest=prefix_digest
            )
        if messages:
            self.kept = extend(self.kept, count - len(messages) + 1, count)
