"""Short ways to ask a backend and to read its events."""

from typing import Any

from backend.core.events import BackendEvent, ReasoningDelta, TextDelta
from backend.core.llm.base import LLMRequest, ModelStream, ToolDefinition
from backend.core.llm.http import Timeouts
from backend.core.messages import Message

QUICK = Timeouts(connect_s=1.0, first_token_s=0.6, idle_s=0.6)
WEATHER = ToolDefinition("weather", "The weather of a place", {"type": "object", "properties": {"place": {}}})
NEWS = ToolDefinition("news")


def ask(*messages: Message, model: str = "smollm2:135m", **fields: Any) -> LLMRequest:
    return LLMRequest(model, messages or (Message("user", "Hi there"),), **fields)


async def collect(backend: ModelStream, request: LLMRequest, events: list[BackendEvent]) -> None:
    """Read the stream into `events`, so that they can be looked at when it fails."""
    async for event in backend.stream(request):
        events.append(event)


async def events_of(backend: ModelStream, request: LLMRequest) -> list[BackendEvent]:
    events: list[BackendEvent] = []
    await collect(backend, request, events)
    return events


def text_of(events: list[BackendEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def reasoning_of(events: list[BackendEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, ReasoningDelta))
