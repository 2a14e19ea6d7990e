"""One model call of a run: its deltas go on as far as they may be shown, and what was said is kept."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from backend.agents.gate import Gate
from backend.agents.guards import Budget, goes_in_circles
from backend.agents.thoughts import ThoughtReader
from backend.core.events import (
    Completed,
    Event,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from backend.core.llm.base import LLMRequest, ModelStream
from backend.core.llm.wire import new_call_id
from backend.core.messages import ToolCall
from backend.utils.clean_text import clean_text

MAX_THOUGHT_CHARS = 40_000  # without a word of an answer
LOOK_EVERY_CHARS = 400


@dataclass(slots=True)
class Said:
    """What a model said in one call. `broken_off`: why it was stopped before its end, as the rest of "It was ..."."""

    text: str = ""
    thought: str = ""
    calls: tuple[ToolCall, ...] = ()
    finish_reason: FinishReason | None = None
    broken_off: str = ""
    usage: Usage = Usage()

    def clear(self) -> None:
        """Forget an attempt that failed."""
        self.text = self.thought = self.broken_off = ""
        self.calls, self.finish_reason, self.usage = (), None, Usage()


async def listen(
    llm: ModelStream,
    request: LLMRequest,
    budget: Budget,
    said: Said,
    gate: Gate | ThoughtReader | None,
    *,
    is_last: bool,
) -> AsyncGenerator[Event, None]:
    """Make a call, and put what it brings into `said`.

    Args:
        gate: decides what of the text is shown, and as what; None shows nothing of it.
        is_last: it may take the time that is kept for the last words, as an answer may that has begun.

    Raises:
        ApiError: the call failed; what was said until then is in `said`.
    """
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[tuple[str, list[str]]] = []  # name, pieces of the arguments
    size = looked_at = tokens = 0
    try:
        async with aclosing(llm.stream(request)) as events:
            while True:
                last_words = is_last or (gate is not None and gate.has_let_through)
                try:
                    async with asyncio.timeout_at(budget.until if last_words else budget.work_until):
                        event = await anext(events)
                except StopAsyncIteration:
                    break
                except TimeoutError:
                    said.broken_off = "stopped, because the time for one question is over"
                    break
                match event:
                    case TextDelta(text):
                        tokens, size = tokens + 1, size + len(text)
                        texts.append(text)
                        if gate and (shown := gate.feed(text)):
                            yield gate.shows(shown)
                    case ReasoningDelta(text):
                        tokens, size = tokens + 1, size + len(text)
                        thoughts.append(text)
                        yield event
                    case ToolCallDelta():
                        tokens += 1
                        if event.index == len(calls):
                            calls.append((event.name or "", []))
                        calls[event.index][1].append(event.arguments)
                    case Completed(reason, spent):
                        said.finish_reason, said.usage = reason, spent
                    case _:
                        yield event
                if size - looked_at >= LOOK_EVERY_CHARS:
                    looked_at = size
                    if goes_in_circles("".join((texts or thoughts)[-LOOK_EVERY_CHARS * 2 :])):
                        said.broken_off = "stopped, because the model repeated itself over and over"
                        break
                    if not texts and size > MAX_THOUGHT_CHARS:
                        said.broken_off = "stopped, because the model thought without end"
                        break
    finally:
        # A call that was broken off tells no usage: what is known of it are its deltas, about a token each.
        budget.spend(said.usage if said.finish_reason else Usage(0, tokens))
        said.text, said.thought = clean_text("".join(texts)), clean_text("".join(thoughts))
        # Ids of our own: a vendor's may come again in the next step, and each call of a run is told apart by its id.
        said.calls = tuple(
            ToolCall(new_call_id(), clean_text(name), clean_text("".join(pieces))) for name, pieces in calls
        )
