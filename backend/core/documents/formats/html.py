"""HTML: its words in order, without scripts. Nothing that it names is fetched."""

from collections.abc import Iterator
from typing import Any

from lxml import etree

from backend.core.documents.document import Block, DocumentInfo, DocumentPart
from backend.core.documents.formats.source import Source, Unreadable
from backend.core.documents.formats.tables import table_blocks

FED = 2**16  # characters at a time
HEADINGS = {f"h{level}": level for level in range(1, 7)}
SILENT = frozenset({"script", "style", "template", "noscript", "svg", "math", "iframe", "object", "select", "head"})
BREAKING = frozenset(
    {"address", "article", "aside", "blockquote", "body", "caption", "dd", "details", "div", "dl", "dt", "fieldset"}
    | {"figcaption", "figure", "footer", "form", "header", "hr", "li", "main", "nav", "ol", "p", "pre", "section"}
    | {"summary", "ul"}
)
MAX_DEPTH = 1_000
MAX_HEADINGS = 30
SHOWN = 6_000


def read(source: Source) -> Iterator[DocumentPart]:
    blocks = _Blocks()
    parser = etree.HTMLParser(target=blocks, no_network=True, remove_comments=True, remove_pis=True)
    told = False
    with source.open_text() as file:
        while text := file.read(FED):
            parser.feed(text)
            if not told and (blocks.ready or blocks.in_body):
                told = True
                yield DocumentInfo(blocks.title or source.name)
            yield from blocks.take()
    parser.close()
    if not told:
        yield DocumentInfo(blocks.title or source.name)
    yield from blocks.take()


def describe(source: Source) -> Iterator[str]:
    headings: list[str] = []
    texts: list[str] = []
    size = 0
    for part in read(source):
        if isinstance(part, DocumentInfo):
            yield f"An HTML page: {part.title}"
        elif isinstance(part, Block):
            if part.kind == "heading" and len(headings) < MAX_HEADINGS:
                headings.append("#" * part.level + " " + part.text[:100])
            if size < SHOWN:
                texts.append(part.text)
                size += len(part.text)
        if source.is_late:
            break
    if headings:
        yield "\n".join(("Its headings:", *headings))
    yield "\n".join(("Its text:", *texts))


class _Blocks:
    """What the parser tells, put together to blocks."""

    def __init__(self) -> None:
        self.title = ""
        self.in_body = False
        self.ready: list[Block] = []
        self._text: list[str] = []
        self._depth = 0
        self._silent = 0
        self._titled = False
        self._pre = 0
        self._level = 0
        self._tables = 0
        self._rows: list[list[str]] = []
        self._cell: list[str] | None = None

    def take(self) -> list[Block]:
        taken, self.ready = self.ready, []
        return taken

    def start(self, tag: str, _attributes: Any) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:  # the parser's time grows with the square of it
            raise Unreadable("It is nested too deeply.")
        self.in_body = self.in_body or tag == "body"
        if tag == "title" and not self._tables:
            self._titled = True
        if tag in SILENT:
            self._silent += 1
        elif tag == "br":
            self.data("\n")
        elif tag == "table":
            if not self._tables:
                self._flush()
            self._tables += 1
        elif tag == "tr" and self._tables == 1:
            self._rows.append([])
        elif tag in {"td", "th"} and self._tables == 1 and self._rows:
            self._cell = []
        elif tag in HEADINGS:
            self._flush()
            self._level = HEADINGS[tag]
        elif tag in BREAKING:
            self._flush()
            self._pre += tag == "pre"

    def end(self, tag: str) -> None:
        self._depth -= 1
        if tag == "title":
            self._titled = False
        if tag in SILENT:
            self._silent = max(0, self._silent - 1)
        elif tag == "table":
            self._tables = max(0, self._tables - 1)
            if not self._tables:
                self.ready += table_blocks(self._rows)
                self._rows, self._cell = [], None
        elif tag in {"td", "th"} and self._tables == 1 and self._cell is not None:
            self._rows[-1].append(" ".join("".join(self._cell).split()))
            self._cell = None
        elif tag in HEADINGS or tag in BREAKING:
            self._flush()
            self._level = 0
            self._pre = max(0, self._pre - (tag == "pre"))

    def data(self, text: str) -> None:
        if self._titled:
            self.title = (self.title + text).strip()
        elif self._silent:
            return
        elif self._tables:
            if self._cell is not None:
                self._cell.append(text)
        else:
            self._text.append(text)

    def close(self) -> None:
        if self._tables:  # it is never closed
            self.ready += table_blocks(self._rows)
        self._flush()

    def _flush(self) -> None:
        if self._tables:  # paragraphs in a cell stay in it
            if self._cell is not None:
                self._cell.append(" ")
            return
        joined = "".join(self._text)
        self._text = []
        if self._pre:
            if joined.strip():
                self.ready.append(Block("code", joined.strip("\n")))
        elif text := "\n".join(line for line in (" ".join(part.split()) for part in joined.split("\n\n")) if line):
            self.ready.append(Block("heading" if self._level else "paragraph", text, level=self._level))
