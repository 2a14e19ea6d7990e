"""Reading a request's body by hand, where a route must know who calls before it reads."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request

from backend.api.errors import ClientDisconnected, validation_error
from backend.core.errors import BadRequest

BODY_TIMEOUT_S = 60.0

Shape = TypeVar("Shape", bound=BaseModel)


@asynccontextmanager
async def arriving(timeout_s: float) -> AsyncIterator[None]:
    """A deadline for the arrival of a body.

    Raises:
        BadRequest: it does not arrive in time.
        ClientDisconnected: it will not arrive any more.
    """
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError:
        raise BadRequest(f"The body did not arrive within {timeout_s:g} s.") from None
    except ClientDisconnect:
        raise ClientDisconnected from None


async def read_json_object(request: Request, *, optional: bool = False) -> dict[str, Any]:
    """The JSON object of a body.

    Args:
        optional: an empty body is an empty object.

    Raises:
        BadRequest: it is none, or it does not arrive in time.
        ClientDisconnected: it will not arrive any more.
    """
    async with arriving(BODY_TIMEOUT_S):
        body = await request.body()
    if optional and not body:
        return {}
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise BadRequest("The body is not valid JSON.") from None
    if not isinstance(fields, dict):
        raise BadRequest("The body must be a JSON object.")
    return fields


def parse_object(shape: type[Shape], fields: dict[str, Any]) -> Shape:
    """Raises: BadRequest, with the field at fault."""
    try:
        return shape.model_validate(fields)
    except ValidationError as error:
        raise validation_error(error.errors(include_url=False, include_context=False, include_input=False)) from None
