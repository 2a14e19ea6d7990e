"""DOCX: headings by their styles, paragraphs, tables and notes, in the order of the text."""

import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.etree.ElementTree import Element

from backend.core.documents.document import Block, DocumentInfo, DocumentPart
from backend.core.documents.formats.office import attribute, local, open_archive, parse, read_info, relations, walk
from backend.core.documents.formats.source import Source
from backend.core.documents.formats.tables import table_blocks

DOCUMENT = "word/document.xml"
NOTES = ("word/footnotes.xml", "word/endnotes.xml")
MAX_LEVEL = 9
MAX_BASES = 10  # styles that one is built on
MAX_HEADINGS = 30
SHOWN = 4_000

_HEADING_NAME = re.compile(r"heading (\d)")


def read(source: Source) -> Iterator[DocumentPart]:
    with open_archive(source) as archive:
        yield read_info(archive, source)
        levels = _heading_levels(archive)
        for name in (DOCUMENT, *NOTES):
            if name in archive.namelist():
                yield from _blocks(archive, name, levels)


def describe(source: Source) -> Iterator[str]:
    headings: list[str] = []
    texts: list[str] = []
    paragraphs = tables = shown = 0
    at_least = ""
    for part in read(source):
        if isinstance(part, DocumentInfo):
            yield "A Word document." + (f" Title: {part.title}." if part.title != source.name else "")
            if part.author:
                yield f"Author: {part.author}"
        elif isinstance(part, Block):
            if part.kind == "heading" and len(headings) < MAX_HEADINGS:
                headings.append("#" * part.level + " " + part.text[:100])
            paragraphs += part.kind == "paragraph"
            tables += part.kind == "table"
            if shown < SHOWN:
                texts.append(part.text)
                shown += len(part.text)
        if source.is_late:
            at_least = "at least "
            break
    yield f"It has {at_least}{paragraphs:,} paragraphs and {tables:,} small tables."
    if headings:
        yield "\n".join(("Its headings:", *headings))
    yield "\n".join(("It begins:", *texts))


def _heading_levels(archive: zipfile.ZipFile) -> dict[str, int]:
    """Id of a style -> the level of the headings that it makes."""
    name = next((path for kind, path in relations(archive, DOCUMENT).values() if kind == "styles"), "word/styles.xml")
    if name not in archive.namelist():
        return {}
    levels: dict[str, int] = {}
    bases: dict[str, str] = {}
    for style in parse(archive, name):
        identity = attribute(style, "styleId")
        if local(style) != "style" or identity is None:
            continue
        for element in style.iter():
            value = attribute(element, "val") or ""
            if local(element) == "basedOn":
                bases[identity] = value
            elif local(element) == "outlineLvl" and value.isdigit() and int(value) < MAX_LEVEL:
                levels.setdefault(identity, int(value) + 1)
            elif local(element) == "name" and value.lower() == "title":
                levels[identity] = 1
            elif local(element) == "name" and (found := _HEADING_NAME.match(value.lower())):
                levels[identity] = int(found[1])
    for identity, base in bases.items():
        for _ in range(MAX_BASES):
            if identity in levels or not base:
                break
            if base in levels:
                levels[identity] = levels[base]
            base = bases.get(base, "")
    return levels


@dataclass(slots=True)
class _Table:
    rows: list[list[str]] = field(default_factory=list)
    cell: list[str] = field(default_factory=list)


def _blocks(archive: zipfile.ZipFile, name: str, levels: dict[str, int]) -> Iterator[Block]:
    tables: list[_Table] = []  # the one that is being read, and those around it
    repeated = 0  # depth in what says once more, for old programs, what was said before
    for event, element in walk(archive, name):
        kind = local(element)
        if event == "start":
            repeated += kind == "Fallback"
            if kind == "tbl":
                tables.append(_Table())
            elif kind == "tr" and tables:
                tables[-1].rows.append([])
            elif kind == "tc" and tables:
                tables[-1].cell = []
            continue
        if kind == "Fallback":
            repeated -= 1
            element.clear()
        elif kind == "p":
            text = "" if repeated else _text_of(element).strip()
            if text and tables:
                tables[-1].cell.append(text)
            elif text:
                level = _level_of(element, levels)
                yield Block("heading" if level else "paragraph", text, level=level)
            element.clear()
        elif kind == "tc" and tables and tables[-1].rows:
            tables[-1].rows[-1].append("\n".join(tables[-1].cell))
        elif kind == "tbl" and tables:
            rows = tables.pop().rows
            if tables:  # one in a cell of another is a part of that cell
                tables[-1].cell += [" | ".join(row) for row in rows]
            else:
                yield from table_blocks(rows)
            element.clear()


def _text_of(paragraph: Element) -> str:
    pieces: list[str] = []
    for element in paragraph.iter():
        match local(element):
            case "t":
                pieces.append(element.text or "")
            case "tab":
                pieces.append("\t")
            case "br" | "cr":
                pieces.append("\n")
    return "".join(pieces)


def _level_of(paragraph: Element, levels: dict[str, int]) -> int:
    for properties in paragraph:
        if local(properties) == "pPr":
            for element in properties:
                value = attribute(element, "val") or ""
                if local(element) == "pStyle" and value in levels:
                    return levels[value]
                if local(element) == "outlineLvl" and value.isdigit() and int(value) < MAX_LEVEL:
                    return int(value) + 1
    return 0
