"""The prompt of a run. It only grows: each model call's prompt begins with the one before it, byte for byte.

The one exception is a window that is running full. Then, in this order and in large strides: all results but the newest
are cut short, the oldest turns of the conversation before the question are left out, the newest results are cut. The
system messages, the question and what the model itself said always stay whole.
"""

import dataclasses
from collections.abc import Sequence

from backend.core.errors import ContextOverflow
from backend.core.llm.base import LLMRequest
from backend.core.llm.fitting import prompt_bytes
from backend.core.messages import Message
from backend.core.untrusted import mark_as_data, shorten

FIRST_GUESS = 0.25  # tokens for each byte, until a call has told
OLD_RESULT_CHARS = 300
SHORTEST_RESULT_CHARS = 200
LONGEST_RESULT_CHARS = 16_000
WINDOW_SHARE = 4  # one result may take a quarter of the window
MIN_ANSWER_TOKENS = 256


@dataclasses.dataclass(slots=True)
class _Result:
    """A message that holds what a tool brought."""

    at: int  # in the messages
    source: str
    text: str
    limit: int


class Transcript:
    """
    Args:
        system: what the agent tells the model; it comes before the system messages of the conversation.
        conversation: all of it, with the question at its end.
        window: of the model, in tokens; None where it is not known.
    """

    def __init__(self, system: str, conversation: Sequence[Message], window: int | None) -> None:
        self._window = window
        self._ratio = FIRST_GUESS
        said = [message for message in conversation if message.role != "system"]
        asked = max((at for at, message in enumerate(said) if message.role == "user"), default=0)
        told = [message for message in conversation if message.role == "system"]
        self._head = [Message("system", "\n\n".join([system, *(message.text for message in told)]))]
        self._history = _turns(said[:asked])
        self._run = said[asked:]  # the question, and all that is added to it
        self._results: list[_Result] = []
        self.dropped_messages = 0

    @property
    def messages(self) -> tuple[Message, ...]:
        return (*self._head, *(message for turn in self._history for message in turn), *self._run)

    @property
    def added(self) -> Sequence[Message]:
        return self._run

    def add(self, message: Message) -> None:
        self._run.append(message)

    def add_result(self, message: Message, source: str, text: str) -> None:
        """Add what a tool brought.

        Args:
            message: gets the text as its content, marked as data.
        """
        limit = (
            LONGEST_RESULT_CHARS
            if self._window is None
            else min(LONGEST_RESULT_CHARS, max(SHORTEST_RESULT_CHARS, int(self._window / WINDOW_SHARE / self._ratio)))
        )
        self._results.append(_Result(len(self._run), source, text, limit))
        self._run.append(message)
        self._write(self._results[-1])

    def fit(self, request: LLMRequest) -> None:
        """Shorten what may be shortened until the request's prompt fits, as far as that can be told."""
        if self._window is None:
            return
        reserve = min(request.sampling.max_tokens or MIN_ANSWER_TOKENS, self._window // 2)
        while self._size(request) * self._ratio > self._window - reserve and self._shorten():
            pass

    def learn(self, request: LLMRequest, prompt_tokens: int) -> None:
        """What a call told of its prompt's size."""
        if prompt_tokens:
            self._ratio = min(1.5, max(0.05, prompt_tokens / self._size(request)))

    def shrink_after(self, error: ContextOverflow, request: LLMRequest) -> bool:
        """Make the prompt smaller than the one that was refused. False: there is nothing left to shorten."""
        self._window = error.context_tokens or self._window
        self.learn(request, error.prompt_tokens or int(self._size(request) * self._ratio * 1.5))
        if not self._shorten():
            return False
        self.fit(request)
        return True

    def _size(self, request: LLMRequest) -> int:
        return prompt_bytes(dataclasses.replace(request, messages=self.messages))

    def _shorten(self) -> bool:
        old = [result for result in self._results[:-1] if result.limit > OLD_RESULT_CHARS < len(result.text)]
        if old:
            for result in old:
                self._cut(result, OLD_RESULT_CHARS)
            return True
        if self._history:
            strides = max(1, len(self._history) // 3)
            self.dropped_messages += sum(map(len, self._history[:strides]))
            del self._history[:strides]
            return True
        for result in reversed(self._results):
            shown = min(result.limit, len(result.text))
            if shown > SHORTEST_RESULT_CHARS:
                self._cut(result, max(SHORTEST_RESULT_CHARS, shown // 2))
                return True
        return False

    def _cut(self, result: _Result, limit: int) -> None:
        result.limit = limit
        self._write(result)

    def _write(self, result: _Result) -> None:
        text = mark_as_data(shorten(result.text, result.limit), result.source)
        self._run[result.at] = dataclasses.replace(self._run[result.at], content=text)


def _turns(messages: Sequence[Message]) -> list[list[Message]]:
    turns: list[list[Message]] = []
    for message in messages:
        if message.role == "user" or not turns:
            turns.append([])
        turns[-1].append(message)
    return turns
