"""From sources to an answer: written by a model, with the numbers of its sources, and streamed while it is written.

Sources are what strangers wrote: a model gets them as data. What it cites and there is not, is taken out again.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass
from typing import Any

from backend.core.contracts import ToolContext, ToolResult
from backend.core.errors import ApiError, ContextOverflow
from backend.core.events import BackendSelected, Completed, TextDelta, Usage
from backend.core.llm.base import LLMRequest, Sampling
from backend.core.messages import Message
from backend.core.untrusted import mark_as_data, shorten
from backend.utils.clean_text import clean_text

SAMPLING = Sampling(temperature=0.2, max_tokens=2048)
MATERIAL_CHARS = (12_000, 4_000, 1_500)  # of all sources together; less, when a model's window is small
PIECE_CHARS = 80  # what is streamed at once: readers show each piece in a line of its own

_CITATION = re.compile(r" ?\[(\d{1,3})\]")
_END_OF_SENTENCE = re.compile(r"(?<=[.!?。！？\n])\s*$")

Progress = Callable[[str, dict[str, Any]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Source:
    """Its number is its place in the list, from 1."""

    name: str  # in one line, for readers
    heading: str  # what a model reads before the text: where and when it was written
    text: str


@dataclass(slots=True)
class _Written:
    """What a model wrote. `trouble` tells why it is not whole, or why there is nothing."""

    text: str = ""
    trouble: str | None = None
    model: str | None = None
    usage: Usage = Usage()


async def answer_from(
    sources: Sequence[Source],
    question: str,
    system: str,
    data: dict[str, Any],
    context: ToolContext,
    *,
    tool: str,
    within_s: float,
) -> ToolResult:
    """An answer with the sources that it cites. A model that fails leaves the sources, which are worth something.

    Args:
        system: the prompt, which tells a model how to answer and to cite.
        data: of the result.
    """
    written = await _write_answer(sources, question, system, context, tool, within_s)
    metadata: dict[str, Any] = {"model": written.model, "usage": asdict(written.usage)}
    if written.trouble:
        metadata["trouble"] = written.trouble
    if not written.text:
        text = f"{written.trouble} This is what was found:\n\n{list_all(sources)}"
        return ToolResult(True, text, data, metadata)
    parts = [written.text, f"Sources:\n{_list_cited(written.text, sources)}"]
    if written.trouble:
        parts.insert(1, f"(The answer broke off. {written.trouble})")
    return ToolResult(True, "\n\n".join(parts), data, metadata)


def list_all(sources: Sequence[Source]) -> str:
    """The sources alone, for a reader."""
    return "\n\n".join(
        f"[{number}] {source.heading}\n{source.text}".rstrip() for number, source in enumerate(sources, 1)
    )


def _list_cited(text: str, sources: Sequence[Source]) -> str:
    """The sources that the text cites, one a line; all of them, where it cites none."""
    cited = {int(number) for number in _CITATION.findall(text)}
    return "\n".join(
        f"[{number}] {source.name}" for number, source in enumerate(sources, 1) if number in cited or not cited
    )


async def _write_answer(
    sources: Sequence[Source], question: str, system: str, context: ToolContext, tool: str, within_s: float
) -> _Written:
    """Never raises for a model that fails."""
    written = _Written()
    try:
        async with asyncio.timeout(within_s):
            for size in MATERIAL_CHARS:
                try:
                    await _write(_request(sources, question, system, context, tool, size), context, written)
                    break
                except ContextOverflow:
                    if size == MATERIAL_CHARS[-1]:
                        raise
    except TimeoutError:
        written.trouble = "The model took too long to write an answer."
    except ApiError as error:
        written.trouble = f"No model could write an answer: {error.message}"
    written.text = _drop_unknown(written.text.strip(), len(sources))
    if not written.text and not written.trouble:
        written.trouble = "The model wrote nothing."
    return written


def _request(
    sources: Sequence[Source], question: str, system: str, context: ToolContext, tool: str, size: int
) -> LLMRequest:
    each = size // len(sources)
    material = "\n\n".join(
        mark_as_data(f"{source.heading}\n{shorten(source.text, each)}", f"source [{number}]")
        for number, source in enumerate(sources, 1)
    )
    messages = (
        Message("system", system),
        Message("user", f"{material}\n\nThe question: {clean_text(question)}"),
    )
    return LLMRequest(context.model, messages, SAMPLING, context=context.call_context(tool))


async def _write(request: LLMRequest, context: ToolContext, written: _Written) -> None:
    waiting = ""
    async with aclosing(context.llm.stream(request)) as events:
        async for event in events:
            match event:
                case TextDelta(text):
                    written.text += text
                    waiting += text
                    if len(waiting) >= PIECE_CHARS and (waiting[-1].isspace() or _END_OF_SENTENCE.search(waiting)):
                        await _tell(waiting, context.progress)
                        waiting = ""
                case BackendSelected(_, model):
                    written.model = model
                case Completed(_, usage):
                    written.usage = usage
    await _tell(waiting, context.progress)


async def _tell(piece: str, progress: Progress) -> None:
    if piece:
        await progress(piece.strip(), {"delta": piece})


def _drop_unknown(text: str, known: int) -> str:
    """The text without citations of sources that there are not."""
    return _CITATION.sub(lambda found: found.group() if 1 <= int(found[1]) <= known else "", text)
