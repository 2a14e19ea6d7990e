"""JSON, and files with one JSON value a line."""

import itertools
import json
from collections.abc import Iterator
from typing import Any

from backend.core.documents.document import Block, DocumentInfo, DocumentPart
from backend.core.documents.formats import text
from backend.core.documents.formats.source import Source, Unreadable

MAX_BYTES = 2**26
MAX_DESCRIBED_BYTES = 2**24  # a value takes several times its text in memory
SMALL = 1_500  # characters: a value up to this size stays in one piece
MAX_LEVEL = 6
MAX_KEYS = 40
SAMPLE = 1_200
MAX_LINE = 2**20


def read(source: Source) -> Iterator[DocumentPart]:
    if source.suffix in {".jsonl", ".ndjson"}:
        yield DocumentInfo(source.name)
        yield from (Block("row", _plain(value)) for value in _lines(source))
        return
    try:
        value = json.loads(source.read_whole_text(MAX_BYTES))
    except ValueError:
        yield from text.read(source)
        return
    yield DocumentInfo(source.name)
    yield from _blocks("", value, 1)


def describe(source: Source) -> Iterator[str]:
    if source.suffix in {".jsonl", ".ndjson"}:
        values = list(itertools.islice(_lines(source), 20))
        yield f"{text.count_lines(source)} lines, each a JSON value."
        yield f"Structure of the first: {_shape(values[:1])}"
        yield "First lines:"
        yield from (_compact(value)[: SAMPLE // 3] for value in values[:5])
        return
    if source.size > MAX_DESCRIBED_BYTES:
        yield "A JSON text that is too large to be looked through. It begins:"
        yield source.read_text(SAMPLE)
        return
    try:
        value = json.loads(source.read_whole_text(MAX_DESCRIBED_BYTES))
    except ValueError:
        yield "It is called JSON and is none."
        yield from text.describe(source)
        return
    yield f"JSON. Structure: {_shape(value)}"
    if isinstance(value, dict):
        yield f"{len(value):,} keys: {_keys(value)}"
    elif isinstance(value, list):
        yield f"{len(value):,} items. The first ones:"
        value = value[:5]
    yield _compact(value)[:SAMPLE]


def _lines(source: Source) -> Iterator[Any]:
    with source.open_text() as file:
        for number in itertools.count(1):
            line = file.readline(MAX_LINE)
            if not line:
                return
            if line.strip():
                try:
                    yield json.loads(line)
                except ValueError:
                    raise Unreadable(f"Line {number} is no JSON value.") from None


def _blocks(path: str, value: Any, level: int) -> Iterator[Block]:
    """A value in pieces: each with the path that leads to it, and none larger than needs be."""
    if isinstance(value, dict):
        items = [(f"{path}.{key}" if path else key, item) for key, item in value.items()]
    elif isinstance(value, list):
        items = [(f"{path}[{number}]", item) for number, item in enumerate(value)]
    else:
        yield Block("paragraph", _plain(value))
        return
    for where, item in items:
        whole = _plain(item)
        if isinstance(item, dict | list) and len(whole) > SMALL and level <= MAX_LEVEL:
            yield Block("heading", where, level=level)
            yield from _blocks(where, item, level + 1)
        else:
            # An item of a list says itself what it is; a number in brackets would only be in the way.
            yield Block("row", whole if where.endswith("]") and isinstance(item, dict) else f"{where}: {whole}")


def _plain(value: Any) -> str:
    """A value for people: `key: value` pairs where it is an object of plain values."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return "; ".join(f"{key}: {item if isinstance(item, str) else _compact(item)}" for key, item in value.items())
    return _compact(value)


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _keys(value: dict[str, Any]) -> str:
    shown = ", ".join(key[:80] for key in itertools.islice(value, MAX_KEYS))
    return f"{shown}, …" if len(value) > MAX_KEYS else shown


def _shape(value: Any, depth: int = 4) -> str:
    """Types instead of values: `{name: text, tags: [text]}`."""
    match value:
        case dict():
            if not depth:
                return "{…}"
            pairs = [
                f"{key[:80]}: {_shape(item, depth - 1)}" for key, item in itertools.islice(value.items(), MAX_KEYS)
            ]
            return "{" + ", ".join(pairs) + (", …" if len(value) > MAX_KEYS else "") + "}"
        case list():
            if not depth:
                return "[…]"
            kinds = list(dict.fromkeys(_shape(item, depth - 1) for item in value[:20]))
            return "[" + " or ".join(kinds[:3]) + (" or …" if len(kinds) > 3 else "") + "]"
        case str():
            return "text"
        case bool():
            return "true or false"
        case None:
            return "null"
        case _:
            return "number"
