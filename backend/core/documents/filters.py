"""Filters over the attributes of documents, in the shape of OpenAI's vector store search.

    filter = {"type": "eq" | "ne" | "gt" | "gte" | "lt" | "lte", "key": NAME, "value": VALUE}
           | {"type": "in" | "nin", "key": NAME, "value": [VALUE, ...]}
           | {"type": "and" | "or", "filters": [filter, ...]}

A document without the attribute matches `ne` and `nin` alone; values of different kinds are never equal or ordered.
"""

from collections.abc import Callable, Mapping
from typing import Any

from backend.core.documents.records import Attributes
from backend.core.errors import Unprocessable

Filter = Callable[[Attributes], bool]

MAX_DEPTH = 8
MAX_FILTERS = 64
_ORDER: Mapping[str, Callable[[Any, Any], bool]] = {
    "eq": lambda left, right: bool(left == right),
    "gt": lambda left, right: bool(left > right),
    "gte": lambda left, right: bool(left >= right),
    "lt": lambda left, right: bool(left < right),
    "lte": lambda left, right: bool(left <= right),
}


def parse_filter(value: object, *, depth: int = 0) -> Filter:
    """
    Raises:
        Unprocessable: it is none; the message says what is wrong.
    """
    match value:
        case {"type": "and" | "or" as kind, "filters": list(parts)} if depth < MAX_DEPTH and len(parts) <= MAX_FILTERS:
            inner = [parse_filter(part, depth=depth + 1) for part in parts]
            among = all if kind == "and" else any
            return lambda attributes: among(matches(attributes) for matches in inner)
        case {"type": "in" | "nin" as kind, "key": str(key), "value": list(values)} if all(map(_is_value, values)):
            return lambda attributes: any(_holds("eq", attributes, key, one) for one in values) == (kind == "in")
        case {"type": "ne", "key": str(key), "value": single} if _is_value(single):
            return lambda attributes: not _holds("eq", attributes, key, single)
        case {"type": str(kind), "key": str(key), "value": single} if kind in _ORDER and _is_value(single):
            return lambda attributes: _holds(kind, attributes, key, single)
    raise Unprocessable(
        'A filter is {"type": "eq", "key": "...", "value": "..."} with eq, ne, gt, gte, lt, lte, in or nin, or '
        f'{{"type": "and", "filters": [...]}} with and or or, at most {MAX_DEPTH} deep and {MAX_FILTERS} wide.',
        param="filters",
    )


def _is_value(value: object) -> bool:
    return isinstance(value, str | int | float | bool)


def _holds(kind: str, attributes: Attributes, key: str, value: Any) -> bool:
    actual = attributes.get(key)
    return _kind(actual) == _kind(value) and _ORDER[kind](actual, value)


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "truth"
    return "number" if isinstance(value, int | float) else type(value).__name__
