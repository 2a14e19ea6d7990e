"""What a tool brings, as bytes: a JSON object, or the frames of a stream.

    stream = progress* (result | error)      each an SSE event of that name, its data one JSON object

A tool may hand over anything. What JSON or UTF-8 cannot carry is written as text; what is too long is cut in the
middle, and the result says so.
"""

from itertools import islice
from typing import Any

import orjson

from backend.core.contracts import ToolResult
from backend.core.errors import ApiError
from backend.core.tool_runs import Progress
from backend.utils.clean_text import clean_text

MAX_RESULT_BYTES = 4 * 2**20
MAX_PROGRESS_BYTES = 64 * 2**10
MAX_DEPTH = 32
OPTIONS = orjson.OPT_NON_STR_KEYS
CUT = "The result was over 4 MiB: long texts and lists were cut."


def encode_result(result: ToolResult) -> bytes:
    fields = {name: getattr(result, name) for name in ("success", "answer", "data", "metadata", "error")}
    encoded = _dump(fields)
    if len(encoded) <= MAX_RESULT_BYTES:
        return encoded
    return _shrink(fields | {"metadata": result.metadata | {"truncated": CUT}}, MAX_RESULT_BYTES)


def result_frame(result: ToolResult) -> bytes:
    return event_frame(b"result", encode_result(result))


def progress_frame(progress: Progress) -> bytes:
    fields = {"message": progress.message, "data": progress.data}
    encoded = _dump(fields)
    if len(encoded) > MAX_PROGRESS_BYTES:
        encoded = _shrink(fields, MAX_PROGRESS_BYTES)
    return event_frame(b"progress", encoded)


def error_frame(error: ApiError) -> bytes:
    return event_frame(b"error", orjson.dumps(error.body()))


def event_frame(event: bytes, data: bytes) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (event, data)


def _dump(fields: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(fields, default=str, option=OPTIONS)
    except TypeError:  # a lone surrogate, an integer over 64 bits, a depth or a key that JSON does not have
        return orjson.dumps(_plain(fields))


def _shrink(fields: dict[str, Any], limit: int) -> bytes:
    """JSON of at most about `limit` bytes: with shorter texts and lists, and at last without the data."""
    for part in (8, 64, 512):
        encoded = orjson.dumps(_plain(fields, longest=limit // part, most=limit // part // 16))
        if len(encoded) <= limit:
            return encoded
    return orjson.dumps(_plain(fields | {"data": {}}, longest=limit // 512, most=limit // 512 // 16))


def _plain(value: Any, *, longest: int | None = None, most: int | None = None, depth: int = 0) -> Any:
    """Only what JSON has, with texts of at most `longest` characters and lists of at most `most` items."""
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return value
    if depth < MAX_DEPTH and isinstance(value, dict):
        return {
            _text(key, longest): _plain(item, longest=longest, most=most, depth=depth + 1)
            for key, item in islice(value.items(), most)
        }
    if depth < MAX_DEPTH and isinstance(value, list | tuple | set | frozenset):
        return [_plain(item, longest=longest, most=most, depth=depth + 1) for item in islice(value, most)]
    return _text(value, longest)


def _text(value: Any, longest: int | None) -> str:
    text = value if isinstance(value, str) else str(value)
    if longest is not None and len(text) > longest:
        half = longest // 2
        text = f"{text[:half]}\n... ({len(text) - 2 * half} characters left out) ...\n{text[-half:]}"
    return clean_text(text)
