"""Documents cut into chunks along their structure.

A heading begins a section, and no chunk reaches from one section into another. In a section, blocks are put together
until the next one does not fit. Only a block that is longer than a chunk is cut: a paragraph between sentences, a table
between rows (its first line is repeated), code between lines, and what has no such place between words. Where prose
goes on, a chunk begins with the last sentences of the one before it (`overlap` tells how much of it that is).

What the model reads of a chunk is its section and its text (`Chunk.embedded`), and both together never exceed the
window. Blocks: `feed` and `finish` are for threads.
"""

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import takewhile

from backend.core.documents.document import Block, BlockKind

from .tokens import Span, TokenCounter

OVERLAP_SHARE = 8  # one part of so many of a chunk may be repeated from the one before it
SECTION_SHARE = 4  # one part of so many of a chunk may be its headings
MAX_HEADING = 300  # characters
SEPARATOR = " > "

_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+|(?<=[。！？])|\n+")
_LINE_END = re.compile(r"\n")


@dataclass(frozen=True, slots=True)
class Chunk:
    text: str
    page: int | None
    last_page: int | None
    section: str
    overlap: int = 0  # characters at its beginning that the chunk before it ends with

    @property
    def embedded(self) -> str:
        return f"{self.section}\n{self.text}" if self.section else self.text


@dataclass(frozen=True, slots=True)
class _Piece:
    """What is not cut any further."""

    text: str
    cost: int  # tokens
    kind: BlockKind
    page: int | None
    joint: str  # what stands between it and the piece before it
    head: str = ""  # the first line of the table that it is a part of


class Chunker:
    """Takes a document's blocks in order, and gives its chunks. One for each document.

    Args:
        size: tokens of a chunk, its section included and the model's own marks not.
    """

    def __init__(self, counter: TokenCounter, size: int) -> None:
        self._counter = counter
        self._size = size
        self._headings: list[tuple[int, str]] = []  # level and text, from the outermost to the innermost
        self._section, self._room = "", size
        self._pieces: list[_Piece] = []
        self._cost = 0
        self._repeated = 0  # pieces at the beginning that are the end of the chunk before
        self._bare: Block | None = None  # a heading that nothing has followed yet

    def feed(self, blocks: Iterable[Block]) -> Iterator[Chunk]:
        blocks = [block for block in blocks if block.text.strip()]
        spans = self._counter.spans([block.text for block in blocks])
        for block, tokens in zip(blocks, spans, strict=True):
            if block.kind == "heading":
                yield from self._enter(block)
            else:
                self._bare = None
                for piece in self._cut(block, tokens):
                    yield from self._put(piece)

    def finish(self) -> Iterator[Chunk]:
        yield from self._close()
        yield from self._close_bare(0)

    def _enter(self, block: Block) -> Iterator[Chunk]:
        yield from self._close()
        level = max(1, block.level)
        yield from self._close_bare(level)
        while self._headings and self._headings[-1][0] >= level:
            self._headings.pop()
        self._headings.append((level, " ".join(block.text.split())[:MAX_HEADING]))
        self._bare = block
        self._name_section()

    def _name_section(self) -> None:
        """Take as many headings as there is room for, the innermost first."""
        most = self._size // SECTION_SHARE
        names: list[str] = []
        cost = 0
        for _, name in reversed(self._headings):
            cost += self._counter.count([name])[0] + 1
            if cost > most:
                break
            names.insert(0, name)
        self._section = SEPARATOR.join(names)
        self._room = self._size - self._counter.count([self._section])[0] if names else self._size

    def _close_bare(self, next_level: int) -> Iterator[Chunk]:
        """A heading with nothing below it is text, too."""
        if self._bare and next_level <= max(1, self._bare.level):
            yield Chunk(self._headings[-1][1], self._bare.page, self._bare.page, self._section)
        self._bare = None

    def _put(self, piece: _Piece) -> Iterator[Chunk]:
        if self._pieces and self._cost + piece.cost > self._room:
            before = self._pieces
            yield from self._close()
            self._repeat(before, piece)
        self._pieces.append(piece)
        self._cost += piece.cost

    def _repeat(self, before: list[_Piece], piece: _Piece) -> None:
        """Begin a chunk with what `piece` goes on from: a table's first line, or the last sentences of prose."""
        last = before[-1]
        if piece.head and piece.head == last.head:
            repeated = piece.head
        elif piece.kind == last.kind == "paragraph":
            prose = list(takewhile(lambda one: one.kind == "paragraph", reversed(before)))[::-1]
            repeated = self._take_end(_join(prose), min(self._size // OVERLAP_SHARE, self._room - piece.cost))
        else:
            return
        cost = self._counter.count([repeated])[0]
        if repeated and self._room >= cost + piece.cost:
            self._pieces, self._cost, self._repeated = [replace(last, text=repeated, cost=cost)], cost, 1

    def _take_end(self, text: str, most: int) -> str:
        """As many of the last sentences as cost at most so much, and never the whole text."""
        begins = [found.end() for found in _SENTENCE_END.finditer(text)]
        spans = self._counter.spans([text])[0]
        earliest = spans[-most][0] if 0 < most < len(spans) else len(text)
        return text[next((begin for begin in begins if begin >= earliest), len(text)) :].strip()

    def _close(self) -> Iterator[Chunk]:
        pieces, repeated = self._pieces, self._repeated
        self._pieces, self._cost, self._repeated = [], 0, 0
        if len(pieces) > repeated:
            pages: list[int | None] = [piece.page for piece in pieces[repeated:] if piece.page is not None] or [None]
            overlap = len(pieces[0].text) + len(pieces[1].joint) if repeated else 0
            yield from self._fit(Chunk(_join(pieces), pages[0], pages[-1], self._section, overlap))

    def _fit(self, chunk: Chunk) -> Iterator[Chunk]:
        """Pieces may cost more together than one by one: what is too long after all is halved."""
        if self._counter.count([chunk.embedded])[0] <= self._size:
            yield chunk
            return
        spans = self._counter.spans([chunk.text])[0]
        middle = spans[len(spans) // 2][0]
        middle = chunk.text.rfind(" ", middle // 2, middle) + 1 or middle
        for begin, text in ((0, chunk.text[:middle]), (middle, chunk.text[middle:])):
            yield from self._fit(replace(chunk, text=text, overlap=max(0, min(chunk.overlap - begin, len(text)))))

    def _cut(self, block: Block, tokens: list[Span]) -> Iterator[_Piece]:
        joint = "\n" if block.kind == "row" else "\n\n"
        if len(tokens) <= self._room:
            yield _Piece(_strip(block, block.text), max(1, len(tokens)), block.kind, block.page, joint)
            return
        head = block.text.partition("\n")[0].strip() if block.kind == "table" else ""
        head_cost = self._counter.count([head])[0]
        if head_cost > self._room // 2:
            head, head_cost = "", 0
        for begin, end, cost in _spread(block, tokens, self._room - head_cost):
            if part := _strip(block, block.text[begin:end]):
                yield _Piece(part, max(1, cost), block.kind, block.page, joint, head)
                joint = " " if block.kind == "paragraph" else "\n"


def _spread(block: Block, tokens: list[Span], most: int) -> Iterator[tuple[int, int, int]]:
    """Where to cut a block: sentences or lines (begin, end, tokens), and parts of them where one alone is too long."""
    text = block.text
    starts = [token[0] for token in tokens]
    boundary = _SENTENCE_END if block.kind == "paragraph" else _LINE_END
    begin = first = 0
    for end in [*(found.end() for found in boundary.finditer(text)), len(text)]:
        behind = bisect_left(starts, end, first)
        while behind - first > most:
            cut = starts[first + most]
            cut = text.rfind(" ", begin + (cut - begin) // 2, cut) + 1 or cut
            until = bisect_left(starts, cut, first)
            yield begin, cut, until - first
            begin, first = cut, until
        if end > begin:
            yield begin, end, behind - first
        begin, first = end, behind


def _strip(block: Block, text: str) -> str:
    return text.strip("\n") if block.kind == "code" else text.strip()


def _join(pieces: list[_Piece]) -> str:
    return "".join((piece.joint if number else "") + piece.text for number, piece in enumerate(pieces))
