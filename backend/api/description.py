"""The description of an API (`/openapi.json`), made to tell what is sent: FastAPI alone gets two things wrong.

It promises its own shape for the errors that it knows of, and it does not know of those that exceptions become. And
what a body is made of, given in a route's `openapi_extra`, lies where the references to it do not find it.
"""

import functools
import json
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI

_ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string", "description": "what was wrong, and what to do"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"], "description": "the field at fault, as a dotted path"},
                "code": {"type": ["string", "null"], "description": "a stable word that programs can test for"},
            },
        }
    },
}
_RESPONSES: dict[str, Any] = {
    "4XX": {"$ref": "#/components/responses/Error"},
    "5XX": {"$ref": "#/components/responses/Error"},
}
_FASTAPI_ERRORS = {"HTTPValidationError", "ValidationError"}
_METHODS = {"get", "post", "put", "patch", "delete"}


def describe_truthfully(app: FastAPI) -> None:
    """Mend the description of an application whenever it is asked for."""
    describe = app.openapi
    app.openapi = functools.cache(lambda: _mend(describe()))  # type: ignore[method-assign]


def _mend(description: dict[str, Any]) -> dict[str, Any]:
    components = description.setdefault("components", {})
    schemas: dict[str, Any] = components.setdefault("schemas", {})
    for operation in _operations(description):
        for content in operation.get("requestBody", {}).get("content", {}).values():
            schema, parts = _take_apart(content.get("schema", {}))
            content["schema"] = schema
            schemas |= parts
        operation["responses"].pop("422", None)
        operation["responses"] |= _RESPONSES
    for name in _FASTAPI_ERRORS & schemas.keys():
        del schemas[name]
    schemas["Error"] = _ERROR
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    components["responses"] = {"Error": {"description": "What was wrong, as OpenAI says it.", "content": content}}
    return description


def _operations(description: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path in description["paths"].values():
        yield from (operation for method, operation in path.items() if method in _METHODS)


def _take_apart(schema: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A schema without the definitions in it, and these as components that it refers to."""
    if "$defs" not in schema:
        return schema, {}
    place = f"{schema['title']}."
    moved = json.loads(json.dumps(schema).replace('"#/$defs/', f'"#/components/schemas/{place}'))
    return moved, {place + name: part for name, part in moved.pop("$defs").items()}
