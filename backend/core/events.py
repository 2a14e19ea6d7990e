"""The one stream that carries an answer, from the backend's first delta to the client's last byte.

A backend yields deltas, an agent turns them into a run, an encoder writes the run out or collects it.

    backend stream = HistoryTrimmed? BackendSelected? (TextDelta | ReasoningDelta | ToolCallDelta)* Completed
    run            = AgentSelected? (PlanMade | step)* AnswerCited? RunFinished
    step           = StepStarted? (HistoryTrimmed | BackendSelected | TextDelta | ReasoningDelta | ToolCallDelta)*
                     (ToolStarted ToolProgress* ToolFinished)* StepFinished?

Steps of a plan and calls of tools may run at the same time: their events then come interleaved, told apart by the
step's `index` and the call's `call_id`.

`TextDelta` is part of the answer itself; everything said on the way to it is a `ReasoningDelta`.
`ToolCallDelta` is a call that the *client* is to run; tools that the server runs are `ToolStarted` ... `ToolFinished`.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens, summed over every model call of a run."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0  # prompt tokens that the engine answered from its prefix cache
    reasoning_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )


@dataclass(slots=True)
class TextDelta:
    text: str
    logprobs: list[dict[str, Any]] | None = None  # OpenAI's `logprobs.content` entries for this text


@dataclass(slots=True)
class ReasoningDelta:
    text: str


@dataclass(slots=True)
class ToolCallDelta:
    """A piece of a call. The first piece of an index has `id` and `name`; later ones only more `arguments`.

    Indexes are dense and start at 0, whatever the backend sent.
    """

    index: int
    arguments: str = ""
    id: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class BackendSelected:
    """Which backend answers, known with its first token. A second one follows when another backend took over."""

    backend: str
    model: str


@dataclass(frozen=True, slots=True)
class HistoryTrimmed:
    """Old messages were left out, because all of them together do not fit the model's window."""

    dropped_messages: int


@dataclass(frozen=True, slots=True)
class Completed:
    """The end of one model call."""

    finish_reason: FinishReason
    usage: Usage = Usage()


@dataclass(frozen=True, slots=True)
class AgentSelected:
    agent: str
    reason: str


@dataclass(frozen=True, slots=True)
class PlanMade:
    """A plan, or what is left of it after a change. Each step: `{"id", "goal", "tool", "depends_on"}`."""

    steps: tuple[dict[str, Any], ...]
    revision: int = 0


@dataclass(frozen=True, slots=True)
class StepStarted:
    index: int
    title: str = ""


@dataclass(frozen=True, slots=True)
class StepFinished:
    """The end of a step of a plan. A step that failed may be started again."""

    index: int
    success: bool
    summary: str


@dataclass(frozen=True, slots=True)
class ToolStarted:
    call_id: str
    tool: str
    arguments: dict[str, Any]
    step: int | None = None  # of a plan


@dataclass(frozen=True, slots=True)
class ToolProgress:
    call_id: str
    tool: str
    message: str
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ToolFinished:
    call_id: str
    tool: str
    success: bool
    summary: str  # shortened for the stream
    duration_s: float
    result: dict[str, Any] | None = None  # the whole of it: for the trace, never for the stream


@dataclass(frozen=True, slots=True)
class Citation:
    """A source, and the characters of the answer that rest on it."""

    url: str
    title: str
    start: int
    end: int  # behind the last one


@dataclass(frozen=True, slots=True)
class AnswerCited:
    """The sources of the whole answer."""

    citations: tuple[Citation, ...]


@dataclass(frozen=True, slots=True)
class RunFinished:
    finish_reason: FinishReason
    usage: Usage


BackendEvent = HistoryTrimmed | BackendSelected | TextDelta | ReasoningDelta | ToolCallDelta | Completed
Event = (
    AgentSelected
    | PlanMade
    | StepStarted
    | StepFinished
    | HistoryTrimmed
    | BackendSelected
    | TextDelta
    | ReasoningDelta
    | ToolCallDelta
    | ToolStarted
    | ToolProgress
    | ToolFinished
    | AnswerCited
    | RunFinished
)
