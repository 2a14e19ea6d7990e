"""Schemas of strangers: what is refused, what is found, and that nothing takes for ever."""

import json
import time
from typing import Any

import pytest

from backend.core.llm import json_schema
from backend.core.llm.json_schema import GrammarSchema, SchemaError, check_schema, find_problem, find_problem_now

TREE = {
    "type": "object",
    "properties": {"v": {"type": "integer"}, "kids": {"type": "array", "items": {"$ref": "#"}}},
    "required": ["v"],
}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "objekt"},
        {"type": ["string", ["x"]]},
        {"$ref": "#/$defs/nothing"},
        {"$ref": "https://example.org/schema.json"},
        {"$ref": "file:///etc/passwd"},
        {"$ref": 5},
        {"$ref": "#/required", "required": []},
        {"properties": {"a": {"$id": "https://example.org/", "$ref": "#"}}},
        {"properties": []},
        {"properties": {"a": 3}},
        {"items": [{}]},
        {"anyOf": {}},
        {"enum": 1},
        {"required": "a"},
        {"required": [1]},
        {"dependentRequired": {"a": 1}},
        {"minLength": -1},
        {"minLength": True},
        {"minLength": "x"},
        {"multipleOf": 0},
        {"type": "string", "pattern": "("},
        {"patternProperties": {"(": {}}},
    ],
)
def test_a_broken_schema_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(SchemaError):
        check_schema({"type": "object", "properties": {"x": schema}} if "#/" not in str(schema) else schema)


def test_a_schema_beyond_measure_is_refused() -> None:
    deep: dict[str, Any] = {}
    for _ in range(json_schema.MAX_DEPTH + 1):
        deep = {"items": deep}
    with pytest.raises(SchemaError, match="too large"):
        check_schema(deep)
    with pytest.raises(SchemaError, match="too large"):
        check_schema({"anyOf": [{}] * json_schema.MAX_NODES})


@pytest.mark.parametrize("schema", [{}, TREE, {"type": ["string", "null"]}, {"const": {"$ref": 1}}, {"not": True}])
def test_a_sound_schema_is_taken(schema: dict[str, Any]) -> None:
    check_schema(schema)


async def test_a_problem_is_told_with_its_place() -> None:
    assert await find_problem({"v": 1, "kids": [{"v": "x"}]}, TREE) == "kids.0.v: 'x' is not of type 'integer'"
    assert await find_problem({"v": 1, "kids": [{"v": 2}]}, TREE) is None
    assert await find_problem("über", {"type": "string", "pattern": r"^\p{L}+$"}) is None


@pytest.mark.parametrize(
    ("value", "schema"),
    [
        ("a" * 40 + "b", {"type": "string", "pattern": "^(a|a)*$"}),
        ({"a" * 40 + "b": 1}, {"patternProperties": {"^(a|a)*$": {}}}),
        (
            "x",
            {
                "$defs": {f"a{n}": {"anyOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(40)}
                | {"a40": {"type": "integer"}},
                "$ref": "#/$defs/a0",
            },
        ),
        ("x", {"$ref": "#"}),
    ],
)
def test_a_check_that_would_take_for_ever_ends(
    value: Any, schema: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_schema, "MAX_CHECK_S", 0.2)
    check_schema(schema)
    began = time.monotonic()
    assert "could not be held against" in str(find_problem_now(value, schema))
    assert time.monotonic() - began < 10


def test_schemas_in_one_grammar_keep_their_own_definitions() -> None:
    grammar = GrammarSchema()
    one = grammar.add(
        {"type": "object", "properties": {"x": {"$ref": "#/$defs/X"}}, "$defs": {"X": {"type": "string"}}}
    )
    two = grammar.add({"type": "object", "properties": {"x": {"$ref": "#/$defs/X"}}, "$defs": {"X": {"type": "null"}}})
    whole = grammar.root({"anyOf": [one, two, grammar.add(TREE)]})
    check_schema(whole)
    assert find_problem_now({"x": "text"}, {**whole, "anyOf": whole["anyOf"][:1]}) is None
    assert find_problem_now({"x": "text"}, {**whole, "anyOf": whole["anyOf"][1:2]}) is not None
    assert find_problem_now({"v": 1, "kids": [{"v": "x"}]}, {**whole, "anyOf": whole["anyOf"][2:]}) is not None


def test_what_grammars_cannot_do_is_left_out() -> None:
    grammar = GrammarSchema()
    hard = {
        "type": "object",
        "properties": {
            "a": {"type": "string", "pattern": "x+", "maxLength": 10**6},
            "b": {"allOf": [{"type": "null"}]},
        },
        "patternProperties": {"^z": {}},
        "not": {"required": ["q"]},
    }
    simple = grammar.root(grammar.add(hard))
    assert simple["properties"] == {"a": {"type": "string"}, "b": {"type": "null"}}
    assert not {"patternProperties", "not"} & simple.keys()
    json.dumps(simple)
