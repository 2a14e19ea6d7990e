"""A backend that says what it is told to: the test double at the `LLMBackend` protocol.

A script is a list of answers, one for each call in turn, or a function from the request to an answer. An answer is a
text (streamed word by word), an exception (raised before the first delta) or a list of steps:

    "text"                 one TextDelta, as it is
    ToolCall(...)          a call of a tool, in two pieces
    any event              as it is; a `Completed` replaces the one that is made up otherwise
    Pause(seconds)         silence; Pause() lasts until the call is closed
    an exception           raised at this point

    llm = ScriptedLLM(["Hello there", [ToolCall("call_1", "add", "{}")], BackendUnavailable("It broke.")])

What happened is on the double: `requests`, `running`, `ended` and `abandoned` (closed before their end), `probes`.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from backend.core.errors import BackendUnavailable
from backend.core.events import BackendEvent, Completed, ReasoningDelta, TextDelta, ToolCallDelta, Usage
from backend.core.llm.base import LLMRequest, ModelInfo, ModelStream
from backend.core.messages import Message, ToolCall


@dataclass(frozen=True)
class Pause:
    seconds: float = 3600.0


Step = str | BackendEvent | ToolCall | Pause | Exception
Answer = str | Exception | Sequence[Step]


class ScriptedLLM:
    """Also does for a `ModelStream`, where an agent is tested without a chain.

    Args:
        answers: the script; a call beyond its end fails the test.
        default_model: None takes the first of `models`.
        continues: what it says of itself; whether it really continues is up to the script.
    """

    def __init__(
        self,
        answers: Sequence[Answer] | Callable[[LLMRequest], Answer] = (),
        *,
        name: str = "scripted",
        kind: str = "ollama",
        models: Sequence[str | ModelInfo] = ("scripted-model",),
        default_model: str | None = None,
        continues: bool = False,
    ) -> None:
        self.name = name
        self.kind = kind
        self.default_model = default_model
        self.models = [ModelInfo(model, kind) if isinstance(model, str) else model for model in models]
        self.answers = answers
        self.continues_partial = continues
        self.failure: Exception | None = None  # what every probe and call ends with, while it is set
        self.probe_delay_s = 0.0
        self.probes = 0
        self.requests: list[LLMRequest] = []
        self.running = self.ended = self.abandoned = 0

    def go_down(self, failure: Exception | None = None) -> None:
        """Refuse every connection from now on, or fail in the given way."""
        self.failure = failure or refused()

    def come_up(self) -> None:
        self.failure = None

    async def list_models(self) -> list[ModelInfo]:
        self.probes += 1
        await asyncio.sleep(self.probe_delay_s)
        if self.failure:
            raise self.failure
        return list(self.models)

    async def continues(self, model: str) -> bool:
        return self.continues_partial

    async def stream(self, request: LLMRequest) -> AsyncGenerator[BackendEvent, None]:
        self.requests.append(request)
        answer = self.failure or self._answer_to(request)
        self.running += 1
        whole = False
        try:
            for step in [answer] if isinstance(answer, Exception) else _steps(answer, request):
                await asyncio.sleep(step.seconds if isinstance(step, Pause) else 0)
                if isinstance(step, Exception):
                    whole = True
                    raise step
                if not isinstance(step, Pause):
                    whole = isinstance(step, Completed)
                    yield step
        finally:
            self.running -= 1
            self.ended += 1
            self.abandoned += not whole

    def _answer_to(self, request: LLMRequest) -> Answer:
        if callable(self.answers):
            return self.answers(request)
        call = len(self.requests)
        assert call <= len(self.answers), f"{self.name}: call {call} was not scripted"
        return self.answers[call - 1]


def refused() -> BackendUnavailable:
    """What a backend raises when nobody listens at its address."""
    error = BackendUnavailable("The model server cannot be reached.")
    error.__cause__ = ConnectionRefusedError(111, "Connection refused")
    return error


def broken() -> BackendUnavailable:
    """What a backend raises when its answer ends too early."""
    return BackendUnavailable("The model server closed the connection in the middle of an answer.")


def ask(text: str = "Hello?", *, model: str = "scripted-model") -> LLMRequest:
    return LLMRequest(model, (Message("user", text),))


async def collect(llm: ModelStream, request: LLMRequest) -> list[BackendEvent]:
    """Every event of one call, to its end."""
    async with aclosing(llm.stream(request)) as events:
        return [event async for event in events]


def text_of(events: Sequence[BackendEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def _steps(answer: str | Sequence[Step], request: LLMRequest) -> Iterator[BackendEvent | Pause | Exception]:
    steps = re.findall(r"\s*\S+|\s+$", answer) if isinstance(answer, str) else answer
    calls = tokens = 0
    for step in steps:
        tokens += isinstance(step, str | TextDelta | ReasoningDelta)
        if isinstance(step, str):
            yield TextDelta(step)
        elif isinstance(step, ToolCall):
            half = len(step.arguments) // 2
            yield ToolCallDelta(calls, step.arguments[:half], step.id, step.name)
            yield ToolCallDelta(calls, step.arguments[half:])
            calls += 1
        else:
            yield step
            if isinstance(step, Completed):
                return
    prompt_tokens = sum(len(message.text.split()) for message in request.messages)
    yield Completed("tool_calls" if calls else "stop", Usage(prompt_tokens, tokens))
