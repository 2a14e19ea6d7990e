"""What a model without a template for tools is told and allowed: the tools in words, and a schema for its next step."""

from collections.abc import Container
from typing import Any

from backend.core.llm.base import ToolDefinition
from backend.core.llm.json_schema import GrammarSchema
from backend.core.llm.toolset import Toolset, dump_arguments

MAX_THOUGHT = 400
MAX_INPUT = 2_000  # a longer text limit makes a grammar that engines refuse; the tool checks the real one


def describe_tools(tools: Toolset, functions: Container[str] = ()) -> str:
    """The tools for a model whose template does not show them.

    Args:
        functions: names of those whose schema the client has made.
    """

    def shown(tool: ToolDefinition) -> dict[str, Any]:
        return tool.parameters if tool.name in functions else simplify(tool.parameters)

    return "\n".join(
        f"- {tool.name}: {tool.description}\n  input: {dump_arguments(shown(tool))}" for tool in tools.definitions
    )


def decision_schema(tools: Toolset, functions: Container[str] = ()) -> dict[str, Any]:
    """One object for each thing that may be done."""
    thought = {"type": "string", "maxLength": MAX_THOUGHT}
    grammar = GrammarSchema()  # a client's schema may be made to grow without end: references in it stay references

    def taken(tool: ToolDefinition) -> dict[str, Any]:
        return grammar.add(tool.parameters) if tool.name in functions else simplify(tool.parameters, describe=False)

    branches = [
        _closed({"thought": thought, "action": {"const": tool.name}, "input": taken(tool)})
        for tool in tools.definitions
    ]
    return grammar.root({"anyOf": [*branches, _closed({"thought": thought, "action": {"const": "answer"}})]})


def simplify(schema: dict[str, Any], *, describe: bool = True) -> dict[str, Any]:
    """A schema without references and without what the engines' grammars cannot do; the tool checks the rest."""
    kept = {"type", "enum", "const", "anyOf", "oneOf", "items", "properties", "required", "minItems", "maxItems"}
    if describe:
        kept |= {"description", "default"}
    return _simplified(schema, schema.get("$defs", {}), kept, depth=0)  # type: ignore[no-any-return]


def _simplified(schema: Any, definitions: dict[str, Any], kept: set[str], depth: int) -> Any:
    if not isinstance(schema, dict) or depth > 8:
        return {}
    if "$ref" in schema:
        schema = definitions.get(str(schema["$ref"]).rpartition("/")[2], {})
    simple: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties":
            simple[key] = {name: _simplified(part, definitions, kept, depth + 1) for name, part in value.items()}
        elif key in {"anyOf", "oneOf"}:
            simple[key] = [_simplified(part, definitions, kept, depth + 1) for part in value]
        elif key == "items":
            simple[key] = _simplified(value, definitions, kept, depth + 1)
        elif key in kept or (key == "maxLength" and value <= MAX_INPUT):
            simple[key] = value
    if simple.get("type") == "object":
        simple["additionalProperties"] = bool(schema.get("additionalProperties", not simple.get("properties")))
    return simple


def _closed(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
