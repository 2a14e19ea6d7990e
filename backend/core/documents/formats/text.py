"""Plain text: paragraphs between empty lines."""

from collections.abc import Iterable, Iterator
from typing import TextIO

from backend.core.documents.document import Block, DocumentInfo, DocumentPart
from backend.core.documents.formats.source import Source

MAX_PARAGRAPH = 20_000  # characters: what has no empty lines is cut, so that little of it is in memory
SHOWN = 8_000
COUNTED_BLOCK = 2**20


def read(source: Source) -> Iterator[DocumentPart]:
    yield DocumentInfo(source.name)
    with source.open_text() as file:
        for paragraph in paragraphs(bounded_lines(file)):
            yield Block("paragraph", paragraph)


def describe(source: Source) -> Iterator[str]:
    text = source.read_text(SHOWN)
    if not text.strip():
        yield "It is empty."
        return
    yield f"A text of {count_lines(source)} lines. It begins:" if len(text) == SHOWN else "The text:"
    yield text


def bounded_lines(file: TextIO) -> Iterator[str]:
    """Lines without their ends, long ones in pieces."""
    for line in iter(lambda: file.readline(MAX_PARAGRAPH), ""):
        yield line.rstrip("\r\n")


def paragraphs(lines: Iterable[str]) -> Iterator[str]:
    waiting: list[str] = []
    size = 0
    for line in lines:
        if waiting and (not line.strip() or size > MAX_PARAGRAPH):
            yield "\n".join(waiting)
            waiting, size = [], 0
        if line.strip():
            waiting.append(line)
            size += len(line)
    if waiting:
        yield "\n".join(waiting)


def count_lines(source: Source) -> str:
    """How many lines there are, or how many at least, when there is no time to count them all."""
    count = 0
    last = b"\n"  # an empty file has no line that lacks its end
    with source.path.open("rb", buffering=0) as file:
        while block := file.read(COUNTED_BLOCK):
            count += block.count(b"\n")
            last = block[-1:]
            if source.is_late:
                return f"at least {count:,}"
    if not last.endswith(b"\n"):
        count += 1
    return f"{count:,}"
