"""Which sources an answer rests on, and where in it: from what tools brought and what the model then wrote.

A tool that works from sources returns them as `data["sources"]`, each with a `url`, a `title` (or a `document` and a
`page`) and a `number`, with which its own answer cites it: "... [2]". A page that was read is `data["page"]`.

A source is cited where the answer holds its number or its address. An answer that cites nothing rests, as a whole, on
all that was found for it.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from backend.core.events import Citation, Event, ToolFinished
from backend.utils.clean_text import clean_text

MAX_CITATIONS = 50
MAX_TITLE_CHARS = 300
MAX_URL_CHARS = 2_000

_MARK = re.compile(r"\[(\d{1,3}(?:\s*,\s*\d{1,3})*)\]")


@dataclass(frozen=True, slots=True)
class _Source:
    number: int | None
    url: str
    title: str


def find_citations(text: str, steps: Sequence[Event]) -> tuple[Citation, ...]:
    """The citations of an answer, in the order of the text; none where no tool brought a source.

    When several calls used a number for different sources, a mark with it cites them all: nobody can tell which.
    """
    sources = list(dict.fromkeys(_sources(steps)))
    if not sources or not text:
        return ()
    cited = sorted({*_cited_by_number(text, sources), *_cited_by_address(text, sources)}, key=_place)
    if not cited:
        cited = [Citation(source.url, source.title, 0, len(text)) for source in {s.url: s for s in sources}.values()]
    return tuple(cited[:MAX_CITATIONS])


def _cited_by_number(text: str, sources: Sequence[_Source]) -> Iterator[Citation]:
    for mark in _MARK.finditer(text):
        numbers = {int(number) for number in mark[1].split(",")}
        for source in sources:
            if source.number in numbers:
                yield Citation(source.url, source.title, mark.start(), mark.end())


def _cited_by_address(text: str, sources: Sequence[_Source]) -> Iterator[Citation]:
    for source in sources:
        start = text.find(source.url)
        if start >= 0:
            yield Citation(source.url, source.title, start, start + len(source.url))


def _place(citation: Citation) -> tuple[int, int, str]:
    return citation.start, citation.end, citation.url


def _sources(steps: Sequence[Event]) -> Iterator[_Source]:
    for step in steps:
        if not isinstance(step, ToolFinished) or not step.success:
            continue
        data = (step.result or {}).get("data")
        if not isinstance(data, dict):
            continue
        listed = data.get("sources")
        for entry in [*(listed if isinstance(listed, list) else ()), data.get("page")]:
            if source := _read_source(entry):
                yield source


def _read_source(entry: Any) -> _Source | None:
    """None for what has no address that could be shown: tools may return anything."""
    if not isinstance(entry, dict) or not isinstance(url := entry.get("url"), str):
        return None
    if not url.startswith(("https://", "http://", "/")) or len(url) > MAX_URL_CHARS:
        return None
    number = entry.get("number")
    title = clean_text(str(entry.get("title") or _place_in_document(entry) or url))[:MAX_TITLE_CHARS]
    return _Source(number if isinstance(number, int) else None, clean_text(url), title)


def _place_in_document(entry: dict[str, Any]) -> str:
    document, page = entry.get("document"), entry.get("page")
    return f"{document}, page {page}" if document and page else str(document or "")
