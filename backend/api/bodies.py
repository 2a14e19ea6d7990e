"""Reading a request's body by hand, where a route must know who calls before it reads."""

import asyncio
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request

from backend.api.errors import ClientDisconnected
from backend.core.errors import BadRequest

BODY_TIMEOUT_S = 60.0


async def read_json_object(request: Request, *, optional: bool = False) -> dict[str, Any]:
    """The JSON object of a body.

    Args:
        optional: an empty body is an empty object.

    Raises:
        BadRequest: it is none, or it does not arrive in time.
        ClientDisconnected: it will not arrive any more.
    """
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            body = await request.body()
    except TimeoutError:
        raise BadRequest(f"The body did not arrive within {BODY_TIMEOUT_S:g} s.") from None
    except ClientDisconnect:
        raise ClientDisconnected from None
    if optional and not body:
        return {}
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise BadRequest("The body is not valid JSON.") from None
    if not isinstance(fields, dict):
        raise BadRequest("The body must be a JSON object.")
    return fields
