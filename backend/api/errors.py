"""Every error of every route in OpenAI's shape, rendered in one place.

What leaves here never holds a stack trace, a path, a class name or the input that was wrong; those go to the log.
What nobody expected becomes a 500 in `backend.api.middleware`, the outermost layer.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from backend.core.errors import ApiError, BadRequest, NotFound, Unprocessable

logger = logging.getLogger(__name__)

STATUS_TYPES = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error"} | {
    404: "not_found_error",
    405: "invalid_request_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
}
CLIENT_CLOSED_REQUEST = 499


class ClientDisconnected(Exception):
    """The client went away: whatever was being done for it has been stopped, and nobody reads the response."""


class JSONBytes(Response):
    """A JSON response by orjson."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content)


def error_response(error: ApiError) -> Response:
    return JSONBytes(error.body(), status_code=error.status, headers=error.headers)


def validation_error(errors: Sequence[Mapping[str, Any]], kind: type[ApiError] = BadRequest) -> ApiError:
    """The first complaint of pydantic as one of our errors.

    A field that takes several types complains once for each: the deepest complaint is about the type that was meant.
    """
    worst = max(errors, key=lambda error: len(error["loc"]))
    path = [str(part) for part in worst["loc"] if not _names_a_type(part)]
    param = ".".join(part for part in path if part not in {"body", "query", "path"}) or None
    message = str(worst["msg"]).removeprefix("Value error, ")
    return kind(f"{param}: {message}." if param else f"{message}.", param=param)


def _names_a_type(part: object) -> bool:
    # pydantic puts the branch of a union into the path: "str", "list[ContentPart]", "literal['none']", a model's name
    return isinstance(part, str) and (part in {"str", "dict", "int"} or "[" in part or part[:1].isupper())


def _allowed_methods(request: Request) -> list[str]:
    """Starlette names those of one route alone, though several routes share an address."""
    return [
        method
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in request.app.routes)
    ]


def install_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def api_error(request: Request, error: ApiError) -> Response:
        if error.status >= 500:
            logger.warning("%s: %s", type(error).__name__, error.message)
        return error_response(error)

    @app.exception_handler(RequestValidationError)
    async def invalid_request(request: Request, error: RequestValidationError) -> Response:
        kind = BadRequest if request.url.path.startswith("/v1/") else Unprocessable
        if any(item["type"] == "json_invalid" for item in error.errors()):
            return error_response(BadRequest("The body is not valid JSON."))
        return error_response(validation_error(error.errors(), kind))

    @app.exception_handler(ValidationError)
    async def invalid_body(request: Request, error: ValidationError) -> Response:
        return error_response(validation_error(error.errors(include_url=False, include_input=False)))

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        # Starlette's own: unknown routes, wrong methods, bodies that do not parse.
        if error.status_code == 404:
            return error_response(NotFound(f"There is no {request.method} route at this address. See /docs."))
        if error.status_code == 405:
            error.headers = {"Allow": ", ".join(_allowed_methods(request))}
        ours = ApiError(str(error.detail) if error.status_code < 500 else "The server failed.")
        kind = STATUS_TYPES.get(error.status_code, "server_error")
        body = {"error": {**ours.body()["error"], "type": kind}}
        return JSONBytes(body, status_code=error.status_code, headers=error.headers)

    @app.exception_handler(ClientDisconnected)
    async def client_disconnected(request: Request, error: ClientDisconnected) -> Response:
        return Response(status_code=CLIENT_CLOSED_REQUEST)
