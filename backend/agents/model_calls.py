"""The model calls of a run: the prompt is made to fit, and a call that fails is made once more where that is safe."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from backend.agents.gate import Gate
from backend.agents.guards import Budget
from backend.agents.listening import Said, listen
from backend.agents.thoughts import ThoughtReader
from backend.agents.transcript import Transcript
from backend.core.errors import ApiError, BadRequest, ContextOverflow
from backend.core.events import Event, HistoryTrimmed, ReasoningDelta, TextDelta
from backend.core.llm.base import LLMRequest, ModelStream

MAX_RETRIES = 1


class ModelCalls:
    """`begun`: something was shown or done, so that to fail now is to lose it."""

    def __init__(self, llm: ModelStream, transcript: Transcript, budget: Budget) -> None:
        self.begun = False
        self._llm = llm
        self._transcript = transcript
        self._budget = budget

    async def make(
        self,
        build: Callable[[Transcript], LLMRequest],
        said: Said,
        gate: Gate | ThoughtReader | None,
        *,
        is_last: bool = False,
    ) -> AsyncGenerator[Event, None]:
        """Make one call.

        Args:
            is_last: it may take the time that is kept for the last words.

        Raises:
            ApiError: it failed, also the second time. Where nothing has begun there is no second time: every backend
                has been asked, and the client is to have an HTTP status soon.
        """
        failures = 0
        while True:
            known = self._transcript.dropped_messages
            self._transcript.fit(build(self._transcript))
            request = build(self._transcript)
            if self._transcript.dropped_messages > known:
                yield HistoryTrimmed(self._transcript.dropped_messages)
            try:
                async with aclosing(listen(self._llm, request, self._budget, said, gate, is_last=is_last)) as events:
                    async for event in events:
                        self.begun = self.begun or isinstance(event, TextDelta | ReasoningDelta)
                        yield event
            except ContextOverflow as error:
                if not self._transcript.shrink_after(error, request):
                    raise
            except BadRequest:
                raise
            except ApiError:
                failures += 1
                if not self.begun or failures > MAX_RETRIES or (gate and gate.has_let_through):
                    raise
            else:
                self._transcript.learn(request, said.usage.prompt_tokens)
                return
            said.clear()
            if gate:
                gate.clear()
