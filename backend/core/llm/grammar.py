"""JSON schemas as GBNF grammars, for an engine that can be handed either.

An engine's own way from a schema to a grammar leaves the model free to put a Markdown fence and white space around the
object, which the engine then takes off. What it hands out is no longer what the model wrote; sent back as a part of the
next prompt it is read anew, where the engine's cache would have held it. A grammar of ours leaves one way to write a
value, on one line: `{ "name": "value", "list": [ 1, 2 ] }`. The spaces inside the brackets are where all the common
vocabularies part a text, so that the model has no choice of tokens there which reading would not make again.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_KNOWN = frozenset(
    {"type", "enum", "const", "anyOf", "oneOf", "properties", "required", "additionalProperties", "items"}
    | {"minItems", "maxItems", "minLength", "maxLength", "description", "default", "title", "$schema"}
)
_BASIS = {
    "value": "object | array | string | number | boolean | null",
    "object": '"{}" | "{ " string ": " value (", " string ": " value)* " }"',
    "array": '"[]" | "[ " value (", " value)* " ]"',
    "string": r'"\"" char* "\""',
    "char": r'[^"\\\x7F\x00-\x1F] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4})',
    "number": 'integer ("." [0-9]{1,16})? ([eE] [-+]? [0-9]{1,3})?',
    "integer": '"-"? ("0" | [1-9] [0-9]{0,15})',
    "boolean": '"true" | "false"',
    "null": '"null"',
}


class _Unwritable(Exception):
    """The schema asks for something that these grammars cannot hold a model to."""


def write_grammar(schema: Mapping[str, Any]) -> str | None:
    """The grammar of what fits the schema, or None where that is more than can be written here.

    >>> print(write_grammar({"enum": ["yes", "no"]}).splitlines()[-1])
    root ::= "\\"yes\\"" | "\\"no\\""
    """
    grammar = _Grammar()
    try:
        root = grammar.expression(schema)
    except (_Unwritable, RecursionError):
        return None
    return "\n".join(f"{name} ::= {rule}" for name, rule in (grammar.rules | {"root": root}).items())


def literal(text: str) -> str:
    """GBNF for exactly this text."""
    return '"' + "".join(map(_gbnf_char, text)) + '"'


class _Grammar:
    def __init__(self) -> None:
        self.rules = dict(_BASIS)

    def expression(self, schema: Any) -> str:
        if schema is True:
            return "value"
        if not isinstance(schema, Mapping) or not _KNOWN.issuperset(schema):
            raise _Unwritable
        if "const" in schema:
            return _json_literal(schema["const"])
        if "enum" in schema:
            return " | ".join(map(_json_literal, schema["enum"]))
        if branches := schema.get("anyOf") or schema.get("oneOf"):
            return self._choice(branches)
        match schema.get("type"):
            case None:
                return "value"
            case "string":
                return rf'"\"" char{_bounds(schema.get("minLength", 0), schema.get("maxLength"))} "\""'
            case "array":
                return self._array(schema)
            case "object":
                return self._object(schema)
            case "number" | "integer" | "boolean" | "null" as name:
                return str(name)
            case [*names]:
                return self._choice([{**schema, "type": name} for name in names])
        raise _Unwritable

    def _rule(self, expression: str) -> str:
        """A name for an expression: what stands in a repetition counts once for each time, were it written out."""
        name = f"part{len(self.rules)}"
        self.rules[name] = expression
        return name

    def _choice(self, schemas: Sequence[Any]) -> str:
        return " | ".join(self._rule(self.expression(schema)) for schema in schemas)

    def _array(self, schema: Mapping[str, Any]) -> str:
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        if most == 0:
            return '"[]"'
        item = self._rule(self.expression(schema.get("items", True)))
        items = f'"[ " {item} (", " {item}){_bounds(max(0, least - 1), most and most - 1)} " ]"'
        return items if least else f'"[]" | {items}'

    def _object(self, schema: Mapping[str, Any]) -> str:
        """What is required comes first, then the rest, in the order of the schema."""
        properties, required = schema.get("properties", {}), schema.get("required", [])
        if not properties and not required:
            return '"{}"' if schema.get("additionalProperties") is False else "object"
        if not set(required) <= properties.keys():
            raise _Unwritable
        members = {
            name: f"{literal(json.dumps(name, ensure_ascii=False) + ': ')} {self._rule(self.expression(part))}"
            for name, part in properties.items()
        }
        needed = [members[name] for name in properties if name in required]
        free = [members[name] for name in properties if name not in required]
        if needed:
            return _members(needed, free)
        forms = [_members([first], free[at:]) for at, first in enumerate(free, start=1)]
        return " | ".join([*forms, '"{}"'])


def _members(needed: Iterable[str], free: Iterable[str]) -> str:
    members = ' ", " '.join(needed) + "".join(f' (", " {member})?' for member in free)
    return f'"{{ " {members} " }}"'


def _bounds(least: int, most: int | None) -> str:
    return f"{{{least},{'' if most is None else most}}}"


def _json_literal(value: Any) -> str:
    return literal(json.dumps(value, ensure_ascii=False))


def _gbnf_char(char: str) -> str:
    if char in '"\\':
        return f"\\{char}"
    return char if char.isprintable() else f"\\U{ord(char):08X}"
