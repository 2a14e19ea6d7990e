"""The tools of a run: whether a call can be made, and what its arguments are meant to be.

Models come close to a schema more often than they meet it. What has just one reading is put right (a number in quotes,
arguments wrapped once more, a text for a tool that takes one text); everything else is told to the model.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

import orjson

from backend.core.llm.base import ToolDefinition
from backend.core.llm.json_schema import find_problem_now
from backend.utils.clean_text import clean_text, clean_value

_WRAPPERS = ("arguments", "args", "parameters", "input", "action_input", "kwargs")


class Toolset:
    def __init__(self, tools: Sequence[ToolDefinition]) -> None:
        self.definitions = tuple(tools)
        self._schemas = {tool.name: tool.parameters or {"type": "object"} for tool in tools}

    def __bool__(self) -> bool:
        return bool(self.definitions)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._schemas)

    def find(self, name: str) -> str | None:
        """The tool that is meant by a name, or None."""
        if name in self._schemas:
            return name
        plain = re.sub(r"^(functions?|tools?)\.|\(\)$|^default_api\.", "", name.strip().strip("`\"'*"))
        plain = plain.replace("-", "_").replace(" ", "_").lower()
        return plain if plain in self._schemas else None

    def read_arguments(self, tool: str, given: Any) -> dict[str, Any]:
        """The arguments of a call.

        Args:
            given: an object, or the text that the model wrote.

        Raises:
            ValueError: what is wrong, in a sentence for the model.
        """
        schema = self._schemas[tool]
        properties = schema.get("properties", {})
        arguments = parse_json(given) if isinstance(given, str) else given
        if isinstance(arguments, dict) and len(arguments) == 1:
            (key, value), *_ = arguments.items()
            if key in _WRAPPERS and key not in properties and isinstance(value, dict | str):
                arguments = parse_json(value) if isinstance(value, str) else value
        if not isinstance(arguments, dict):
            texts = [name for name in schema.get("required", ()) if _type_of(properties.get(name)) == "string"]
            if not isinstance(given, str) or len(texts) != 1 or given.lstrip().startswith(("{", "[")):
                raise ValueError(f"the arguments of {tool} are not a JSON object.")
            arguments = {texts[0]: clean_text(given.strip())}
        arguments = {name: _coerced(value, _type_of(properties.get(name))) for name, value in arguments.items()}
        if problem := find_problem_now(arguments, schema):
            raise ValueError(f"the arguments of {tool} are wrong: {problem}.")
        return arguments


def parse_json(text: str) -> Any:
    """JSON as models write it, or None: half surrogate pairs are replaced, line breaks inside texts are let through."""
    try:
        return clean_value(json.loads(text.strip() or "{}", strict=False))
    except (ValueError, RecursionError):
        return None


def dump_arguments(arguments: dict[str, Any]) -> str:
    try:
        return orjson.dumps(arguments).decode()
    except TypeError:  # an integer over 64 bits
        return json.dumps(arguments)


def _type_of(schema: Any) -> Any:
    return schema.get("type") if isinstance(schema, dict) else None


def _coerced(value: Any, kind: Any) -> Any:
    match kind, value:
        case (("integer" | "number"), str()):
            number = parse_json(value)
            return number if isinstance(number, int | float) else value
        case "boolean", ("true" | "True" | "false" | "False"):
            return value in {"true", "True"}
        case "string", (int() | float()) if not isinstance(value, bool):
            return str(value)
        case (("object" | "array"), str()):
            parsed = parse_json(value)
            return value if parsed is None else parsed
        case _:
            return value
