"""Keep the prompt within the model's window, and say so when something had to be left out.

No tokenizer is at hand for every backend, so the size of a prompt is estimated from its bytes. The estimate learns:
each finished call tells how many tokens its bytes were, and a backend that refuses a prompt as too long tells the
numbers. A backend never cuts on its own here (Ollama is told not to, llama.cpp does not).
"""

import dataclasses
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from backend.core.errors import ContextOverflow
from backend.core.events import BackendEvent, Completed, HistoryTrimmed
from backend.core.llm.base import LLMRequest, ModelStream
from backend.core.messages import ImagePart, Message

FIRST_GUESS = 0.2  # tokens for each byte: low, so that nothing is left out before the model's own count is known
MESSAGE_OVERHEAD_BYTES = 16  # role and separators
IMAGE_BYTES = 3_000  # about 600 tokens: what small vision models take
MAX_ATTEMPTS = 4
MIN_ANSWER_TOKENS = 256
MAX_MODELS_KNOWN = 256


class Fitted:
    """A `ModelStream` whose prompts fit: the oldest turns are left out first, and `HistoryTrimmed` tells how many.

    The system messages and the newest turn (from the last user message on) always stay; turns are left out whole, so
    that a tool call never loses its result.

    Args:
        context_tokens: the window of a model as its backend tells it; None where it does not.

    Raises:
        ContextOverflow: even the newest turn alone does not fit.
    """

    def __init__(self, inner: ModelStream, context_tokens: Callable[[str], int | None]) -> None:
        self._inner = inner
        self._context_tokens = context_tokens
        self._tokens_per_byte: dict[str, float] = {}

    async def stream(self, request: LLMRequest) -> AsyncGenerator[BackendEvent, None]:
        window = self._context_tokens(request.model)
        ratio = self._tokens_per_byte.get(request.model, FIRST_GUESS)
        for attempt in range(1, MAX_ATTEMPTS + 1):
            kept = _fit(request, window, ratio)
            size = prompt_bytes(kept)
            dropped = len(request.messages) - len(kept.messages)
            if dropped:
                yield HistoryTrimmed(dropped)
            try:
                async with aclosing(self._inner.stream(kept)) as events:
                    async for event in events:
                        if isinstance(event, Completed) and event.usage.prompt_tokens:
                            self._learn(request.model, event.usage.prompt_tokens / size)
                        yield event
                return
            except ContextOverflow as error:
                if attempt == MAX_ATTEMPTS or len(_turns(kept.messages)) <= 1:
                    raise
                window = error.context_tokens or window
                measured = error.prompt_tokens / size if error.prompt_tokens else ratio * 1.5
                ratio = max(measured, ratio * 1.1)  # always tighter than before
                self._learn(request.model, ratio)

    def _learn(self, model: str, ratio: float) -> None:
        if len(self._tokens_per_byte) >= MAX_MODELS_KNOWN:
            self._tokens_per_byte.clear()
        self._tokens_per_byte[model] = ratio


def prompt_bytes(request: LLMRequest) -> int:
    """About how many bytes of text the model will read. At least 1."""
    tools = sum(len(tool.name) + len(tool.description) + len(str(tool.parameters)) for tool in request.tools)
    raw = len((request.prompt or "").encode("utf-8", "replace"))
    return max(1, raw + tools + sum(map(_message_bytes, request.messages)))


def _message_bytes(message: Message) -> int:
    calls = sum(len(call.name) + len(call.arguments) for call in message.tool_calls)
    images = 0 if isinstance(message.content, str) else sum(isinstance(part, ImagePart) for part in message.content)
    text = message.text
    length = len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
    return MESSAGE_OVERHEAD_BYTES + length + calls + images * IMAGE_BYTES


def _fit(request: LLMRequest, window: int | None, tokens_per_byte: float) -> LLMRequest:
    if window is None:
        return request
    reserve = min(request.sampling.max_tokens or MIN_ANSWER_TOKENS, window // 2)
    budget = int((window - reserve) / tokens_per_byte)
    excess = prompt_bytes(request) - budget
    if excess <= 0:
        return request
    turns = _turns(request.messages)
    left_out = 0
    while excess > 0 and left_out < len(turns) - 1:
        excess -= sum(map(_message_bytes, turns[left_out]))
        left_out += 1
    gone = {id(message) for turn in turns[:left_out] for message in turn}
    kept = tuple(message for message in request.messages if id(message) not in gone)
    return dataclasses.replace(request, messages=kept)


def _turns(messages: Sequence[Message]) -> list[list[Message]]:
    """The conversation without its system messages, split before each user message."""
    turns: list[list[Message]] = []
    for message in messages:
        if message.role == "system":
            continue
        if message.role == "user" or not turns:
            turns.append([])
        turns[-1].append(message)
    return turns
