"""Markdown: its headings, code blocks and tables; all else is paragraphs as they are written."""

import re
from collections.abc import Iterable, Iterator

from backend.core.documents.document import Block, DocumentInfo, DocumentPart
from backend.core.documents.formats.source import Source
from backend.core.documents.formats.tables import table_blocks
from backend.core.documents.formats.text import MAX_PARAGRAPH, bounded_lines, count_lines, paragraphs

SHOWN = 6_000
MAX_HEADINGS = 30

_HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))??(?:[ \t]+#+)?[ \t]*")
_UNDERLINE = re.compile(r" {0,3}(=+|-{2,})[ \t]*")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_TABLE_RULE = re.compile(r"\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*")


def read(source: Source) -> Iterator[DocumentPart]:
    with source.open_text() as file:
        blocks = blocks_of(bounded_lines(file))
        first = next(blocks, None)
        title = first.text if first and first.kind == "heading" and first.level == 1 else source.name
        yield DocumentInfo(title)
        if first:
            yield first
        yield from blocks


def describe(source: Source) -> Iterator[str]:
    text = source.read_text(SHOWN)
    yield f"A Markdown text of {count_lines(source)} lines."
    if len(text) == SHOWN:
        headings: list[str] = []
        with source.open_text() as file:
            for block in blocks_of(bounded_lines(file)):
                if block.kind == "heading":
                    headings.append("#" * block.level + " " + block.text[:100])
                if len(headings) == MAX_HEADINGS or source.is_late:
                    break
        yield "\n".join(("Its headings:", *headings))
        yield "It begins:"
    yield text


def blocks_of(lines: Iterable[str]) -> Iterator[Block]:
    waiting: list[str] = []
    size = 0
    fence = ""
    for line in lines:
        found = _FENCE.match(line)
        if fence:
            if found and found[1].startswith(fence) and not line.strip().strip(fence[0]):
                yield Block("code", "\n".join(waiting))
                waiting, size, fence = [], 0, ""
                continue
        elif found:
            yield from _plain(waiting)
            waiting, size, fence = [], 0, found[1]
            continue
        elif heading := _HEADING.fullmatch(line):
            yield from _plain(waiting)
            waiting, size = [], 0
            if heading[2]:
                yield Block("heading", heading[2], level=len(heading[1]))
            continue
        elif waiting and (rule := _UNDERLINE.fullmatch(line)) and len(waiting) == 1 and waiting[0].strip():
            yield Block("heading", waiting[0].strip(), level=1 if rule[1][0] == "=" else 2)
            waiting, size = [], 0
            continue
        elif not line.strip():
            yield from _plain(waiting)
            waiting, size = [], 0
            continue
        waiting.append(line)
        size += len(line)
        if size > MAX_PARAGRAPH:
            yield from [Block("code", "\n".join(waiting))] if fence else _plain(waiting)
            waiting, size = [], 0
    if fence and waiting:
        yield Block("code", "\n".join(waiting))
    else:
        yield from _plain(waiting)


def _plain(lines: list[str]) -> Iterator[Block]:
    if len(lines) > 1 and "|" in lines[0] and _TABLE_RULE.fullmatch(lines[1]):
        yield from table_blocks([_cells(line) for line in (lines[0], *lines[2:])])
    else:
        for paragraph in paragraphs(lines):
            yield Block("paragraph", paragraph)


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]
