"""The seams between rooms: what an agent is, what a tool is, and how one reaches the other.

Agents call tools over HTTP and never import `tools/`; tools know `Tool` and never import `backend/agents` or
`backend/api`.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel

from backend.core.errors import BackendUnavailable
from backend.core.events import BackendEvent, Event, ToolProgress
from backend.core.llm.base import CallContext, LLMRequest, ModelStream, ToolDefinition
from backend.core.messages import ToolCall


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """What is known of a tool without loading it: the model, the list route and the caller's checks read this."""

    name: str
    description: str
    args: type[BaseModel]  # schema, validation and documentation of the arguments come from this one class
    timeout_s: float | None = None  # None: DEFAULT_TOOL_TIMEOUT
    concurrency: int = 4  # calls that may run at once
    queue: int = 32  # calls that may wait for a place; one more is refused


@dataclass(frozen=True, slots=True)
class ToolStatus:
    """Whether a tool can be used on this machine, and if not: why, and how to switch it on."""

    enabled: bool
    reason: str = ""
    how_to_enable: str = ""
    details: dict[str, Any] = field(default_factory=dict)


async def no_progress(message: str, data: dict[str, Any]) -> None:
    """A progress listener for callers who do not listen."""


class NoModels:
    """A `ModelStream` for callers who have none."""

    async def stream(self, request: LLMRequest) -> AsyncGenerator[BackendEvent, None]:
        raise BackendUnavailable("There is no model server here.")
        yield  # makes it a generator


@dataclass(frozen=True, slots=True)
class ToolContext:
    """As whom and with what a tool runs. Nothing of it comes from the arguments."""

    username: str
    session_id: str
    request_id: str
    workspace: Path  # the session's scratch folder: the tool's only place for files
    progress: Callable[[str, dict[str, Any]], Awaitable[None]] = no_progress
    rag_collection: str | None = None
    llm: ModelStream = field(default_factory=NoModels)
    model: str = "default"  # the one to be asked, by `TOOL_MODELS`

    def call_context(self, tool: str) -> CallContext:
        """For whom the tool of that name calls a model."""
        return CallContext(self.request_id, self.username, self.session_id, agent=tool)


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a call brought. A tool that failed is a result too: `success` false, and `error` a sentence to act on."""

    success: bool
    answer: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    error: str | None = None


class ToolFailure(Exception):
    """Raised by a tool that could not do what was asked: one sentence that the model can act on."""

    def __init__(self, message: str, data: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.data = data or {}


class Tool(Protocol):
    """A tool as the tools API runs it. Made once per process; it keeps no state of a call on itself."""

    spec: ToolSpec

    async def start(self) -> None:
        """Prepare what calls share, and find out whether the tool can be used here. Never raises for the latter."""
        ...

    async def close(self) -> None:
        """End every process and close every file that the tool opened."""
        ...

    def status(self) -> ToolStatus: ...

    async def run(self, args: Any, context: ToolContext) -> ToolResult:
        """Do one call; `args` is an instance of `spec.args`. Cancelling it stops all that it started.

        Raises:
            ToolFailure: with a sentence for the model.
        """
        ...


class ToolRunner(Protocol):
    """What an agent sees of the tools."""

    def run(
        self, call: ToolCall, context: CallContext, *, rag_collection: str | None = None, model: str | None = None
    ) -> AsyncGenerator[ToolProgress | ToolResult, None]:
        """Yield a call's progress, then its result. Never raises: a call that failed has a result, too.

        Closing the generator ends the call.

        Args:
            model: which one the tool is to ask, unless `TOOL_MODELS` names another.
        """
        ...


@dataclass(frozen=True, slots=True)
class Turn:
    """One question to be answered: all that an agent is given."""

    request: LLMRequest
    tools: tuple[ToolDefinition, ...] = ()  # those of the server that an agent may use
    rag_collection: str | None = None
    attachments: tuple[str, ...] = ()  # names of the files that came with the question


class Agent(Protocol):
    """Turns a question into a stream of events. Keeps no state of a request on itself."""

    def run(self, turn: Turn) -> AsyncGenerator[Event, None]:
        """Yield the run as `backend.core.events` describes it. Closing the generator ends all that it started."""
        ...
