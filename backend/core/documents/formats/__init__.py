"""How files of each format are read and described, one module a family. Only `child.py` loads these.

    read(source) -> parts in the order of the document        describe(source) -> lines of a description

Both may raise `Unreadable`, and anything else on a file that is broken: `child.py` takes it for that. What a file is
is told by its bytes. Its name decides only between texts, which look alike.
"""

import importlib
import re
import zipfile
from collections.abc import Iterator
from typing import Protocol, cast

from backend.core.documents.document import DocumentPart
from backend.core.documents.formats.source import Source, Unreadable

OLD_OFFICE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
PICTURES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"\0\0\1\0", b"8BPS")
OFFICE = {
    "word/document.xml": "docx",
    "ppt/presentation.xml": "pptx",
    "xl/workbook.xml": "xlsx",
}
TEXTS = {
    ".csv": "csv_rows",
    ".tsv": "csv_rows",
    ".json": "json_data",
    ".jsonl": "json_data",
    ".ndjson": "json_data",
    ".ipynb": "json_data",
    ".md": "markdown",
    ".markdown": "markdown",
    ".py": "python_code",
    ".pyi": "python_code",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
}
HTML_BEGINNING = re.compile(
    rb"\s*(?:<!--.*?-->\s*|<\?xml[^>]*>\s*)*<(?:!doctype html|html)\b", re.IGNORECASE | re.DOTALL
)


class Format(Protocol):
    def read(self, source: Source) -> Iterator[DocumentPart]: ...

    def describe(self, source: Source) -> Iterator[str]: ...


def find_format(source: Source) -> Format:
    """
    Raises:
        Unreadable: it is of no format that is known here.
    """
    return cast(Format, importlib.import_module(f"{__name__}.{_name_of(source)}"))


def _name_of(source: Source) -> str:
    sample = source.sample
    if b"%PDF-" in sample[:1024]:
        return "pdf"
    if sample.startswith(b"PK\3\4"):
        return _office_of(source)
    if sample.startswith(OLD_OFFICE):
        raise Unreadable("It is encrypted, or of an Office older than 2007. Save it as .docx, .xlsx or .pptx.")
    if sample.startswith(PICTURES) or (sample[:4] == b"RIFF" and sample[8:12] == b"WEBP") or sample[4:8] == b"ftyp":
        return "picture"
    if source.encoding is None:
        raise Unreadable("Its contents are not text, and its format is none that can be read here.")
    if HTML_BEGINNING.match(sample[:4096]):
        return "html"
    return TEXTS.get(source.suffix, "text")


def _office_of(source: Source) -> str:
    try:
        with zipfile.ZipFile(source.path) as archive:
            names = set(archive.namelist())
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        raise Unreadable("It is a broken archive or Office file.") from None
    for name, format_ in OFFICE.items():
        if name in names:
            return format_
    if "mimetype" in names:
        raise Unreadable("It is an OpenDocument file or an e-book. Save it as PDF, or for Word, Excel or PowerPoint.")
    raise Unreadable("It is an archive. Send the files that are in it.")
