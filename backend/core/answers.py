"""What the events of a run add up to: the answer as it is stored, and as it is given to who does not stream."""

from dataclasses import dataclass, field
from typing import Any

from backend.core.events import (
    AnswerCited,
    BackendSelected,
    Citation,
    Event,
    FinishReason,
    HistoryTrimmed,
    ReasoningDelta,
    RunFinished,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from backend.core.messages import Message, ToolCall
from backend.core.narration import narrate


@dataclass(slots=True)
class Answer:
    """Grows with each event. `finish_reason` stays None when the run broke off."""

    backend: BackendSelected | None = None
    finish_reason: FinishReason | None = None
    usage: Usage = Usage()
    dropped_messages: int = 0
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    steps: list[Event] = field(default_factory=list)  # what an agent did on the way
    citations: tuple[Citation, ...] = ()
    _text: list[str] = field(default_factory=list)
    _reasoning: list[str] = field(default_factory=list)
    _narration: list[str] = field(default_factory=list)  # the reasoning, and what was done in between
    _calls: list[ToolCallDelta] = field(default_factory=list)  # first pieces
    _arguments: list[list[str]] = field(default_factory=list)

    def add(self, event: Event) -> None:
        if type(event) is TextDelta:  # nearly all events are: they are told apart first, and cheaply
            self._text.append(event.text)
            if event.logprobs is not None:
                self.logprobs += event.logprobs
            return
        match event:
            case ReasoningDelta():
                self._reasoning.append(event.text)
                self._narration.append(event.text)
            case ToolCallDelta():
                if event.index == len(self._calls):
                    self._calls.append(event)
                    self._arguments.append([])
                self._arguments[event.index].append(event.arguments)
            case BackendSelected():
                self.backend = self.backend or event
            case HistoryTrimmed():
                self.dropped_messages = max(self.dropped_messages, event.dropped_messages)
            case AnswerCited(citations):
                self.citations = citations
            case RunFinished():
                self.finish_reason, self.usage = event.finish_reason, event.usage
            case _:
                self.steps.append(event)
                self._narration.append(narrate(event))

    @property
    def text(self) -> str:
        return "".join(self._text)

    @property
    def reasoning(self) -> str:
        return "".join(self._reasoning)

    @property
    def narration(self) -> str:
        """The reasoning with the agent's steps told in it, as it is streamed."""
        return "".join(self._narration)

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        return tuple(
            ToolCall(call.id or "", call.name or "", "".join(pieces))
            for call, pieces in zip(self._calls, self._arguments, strict=True)
        )

    @property
    def is_empty(self) -> bool:
        return not (self._text or self._reasoning or self._calls or self.steps)

    def to_message(self) -> Message:
        return Message("assistant", self.text, self.tool_calls, reasoning=self.reasoning or None)
