"""What a reader hands over of a document, whatever its format.

    document = DocumentInfo (Block | Problem | PageRead)*

Blocks come in the order in which a person would read them. A page that could not be read is a `Problem`, and the
others follow. `PageRead` comes behind the blocks of each page, slide or sheet, to tell how far the reading is.
"""

from dataclasses import dataclass
from typing import Literal

BlockKind = Literal["heading", "paragraph", "table", "row", "code"]


@dataclass(frozen=True, slots=True)
class DocumentInfo:
    title: str  # the document's own, or its file's name
    author: str | None = None
    pages: int | None = None  # None: the format has no pages, or their number is not known yet


@dataclass(frozen=True, slots=True)
class Block:
    """A piece that belongs together. Only a block that is longer than a chunk may be split."""

    kind: BlockKind
    text: str  # of a row: "header: value" pairs, so that it can be understood on its own
    page: int | None = None  # from 1: the page of a PDF, the slide of a presentation
    level: int = 0  # of a heading: 1 is the outermost


@dataclass(frozen=True, slots=True)
class Problem:
    """Something of the document that could not be read, in one sentence."""

    text: str
    page: int | None = None


@dataclass(frozen=True, slots=True)
class PageRead:
    page: int
    pages: int | None = None


DocumentPart = DocumentInfo | Block | Problem | PageRead
