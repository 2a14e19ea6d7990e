"""What the files of Office since 2007 have in common: XML in an archive, read piece by piece.

The archive's own words about sizes are not believed: a member is read as a stream, and given up beyond `MAX_MEMBER`.
"""

import posixpath
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Literal
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from backend.core.documents.document import DocumentInfo
from backend.core.documents.formats.source import Source, Unreadable

MAX_MEMBER = 2**27  # bytes, unpacked
MAX_SMALL = 2**24  # of a member that is read into one tree
MAX_DEPTH = 500
PROPERTIES = "docProps/core.xml"

Event = Literal["start", "end"]


@contextmanager
def open_archive(source: Source) -> Iterator[zipfile.ZipFile]:
    """
    Raises:
        Unreadable: the archive or the XML in it is broken, or blown up.
    """
    try:
        with zipfile.ZipFile(source.path) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, ElementTree.ParseError, EOFError, KeyError, NotImplementedError):
        raise Unreadable("It is a broken Office file.") from None
    except RuntimeError:  # zipfile's word for an encrypted member
        raise Unreadable("It is encrypted: it needs a password.") from None


def walk(archive: zipfile.ZipFile, name: str) -> Iterator[tuple[Event, Element]]:
    """Begin and end of each element, in the order of the file. Whoever is done with an element clears it."""
    with archive.open(name) as member:
        depth = 0
        for event, element in ElementTree.iterparse(_Checked(member, MAX_MEMBER), events=("start", "end")):  # noqa: S314
            depth += 1 if event == "start" else -1
            if depth > MAX_DEPTH:
                raise Unreadable("It is nested too deeply.")
            yield ("start" if event == "start" else "end"), element


def parse(archive: zipfile.ZipFile, name: str) -> Element:
    """A small member as a tree."""
    with archive.open(name) as member:
        return ElementTree.parse(_Checked(member, MAX_SMALL)).getroot()  # noqa: S314


def read_info(archive: zipfile.ZipFile, source: Source, pages: int | None = None) -> DocumentInfo:
    title = author = ""
    if PROPERTIES in archive.namelist():
        for element in parse(archive, PROPERTIES):
            if local(element) == "title":
                title = (element.text or "").strip()
            elif local(element) == "creator":
                author = (element.text or "").strip()
    return DocumentInfo(title or source.name, author or None, pages)


def relations(archive: zipfile.ZipFile, name: str) -> dict[str, tuple[str, str]]:
    """Id -> the last word of the type, and the member that is meant, of what a member refers to inside the archive."""
    folder, _, file = name.rpartition("/")
    path = f"{folder}/_rels/{file}.rels"
    if path not in archive.namelist():
        return {}
    return {
        relation.get("Id", ""): (
            relation.get("Type", "").rpartition("/")[2],
            posixpath.normpath(posixpath.join(folder, relation.get("Target", ""))).lstrip("/"),
        )
        for relation in parse(archive, path)
        if relation.get("TargetMode") != "External"
    }


def local(element: Element) -> str:
    """An element's name without its namespace: strict and transitional documents differ only there."""
    return element.tag.rpartition("}")[2]


def attribute(element: Element, name: str) -> str | None:
    """The attribute of that local name."""
    return next((value for key, value in element.attrib.items() if key.rpartition("}")[2] == name), None)


class _Checked:
    """A stream that ends with an error when it goes on for too long, or declares entities."""

    def __init__(self, member: IO[bytes], most: int) -> None:
        self._member = member
        self._left = most
        self._tail = b""

    def read(self, size: int = -1, /) -> bytes:
        data = self._member.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise Unreadable("It is blown up: unpacked, it is far larger than an Office file may be.")
        if b"<!DOCTYPE" in self._tail + data:  # no Office writes one: it is there to define entities that explode
            raise Unreadable("It holds a definition of entities, which no Office file does.")
        self._tail = data[-16:]
        return data
