"""The tools of a run: whether a call can be made, and what its arguments are meant to be.

Models come close to a schema more often than they meet it. What has just one reading is put right (a number in quotes,
arguments wrapped once more, a text for a tool that takes one text); everything else is told to the model.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from backend.core.llm.base import ToolDefinition
from backend.utils.clean_text import clean_text, clean_value

MAX_PROBLEM_CHARS = 300
_WRAPPERS = ("arguments", "args", "parameters", "input", "action_input", "kwargs")


class Toolset:
    def __init__(self, tools: Sequence[ToolDefinition]) -> None:
        self.definitions = tuple(tools)
        self._validators = {tool.name: Draft202012Validator(tool.parameters or {"type": "object"}) for tool in tools}

    def __bool__(self) -> bool:
        return bool(self.definitions)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._validators)

    def find(self, name: str) -> str | None:
        """The tool that is meant by a name, or None."""
        if name in self._validators:
            return name
        plain = re.sub(r"^(functions?|tools?)\.|\(\)$|^default_api\.", "", name.strip().strip("`\"'*"))
        plain = plain.replace("-", "_").replace(" ", "_").lower()
        return plain if plain in self._validators else None

    def read_arguments(self, tool: str, given: Any) -> dict[str, Any]:
        """The arguments of a call.

        Args:
            given: an object, or the text that the model wrote.

        Raises:
            ValueError: what is wrong, in a sentence for the model.
        """
        schema: Mapping[str, Any] = self._validators[tool].schema  # type: ignore[assignment]
        properties = schema.get("properties", {})
        arguments = parse_json(given) if isinstance(given, str) else given
        if isinstance(arguments, dict) and len(arguments) == 1:
            (key, value), *_ = arguments.items()
            if key in _WRAPPERS and key not in properties and isinstance(value, dict | str):
                arguments = parse_json(value) if isinstance(value, str) else value
        if not isinstance(arguments, dict):
            texts = [name for name in schema.get("required", ()) if properties.get(name, {}).get("type") == "string"]
            if not isinstance(given, str) or len(texts) != 1 or given.lstrip().startswith(("{", "[")):
                raise ValueError(f"the arguments of {tool} are not a JSON object.")
            arguments = {texts[0]: clean_text(given.strip())}
        arguments = {name: _coerced(value, properties.get(name, {})) for name, value in arguments.items()}
        if error := best_match(self._validators[tool].iter_errors(arguments)):
            where = ".".join(map(str, error.absolute_path))
            problem = f"{where}: {error.message}" if where else error.message
            raise ValueError(f"the arguments of {tool} are wrong: {problem[:MAX_PROBLEM_CHARS]}.")
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


def _coerced(value: Any, schema: Mapping[str, Any]) -> Any:
    match schema.get("type"), value:
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
