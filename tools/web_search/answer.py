"""From results to an answer: written by a model, with the numbers of its sources, and streamed while it is written."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from backend.core.contracts import ToolContext
from backend.core.errors import ApiError, ContextOverflow
from backend.core.events import BackendSelected, Completed, TextDelta, Usage
from backend.core.llm.base import LLMRequest, Sampling
from backend.core.messages import Message
from backend.core.prompts import Prompt
from backend.core.untrusted import mark_as_data, shorten
from backend.utils.clean_text import clean_text

from .search import SearchResult

SAMPLING = Sampling(temperature=0.2, max_tokens=2048)
MATERIAL_CHARS = (12_000, 4_000, 1_500)  # of all results together; less, when a model's window is small
PIECE_CHARS = 80  # what is streamed at once: readers show each piece in a line of its own

_CITATION = re.compile(r" ?\[(\d{1,3})\]")
_END_OF_SENTENCE = re.compile(r"(?<=[.!?。！？\n])\s*$")

Progress = Callable[[str, dict[str, Any]], Awaitable[None]]


@dataclass(slots=True)
class Written:
    """What a model wrote. `trouble` tells why it is not whole, or why there is nothing."""

    text: str = ""
    trouble: str | None = None
    model: str | None = None
    usage: Usage = Usage()


async def write_answer(
    prompt: Prompt, question: str, results: Sequence[SearchResult], context: ToolContext, *, tool: str, within_s: float
) -> Written:
    """Never raises for a model that fails: the results are worth something without it."""
    written = Written()
    try:
        async with asyncio.timeout(within_s):
            for size in MATERIAL_CHARS:
                try:
                    await _write(_request(prompt, question, results, context, tool, size), context, written)
                    break
                except ContextOverflow:
                    if size == MATERIAL_CHARS[-1]:
                        raise
    except TimeoutError:
        written.trouble = "The model took too long to write an answer."
    except ApiError as error:
        written.trouble = f"No model could write an answer: {error.message}"
    written.text = _drop_unknown(written.text.strip(), len(results))
    if not written.text and not written.trouble:
        written.trouble = "The model wrote nothing."
    return written


def list_sources(text: str, results: Sequence[SearchResult]) -> str:
    """The sources that the text cites, one a line; all of them, where it cites none."""
    cited = {int(number) for number in _CITATION.findall(text)}
    return "\n".join(
        f"[{number}] {result.title}: {result.url}"
        for number, result in enumerate(results, 1)
        if number in cited or not cited
    )


def list_results(results: Sequence[SearchResult]) -> str:
    """The results alone, for a reader."""
    return "\n\n".join(
        f"[{number}] {result.title}\n{result.url}\n{result.snippet}".rstrip()
        for number, result in enumerate(results, 1)
    )


def _request(
    prompt: Prompt, question: str, results: Sequence[SearchResult], context: ToolContext, tool: str, size: int
) -> LLMRequest:
    each = size // len(results)
    material = "\n\n".join(
        mark_as_data(
            f"{result.title}\n{result.url}{_date(result)}\n{shorten(result.snippet, each)}", f"result [{number}]"
        )
        for number, result in enumerate(results, 1)
    )
    today = datetime.now(UTC).strftime("%A, %d %B %Y")
    messages = (
        Message("system", prompt.fill(today=today)),
        Message("user", f"{material}\n\nThe question: {clean_text(question)}"),
    )
    return LLMRequest(context.model, messages, SAMPLING, context=context.call_context(tool))


def _date(result: SearchResult) -> str:
    return f"\nPublished: {result.published}" if result.published else ""


async def _write(request: LLMRequest, context: ToolContext, written: Written) -> None:
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
    """The text without citations of results that there are not."""
    return _CITATION.sub(lambda found: found.group() if 1 <= int(found[1]) <= known else "", text)
