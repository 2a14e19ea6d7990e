"""A route for the few requests that make up the load: it is documented by FastAPI, and run without it."""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response


class HandRoute(APIRoute):
    """Calls its function with the request alone.

    FastAPI's dependencies and body parsing cost more than all that the chat route itself does, so the function reads
    the body and authenticates by hand. Dependencies that are declared for such a route only appear in `/docs`.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        endpoint: Callable[[Request], Awaitable[Response]] = self.endpoint

        async def handle(request: Request) -> Response:
            return await endpoint(request)

        return handle
