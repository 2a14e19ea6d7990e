"""What a deck is made from besides the instruction: files of the session, and passages that came with the call."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from backend.core.contracts import ToolFailure
from backend.core.storage.scratch import list_files
from backend.core.untrusted import disarm, mark_as_data, shorten
from backend.utils.paths import UnsafePath, open_beneath

from .args import SourceText
from .data_tables import DataTable, read_table

MAX_READ_BYTES = 4 * 2**20  # of a file of data or text
MAX_LISTED = 500
DATA = {".csv", ".tsv", ".json"}
TEXTS = {".txt", ".md", ".markdown", ".log", ".py", ".html", ".yaml", ".yml"}
PICTURES = {".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tiff", ".tif"}
KINDS = "CSV, TSV or JSON, text or Markdown, PNG, JPEG, GIF or WebP"


@dataclass(frozen=True, slots=True)
class Material:
    """`citations` are the names of the sources as a page shows them, in the order of their numbers."""

    tables: tuple[DataTable, ...] = ()
    pictures: tuple[str, ...] = ()  # names of files
    sources: tuple[SourceText, ...] = ()
    citations: tuple[str, ...] = field(default=())

    def for_outline(self, room: int) -> str:
        """All of it for a model, in about so many characters."""
        return self._write(room, "")

    def for_page(self, about: str, room: int) -> str:
        """What has to do with the page."""
        return self._write(room, about)

    def _write(self, room: int, about: str) -> str:
        parts = [mark_as_data(shorten(t.describe(), room // 2), f"the file {t.name}") for t in self.tables]
        if self.pictures:
            parts.append(f"Pictures that can be shown: {disarm(', '.join(self.pictures))}")
        sources = list(enumerate(self.sources, 1))
        if about:
            sources = sorted(sources, key=lambda source: -_likeness(about, source[1].text))[:3]
        for number, source in sources:
            text = shorten(f"{source.title}\n{source.text}".strip(), max(200, room // len(sources)))
            parts.append(mark_as_data(text, f"source {number}"))
        return "\n\n".join(parts)


def read_material(workspace: Path, names: Sequence[str], sources: Sequence[SourceText], instruction: str) -> Material:
    """Files that are named, and those that the instruction speaks of. Blocks.

    Raises:
        ToolFailure: a file is not there, or is nothing that a deck can be made from.
    """
    there = _list(workspace)
    mentioned = [name for name in there if name in instruction and Path(name).suffix.lower() in DATA | PICTURES | TEXTS]
    tables, pictures, passages = [], [], list(sources)
    for name in dict.fromkeys([*names, *mentioned]):
        kind = Path(name).suffix.lower()
        if kind in PICTURES:
            _check(workspace, name, there)
            pictures.append(name)
        elif kind in DATA | TEXTS:
            text = _check(workspace, name, there)
            table = read_table(name, text) if kind in DATA else None
            if table:
                tables.append(table)
            else:
                passages.append(SourceText(title=name, text=text[:20_000]))
        else:
            raise ToolFailure(f"A deck cannot be made from {name}. Use files of these kinds: {KINDS}.")
    citations = tuple(_cite(source, number) for number, source in enumerate(passages, 1))
    return Material(tuple(tables), tuple(pictures), tuple(passages), citations)


def _check(workspace: Path, name: str, there: Sequence[str]) -> str:
    try:
        with open_beneath(workspace, name) as file:
            return (file.read(MAX_READ_BYTES) or b"").decode("utf-8-sig", "replace")
    except (UnsafePath, FileNotFoundError):
        listed = f"There are: {', '.join(there[:20])}." if there else "The session has no files."
        raise ToolFailure(f"There is no file {name} in this session. {listed}") from None


def _list(workspace: Path) -> list[str]:
    """Names of the files at the top of the folder, and one folder down."""
    names = [file.name for file in list_files(workspace) if file.name.count("/") <= 1]
    return sorted(names, key=lambda name: (name.count("/"), name))[:MAX_LISTED]


def _cite(source: SourceText, number: int) -> str:
    site = re.sub(r"^https?://(www\.)?|[/?#].*$", "", source.url)
    return f"[{number}] {', '.join(filter(None, (source.title[:80], site))) or 'passage'}"


def _likeness(about: str, text: str) -> int:
    """How many words of the page are in the text."""
    words = set(re.findall(r"\w{4,}", about.lower()))
    return sum(word in text.lower() for word in words)
