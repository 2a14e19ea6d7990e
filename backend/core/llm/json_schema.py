"""JSON schemas that strangers sent: checked before they are used, applied within bounds, and written for grammars.

A schema is as much a program as it is a description: a pattern may take for ever to match, and branches may multiply.
So a value is held against it for `MAX_CHECK_S` at most, off the event loop, and references lead nowhere but into the
schema itself.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

import regex
from jsonschema import Draft202012Validator, ValidationError
from jsonschema.exceptions import best_match
from jsonschema.validators import extend

MAX_NODES = 5_000
MAX_DEPTH = 64
MAX_CHECK_S = 2.0
MAX_PROBLEM_CHARS = 300
MAX_REPETITIONS = 1_000  # a higher bound makes a grammar that engines refuse

_TYPES = frozenset({"string", "number", "integer", "boolean", "object", "array", "null"})
_ONE = ("not", "if", "then", "else", "contains", "propertyNames", "unevaluatedItems", "unevaluatedProperties")
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_until: ContextVar[float] = ContextVar("until")


class SchemaError(ValueError):
    """What is wrong with a schema, as the rest of "The schema ..."."""


def check_schema(schema: dict[str, Any]) -> None:
    """Raises: SchemaError."""
    nodes = 0
    waiting: list[tuple[Any, str, int]] = [(schema, "#", 0)]
    while waiting:
        node, where, depth = waiting.pop()
        nodes += 1
        if nodes > MAX_NODES or depth > MAX_DEPTH:
            raise SchemaError(f"is too large: {MAX_NODES} parts and {MAX_DEPTH} levels are the limit.")
        if isinstance(node, bool):
            continue
        if not isinstance(node, dict):
            raise SchemaError(f"is not valid at {where}: a schema is an object.")
        if problem := _problem_of(node, schema):
            raise SchemaError(f"is not valid at {where}: {problem}.")
        waiting += [(part, f"{where}/{name}", depth + 1) for name, part in _parts(node)]


def _problem_of(node: dict[str, Any], root: dict[str, Any]) -> str | None:
    """What is wrong with one node, its parts left aside."""
    kinds = node.get("type", [])
    for kind in kinds if isinstance(kinds, list) else [kinds]:
        if not isinstance(kind, str) or kind not in _TYPES:
            return f"there is no type {str(kind)[:40]!r}"
    if "$ref" in node:
        try:
            is_schema = isinstance(resolve(root, node["$ref"]), dict | bool)
        except LookupError:
            is_schema = False
        if not is_schema:
            return f"$ref {str(node['$ref'])[:80]!r} refers to nothing in the schema"
    if "$dynamicRef" in node or ("$id" in node and node is not root):  # references would lead elsewhere
        return "$dynamicRef and an $id inside a schema are not supported"
    for key, wanted in _SHAPES:
        if key in node and (not isinstance(node[key], wanted) or (isinstance(node[key], bool) and wanted is not bool)):
            return f"{key} has a value of the wrong kind"
    for key in _COUNTS:
        if node.get(key, 0) < 0:
            return f"{key} is negative"
    if node.get("multipleOf", 1) <= 0:
        return "multipleOf is not positive"
    if not all(isinstance(name, str) for name in node.get("required", ())):
        return "required is not a list of names"
    dependent = node.get("dependentRequired", {}).values()
    if not all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in dependent):
        return "dependentRequired has a value of the wrong kind"
    for pattern in (node.get("pattern", ""), *node.get("patternProperties", {})):
        try:
            regex.compile(pattern)
        except regex.error:
            return f"{pattern[:40]!r} is no regular expression"
    return None


_SHAPES: tuple[tuple[str, Any], ...] = (
    *((key, dict) for key in (*_MAPS, "dependentRequired")),
    *((key, list) for key in (*_LISTS, "enum", "required")),
    *((key, int) for key in _COUNTS),
    *((key, int | float) for key in _NUMBERS),
    ("pattern", str),
    ("uniqueItems", bool),
)


def _parts(node: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key in (*_ONE, "items", "additionalProperties"):
        if key in node:
            yield key, node[key]
    for key in _LISTS:
        yield from ((f"{key}/{place}", part) for place, part in enumerate(node.get(key, ())))
    for key in _MAPS:
        yield from ((f"{key}/{name}", part) for name, part in node.get(key, {}).items())


def resolve(root: Mapping[str, Any], reference: object) -> Any:
    """What a reference refers to. Raises: LookupError."""
    if not isinstance(reference, str) or (reference != "#" and not reference.startswith("#/")):
        raise LookupError(reference)
    found: Any = root
    for step in reference.split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and step.isdecimal():
            found = found[int(step)]
        elif isinstance(found, dict):
            found = found[step]
        else:
            raise LookupError(reference)
    return found


async def find_problem(value: Any, schema: dict[str, Any]) -> str | None:
    """Why a value does not fit, or None."""
    return await asyncio.to_thread(find_problem_now, value, schema)


def find_problem_now(value: Any, schema: dict[str, Any]) -> str | None:
    """The same for who is in a thread, or has a schema of our own."""
    mark = _until.set(time.monotonic() + MAX_CHECK_S)
    try:
        error = best_match(_Bounded(schema).iter_errors(value))
    except (TimeoutError, RecursionError):
        return f"it could not be held against the schema within {MAX_CHECK_S:g} seconds"
    finally:
        _until.reset(mark)
    if error is None:
        return None
    where = ".".join(map(str, error.absolute_path))
    return (f"{where}: {error.message}" if where else error.message)[:MAX_PROBLEM_CHARS]


def _within_time(check: Callable[..., Any]) -> Callable[..., Any]:
    def checked(validator: Any, wanted: Any, instance: Any, schema: Any) -> Any:
        if time.monotonic() > _until.get():
            raise TimeoutError
        return check(validator, wanted, instance, schema)

    return checked


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if validator.is_type(instance, "string") and not _matches(pattern, instance):
        yield ValidationError(f"{instance[:100]!r} does not match {pattern[:100]!r}")


def _pattern_properties(validator: Any, patterns: dict[str, Any], instance: Any, schema: Any) -> Iterator[Any]:
    if validator.is_type(instance, "object"):
        for pattern, part in patterns.items():
            for name, value in instance.items():
                if _matches(pattern, name):
                    yield from validator.descend(value, part, path=name, schema_path=pattern)


def _matches(pattern: str, text: str) -> bool:
    left_s = _until.get() - time.monotonic()
    return regex.search(pattern, text, timeout=max(0.001, left_s), concurrent=True) is not None


_Bounded: Any = extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    {name: _within_time(check) for name, check in Draft202012Validator.VALIDATORS.items()}
    | {"pattern": _within_time(_pattern), "patternProperties": _within_time(_pattern_properties)},
)


class GrammarSchema:
    """Several schemas made one that engines can turn into a grammar: each is `add`ed, and `root` is what is sent.

    Their references are renamed, so that none means another's definition; what grammars cannot do is left out. An
    answer may therefore fit the grammar and not the schema: it is to be checked all the same.
    """

    _KEPT = frozenset({"type", "enum", "const", "required", "minimum", "maximum", "exclusiveMinimum"})
    _BOUNDS = frozenset({"minItems", "maxItems", "minLength", "maxLength"})

    def __init__(self) -> None:
        self._definitions: dict[str, Any] = {}

    def root(self, schema: dict[str, Any]) -> dict[str, Any]:
        return schema | ({"$defs": self._definitions} if self._definitions else {})

    def add(self, schema: dict[str, Any]) -> dict[str, Any]:
        """The schema as a part of the whole."""
        return self._plain(schema, schema, {})

    def _plain(self, node: Any, root: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
        if not isinstance(node, dict):
            return {}
        if "$ref" in node:
            reference = node["$ref"]
            if reference not in names:
                name = names[reference] = f"part{len(self._definitions)}"
                self._definitions[name] = {}  # its place, for a definition that refers to itself
                self._definitions[name] = self._plain(resolve(root, reference), root, names)
            return {"$ref": f"#/$defs/{names[reference]}"}
        plain: dict[str, Any] = {key: value for key, value in node.items() if key in self._KEPT}
        plain |= {key: node[key] for key in self._BOUNDS & node.keys() if node[key] <= MAX_REPETITIONS}
        for key in ("anyOf", "oneOf", "prefixItems"):
            if key in node:
                plain[key] = [self._plain(part, root, names) for part in node[key]]
        if "properties" in node:
            plain["properties"] = {name: self._plain(part, root, names) for name, part in node["properties"].items()}
        if isinstance(node.get("items"), dict):
            plain["items"] = self._plain(node["items"], root, names)
        more = node.get("additionalProperties", not node.get("properties"))
        if plain.get("type") == "object":
            plain["additionalProperties"] = self._plain(more, root, names) if isinstance(more, dict) else more
        if not plain and len(node.get("allOf", ())) == 1:
            return self._plain(node["allOf"][0], root, names)
        return plain
