"""A model's answers as JSON: streamed, held to a schema where the engine can, and mended where it cannot."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Any

from backend.core.contracts import ToolContext
from backend.core.errors import ContextOverflow
from backend.core.events import BackendSelected, Completed, TextDelta, Usage
from backend.core.llm.base import LLMRequest, ResponseFormat, Sampling
from backend.core.messages import Message

from .repair import read_json

ROOMS = (12_000, 5_000, 1_500, 0)  # characters of material in a prompt: less, when a model's window is small
MAX_CHARS = 40_000  # of an answer; a model that says more has lost its way
CALLS_AT_ONCE = 2  # more would wait in the engine, where their deadline runs
TRIES = 2


class ModelCalls:
    """The calls for one deck.

    Args:
        until: the time of the loop's clock at which they must be over.
    """

    def __init__(self, context: ToolContext, tool: str, until: float) -> None:
        self.model: str | None = None
        self.usage = Usage()
        self.said = ""  # the last answer that was no JSON
        self._context = context
        self._tool = tool
        self._until = until
        self._places = asyncio.Semaphore(CALLS_AT_ONCE)

    async def ask(
        self, system: str, question: Callable[[int], str], schema: dict[str, Any], *, name: str, max_tokens: int
    ) -> dict[str, Any] | None:
        """What the model filled in; None where it gave no JSON, also when it was asked again.

        Args:
            question: the prompt, given the room for material.

        Raises:
            TimeoutError: there is no time left.
            ApiError: no model answers.
        """
        async with asyncio.timeout_at(self._until), self._places:
            for attempt in range(TRIES):
                sampling = Sampling(temperature=0.3 + 0.4 * attempt, max_tokens=max_tokens)
                text = await self._ask_in_rooms(system, question, sampling, ResponseFormat(schema, name))
                value = read_json(text)
                if isinstance(value, dict) and value:
                    return value
                self.said = text.strip()
        return None

    async def _ask_in_rooms(
        self, system: str, question: Callable[[int], str], sampling: Sampling, form: ResponseFormat
    ) -> str:
        for room in ROOMS:
            messages = (Message("system", system), Message("user", question(room)))
            try:
                return await self._listen(messages, sampling, form)
            except ContextOverflow:
                if room == ROOMS[-1]:
                    raise
        raise AssertionError("unreachable")

    async def _listen(self, messages: Sequence[Message], sampling: Sampling, form: ResponseFormat) -> str:
        request = LLMRequest(
            self._context.model,
            tuple(messages),
            sampling,
            response_format=form,
            context=self._context.call_context(self._tool),
        )
        text = ""
        async with aclosing(self._context.llm.stream(request)) as events:
            async for event in events:
                match event:
                    case TextDelta(piece):
                        text += piece
                        if len(text) > MAX_CHARS:
                            break
                    case BackendSelected(_, model):
                        self.model = model
                    case Completed(_, usage):
                        self.usage += usage
        return text
