"""Runs on its own: reads or describes one file that a stranger may have made, as `reading.py` asks it to.

    {"do": "read", "path", "name", "first_page", limits} -> lines of [[kind of part, its fields], ...]
    {"do": "describe", "path", "name", "patience_s", limits} -> one line, {"text": ...}

limits = "memory_bytes", "cpu_s". The process has no more of either, writes no file, and knows no secret.
"""

import json
import logging
import os
import resource
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))

from backend.core.documents.document import Block, DocumentInfo, DocumentPart, PageRead, Problem
from backend.core.documents.formats import find_format
from backend.core.documents.formats.source import Source, Unreadable

KINDS = {DocumentInfo: "info", Block: "block", Problem: "problem", PageRead: "page"}
MAX_BLOCK = 100_000  # characters; longer ones are cut into several
MAX_TITLE = 300
BATCH_CHARACTERS = 2**15
NICENESS = 5  # nobody waits for it as somebody waits for an answer


def main() -> None:
    asked = json.load(sys.stdin)
    for limit, most in (
        (resource.RLIMIT_AS, 2 * asked["memory_bytes"]),  # with what is mapped and never touched
        (resource.RLIMIT_DATA, asked["memory_bytes"]),
        (resource.RLIMIT_CPU, asked["cpu_s"]),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (most, most))
    logging.disable()
    warnings.simplefilter("ignore")
    source = Source(Path(asked["path"]), asked["name"], asked.get("first_page", 1))
    if asked["do"] == "read":
        os.nice(NICENESS)
        _write_batches(_read(source))
    else:
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))  # only OCR starts a process, and here is none
        deadline = time.monotonic() + asked["patience_s"]
        _write({"text": _describe(Source(source.path, source.name, deadline=deadline), asked["max_characters"])})


def _read(source: Source) -> Iterator[DocumentPart]:
    try:
        yield from find_format(source).read(source)
    except Exception as error:  # parsers raise anything over bytes that somebody made up
        yield Problem(_explain(error))


def _describe(source: Source, max_characters: int) -> str:
    lines: list[str] = []
    size = 0
    try:
        for line in find_format(source).describe(source):
            lines.append(line)
            size += len(line)
            if size > max_characters:
                break
    except Exception as error:  # as above
        lines.append(f"{'The rest' if lines else 'It'} cannot be read. {_explain(error)}")
    return "\n".join(lines).replace("\0", "")[: max_characters + 1]


def _explain(error: Exception) -> str:
    match error:
        case Unreadable():
            return str(error)
        case MemoryError():
            return "It needs more memory than the reader of one file may use."
        case RecursionError():
            return "It is nested too deeply."
        case ImportError():
            return f"What reads this format is not installed on the server: {error.name}."
        case _:
            return "It is broken."


def _write_batches(parts: Iterator[DocumentPart]) -> None:
    batch: list[Any] = []
    size = 0
    for part in parts:
        for piece in _cut(part):
            batch.append([KINDS[type(piece)], {name: getattr(piece, name) for name in piece.__slots__}])
            size += 100 + (len(piece.text) if isinstance(piece, Block) else 0)
            if size > BATCH_CHARACTERS or isinstance(piece, PageRead | DocumentInfo):
                _write(batch)
                batch, size = [], 0
    if batch:
        _write(batch)


def _cut(part: DocumentPart) -> Iterator[DocumentPart]:
    """The part, in pieces of a bounded size, without the zero bytes that databases and terminals stumble over."""
    if isinstance(part, Block):
        text = part.text.replace("\0", "")
        for begin in range(0, len(text), MAX_BLOCK):
            yield Block(part.kind, text[begin : begin + MAX_BLOCK], part.page, part.level)
    elif isinstance(part, DocumentInfo):
        title, author = (told and told.replace("\0", "")[:MAX_TITLE] for told in (part.title, part.author))
        yield DocumentInfo(title or "", author, part.pages)
    else:
        yield part


def _write(value: Any) -> None:
    line = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    sys.stdout.buffer.write(line.encode("utf-8", "replace") + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
