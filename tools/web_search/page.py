"""One page of the web as text, fetched under guard."""

import codecs
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ValidationError

from backend.core.contracts import ToolFailure
from backend.core.untrusted import disarm, shorten
from backend.utils.children import ChildFailed, Children
from backend.utils.guarded_fetch import AddressCheck, FetchRefused, fetch

MAX_BYTES = 5 * 2**20
FETCH_TIMEOUT_S = 20.0
READ_TIMEOUT_S = 15.0
MAX_TEXT = 20_000  # characters that a model is given
MAX_TITLE = 300
CHILD = Path(__file__).with_name("page_child.py")

HTML = frozenset({"text/html", "application/xhtml+xml"})
PLAIN = frozenset(
    {"text/plain", "text/markdown", "text/x-markdown", "text/csv", "text/xml", "application/xml", "application/json"}
)
ACCEPT = "text/html, application/xhtml+xml, text/plain, text/markdown, application/json;q=0.9, */*;q=0.1"


@dataclass(frozen=True, slots=True)
class Page:
    url: str  # after redirects
    media_type: str
    title: str | None
    published: str | None  # a date, where the page tells one
    text: str  # disarmed, and of at most about MAX_TEXT characters
    length: int  # of the whole text, in characters


class _Read(BaseModel):
    title: str | None
    published: str | None
    text: str


class PageReader:
    def __init__(self, children: Children, *, allowed: AddressCheck, ports: Collection[int]) -> None:
        self._children = children
        self._allowed = allowed
        self._ports = ports

    async def read(self, url: str) -> Page:
        """Raises: ToolFailure"""
        try:
            fetched = await fetch(
                url,
                accept=ACCEPT,
                max_bytes=MAX_BYTES,
                timeout_s=FETCH_TIMEOUT_S,
                media_types=HTML | PLAIN,
                allowed=self._allowed,
                ports=self._ports,
            )
        except FetchRefused as refusal:
            raise ToolFailure(f"The page {refusal.reason}. Try another address, or search instead.") from None
        charset = _known(fetched.charset)
        if fetched.media_type in HTML:
            read = await self._read_html(fetched.content, charset)
        else:
            read = _Read(title=None, published=None, text=fetched.content.decode(charset or "utf-8-sig", "replace"))
        text = read.text.strip()
        title = read.title and disarm(" ".join(read.title.split())[:MAX_TITLE])
        shown = disarm(shorten(text, MAX_TEXT))
        return Page(fetched.url, fetched.media_type, title, read.published, shown, len(text))

    async def _read_html(self, content: bytes, charset: str | None) -> _Read:
        asked = {"content": content.decode("latin-1"), "charset": charset}
        try:
            return _Read.model_validate(await self._children.run(CHILD, asked, timeout_s=READ_TIMEOUT_S))
        except (ChildFailed, ValidationError):
            raise ToolFailure("The page cannot be turned into text. Try another address, or search instead.") from None


def _known(charset: str | None) -> str | None:
    """The charset, unless it is none for text."""
    try:
        return charset if charset and codecs.lookup(charset)._is_text_encoding else None
    except (LookupError, ValueError):
        return None
