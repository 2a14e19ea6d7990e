"""PPTX: each slide with its title, its texts, its tables and the speaker's notes."""

import zipfile
from collections.abc import Iterator
from xml.etree.ElementTree import Element

from backend.core.documents.document import Block, DocumentInfo, DocumentPart, PageRead, Problem
from backend.core.documents.formats.office import attribute, local, open_archive, parse, read_info, relations
from backend.core.documents.formats.source import Source, Unreadable
from backend.core.documents.formats.tables import table_blocks

PRESENTATION = "ppt/presentation.xml"
TITLES = frozenset({"title", "ctrTitle"})
FURNITURE = frozenset({"sldNum", "dt", "ftr", "hdr", "sldImg"})  # the same on every slide
SHOWN = 4_000


def read(source: Source) -> Iterator[DocumentPart]:
    with open_archive(source) as archive:
        slides = _slides(archive)
        yield read_info(archive, source, len(slides))
        for number, name in enumerate(slides[source.first_page - 1 :], source.first_page):
            try:
                yield from _read_slide(archive, name, number)
            except (Unreadable, KeyError, SyntaxError, zipfile.BadZipFile):  # a SyntaxError is XML's
                yield Problem("The slide cannot be read: it is broken.", number)
            yield PageRead(number, len(slides))


def describe(source: Source) -> Iterator[str]:
    texts: list[str] = []
    shown = 0
    for part in read(source):
        if isinstance(part, DocumentInfo):
            yield f"A presentation of {part.pages} slides." + (
                f" Title: {part.title}." if part.title != source.name else ""
            )
            if part.author:
                yield f"Author: {part.author}"
        elif isinstance(part, Block):
            texts.append(f"Slide {part.page}: {part.text}" if part.kind == "heading" else part.text)
            shown += len(part.text)
        if shown > SHOWN or source.is_late:
            break
    yield "\n".join(("Its texts:", *texts))


def _slides(archive: zipfile.ZipFile) -> list[str]:
    """The members that are slides, in their order."""
    known = relations(archive, PRESENTATION)
    names = set(archive.namelist())
    wanted = [
        known.get(next((value for key, value in element.attrib.items() if key.endswith("}id")), ""), ("", ""))[1]
        for element in parse(archive, PRESENTATION).iter()
        if local(element) == "sldId"
    ]
    return [name for name in wanted if name in names]


def _read_slide(archive: zipfile.ZipFile, name: str, number: int) -> Iterator[Block]:
    yield from _shapes(parse(archive, name), number)
    for kind, path in relations(archive, name).values():
        if kind == "notesSlide" and path in archive.namelist():
            notes = [block.text for block in _shapes(parse(archive, path), number)]
            if notes:
                yield Block("paragraph", "Notes: " + "\n".join(notes), number)


def _shapes(slide: Element, number: int) -> Iterator[Block]:
    waiting = [slide]  # a stack in the order of the file: a group's shapes come where the group is
    while waiting:
        element = waiting.pop()
        kind = local(element)
        if kind == "sp":
            yield from _shape(element, number)
        elif kind == "tbl":
            rows = [[_text_of(cell) for cell in row if local(cell) == "tc"] for row in element if local(row) == "tr"]
            yield from table_blocks(rows, number)
        elif kind != "Fallback":  # which says once more what was said before
            waiting.extend(reversed(element))


def _shape(shape: Element, number: int) -> Iterator[Block]:
    place = next((attribute(element, "type") or "body" for element in shape.iter() if local(element) == "ph"), "")
    if place in FURNITURE:
        return
    if text := _text_of(shape):
        if place in TITLES:
            yield Block("heading", " ".join(text.split()), number, 1)
        else:
            yield Block("paragraph", text, number)


def _text_of(element: Element) -> str:
    lines: list[str] = []
    for paragraph in element.iter():
        if local(paragraph) == "p":
            pieces = (
                "\n" if local(run) == "br" else run.text or "" for run in paragraph.iter() if local(run) in {"t", "br"}
            )
            lines.append("".join(pieces).strip())
    return "\n".join(filter(None, lines))
