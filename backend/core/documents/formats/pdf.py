"""PDF, page by page, through pdfium. Headings are those of its outline; pages that are scans are read by OCR."""

import itertools
import math
import re
from collections.abc import Iterator
from contextlib import closing

import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c

from backend.core.documents.document import Block, DocumentInfo, DocumentPart, PageRead, Problem
from backend.core.documents.formats import ocr
from backend.core.documents.formats.source import Source, Unreadable

MAX_OUTLINE = 5_000
MAX_LEVEL = 6
MAX_PAGE_CHARACTERS = 500_000
MAX_TOC_SHOWN = 20
SHOWN = 3_000
SHOWN_PAGES = 5
OCR_DPI = 200
MAX_OCR_PIXELS = 16_000_000

_ITEM = re.compile(r"[•‣◦▪–*-] |\d{1,2}[.)] ")

Outline = dict[int, list[tuple[int, str]]]  # index of a page -> headings that begin there, with their levels


def read(source: Source) -> Iterator[DocumentPart]:
    with closing(_open(source)) as document:
        pages = len(document)
        yield _info(source, document)
        outline = _outline(document)
        for index in range(source.first_page - 1, pages):
            try:
                yield from _read_page(document, index, outline)
            except (pdfium.PdfiumError, Unreadable) as error:
                why = str(error) if isinstance(error, Unreadable) else "It is broken."
                yield Problem(f"The page cannot be read. {why}", index + 1)
            yield PageRead(index + 1, pages)


def describe(source: Source) -> Iterator[str]:
    with closing(_open(source)) as document:
        info = _info(source, document)
        yield f"A PDF of {info.pages:,} pages."
        if info.title != source.name:
            yield f"Title: {info.title}"
        if info.author:
            yield f"Author: {info.author}"
        headings = itertools.chain.from_iterable(entries for _, entries in sorted(_outline(document).items()))
        if shown := ["  " * (level - 1) + title for level, title in itertools.islice(headings, MAX_TOC_SHOWN)]:
            yield "\n".join(("Its outline:", *shown))
        text = ""
        for index in range(min(len(document), SHOWN_PAGES)):
            if len(text) < SHOWN and not source.is_late:
                text += _text_of(document, index) + "\n"
        if text.strip():
            yield f"It begins:\n{text[:SHOWN]}"
        else:
            yield "Its first pages hold no text: they may be scans."


def _open(source: Source) -> pdfium.PdfDocument:
    try:
        document = pdfium.PdfDocument(source.path)
    except pdfium.PdfiumError as error:
        if error.err_code == pdfium_c.FPDF_ERR_PASSWORD:
            raise Unreadable("It is encrypted: it needs a password.") from None
        raise Unreadable("It is a broken PDF.") from None
    if not len(document):
        document.close()
        raise Unreadable("It is a PDF without pages.")
    return document


def _info(source: Source, document: pdfium.PdfDocument) -> DocumentInfo:
    told = document.get_metadata_dict(skip_empty=True)
    return DocumentInfo(told.get("Title", "").strip() or source.name, told.get("Author"), len(document))


def _outline(document: pdfium.PdfDocument) -> Outline:
    found: Outline = {}
    for bookmark in itertools.islice(document.get_toc(max_depth=MAX_LEVEL), MAX_OUTLINE):
        target = bookmark.get_dest()
        title = " ".join(bookmark.get_title().split())
        if target is not None and target.get_index() is not None and title:
            found.setdefault(target.get_index(), []).append((bookmark.level + 1, title))
    return found


def _read_page(document: pdfium.PdfDocument, index: int, outline: Outline) -> Iterator[DocumentPart]:
    number = index + 1
    text = _text_of(document, index)
    if not text.strip():
        text = _recognise(document, index)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    for level, title in outline.get(index, ()):
        place = _find_heading(lines, title)
        if place is not None:
            yield from _paragraphs(lines[: place.start], number)
            lines = lines[place.stop :]
        yield Block("heading", title, number, level)
    yield from _paragraphs(lines, number)


def _text_of(document: pdfium.PdfDocument, index: int) -> str:
    with closing(document[index]) as page, closing(page.get_textpage()) as textpage:
        text: str = textpage.get_text_range(0, min(textpage.count_chars(), MAX_PAGE_CHARACTERS))
    # pdfium marks a hyphen at which a word was divided
    return text.replace("\ufffe\r\n", "").replace("\ufffe", "").replace("\0", "")


def _recognise(document: pdfium.PdfDocument, index: int) -> str:
    """The text of a page that is a picture; nothing for one that is empty.

    Raises:
        Unreadable
    """
    with closing(document[index]) as page:
        if not pdfium_c.FPDFPage_CountObjects(page):
            return ""
        if not ocr.find_program():
            raise Unreadable("It holds no text: it may be a scan, and tesseract is not installed on the server.")
        width, height = page.get_size()
        scale = min(OCR_DPI / 72, math.sqrt(MAX_OCR_PIXELS / max(1.0, width * height)))
        with closing(page.render(scale=scale, grayscale=True)) as bitmap:
            return ocr.recognise(bitmap.to_pil())


def _find_heading(lines: list[str], title: str) -> range | None:
    """The lines that hold a heading, which may have a number before it, or go over two of them."""
    wanted = _letters(title)
    for begin in range(len(lines)):
        joined = ""
        for end in range(begin, min(begin + 3, len(lines))):
            joined += _letters(lines[end])
            if joined == wanted or (joined.endswith(wanted) and joined[: -len(wanted)].isdigit()):
                return range(begin, end + 1)
    return None


def _letters(text: str) -> str:
    return "".join(character for character in text.casefold() if character.isalnum())


def _paragraphs(lines: list[str], page: int) -> Iterator[Block]:
    """Lines joined to paragraphs.

    One ends at an empty line, before an item of a list, and where a sentence ends well before the margin.
    """
    width = sorted(map(len, lines))[len(lines) * 9 // 10] if lines else 0
    waiting: list[str] = []
    for line in lines:
        if waiting and (not line or _ITEM.match(line) or _ends(waiting[-1], width)):
            yield Block("paragraph", "\n".join(waiting), page)
            waiting = []
        if line:
            waiting.append(line)
    if waiting:
        yield Block("paragraph", "\n".join(waiting), page)


def _ends(line: str, width: int) -> bool:
    return len(line) < width * 0.8 and line[-1] in ".:!?"
