"""The way into every route that costs something: `APIRouter(route_class=ModelRoute)` is all that such a route does.

A POST is let in by the caller's limits and holds its place until the last byte of its response; its tokens are counted
on the caller (`backend.core.usage`); and one with an `Idempotency-Key` is answered once. Other methods pass through.
"""

from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from backend.api.deps import authenticate_request, get_context
from backend.api.hand_route import HandRoute
from backend.api.idempotency import HEADER
from backend.core.identity import Principal
from backend.core.limits import Standing
from backend.core.usage import Asker, asker_var

EndpointCall = Callable[[Request], Coroutine[Any, Any, Response]]


class ModelRoute(HandRoute):
    """A `HandRoute` whose function is called once the caller is let in."""

    def get_route_handler(self) -> EndpointCall:
        endpoint = super().get_route_handler()
        if self.methods != {"POST"}:
            return endpoint

        async def handle(request: Request) -> Response:
            caller = await authenticate_request(request)
            if HEADER not in request.headers:
                return await let_in(endpoint, request, caller)
            context = await get_context(request)
            # Of the account, not of its name alone: a later one of the same name is somebody else.
            account = f"{caller.username} {(await context.users.get(caller.username)).created_at}"
            return await context.repeats.answer(request, account, lambda again: let_in(endpoint, again, caller))

        return handle


class LimitedRoute(APIRoute):
    """An ordinary route for work that no model does: its POSTs too are let in by the caller's limits."""

    @staticmethod
    async def find_caller(request: Request) -> Principal | None:
        """Whose limits hold; nobody's where the request has been let in before."""
        return await authenticate_request(request)

    def get_route_handler(self) -> EndpointCall:
        endpoint = super().get_route_handler()
        if self.methods != {"POST"}:
            return endpoint

        async def handle(request: Request) -> Response:
            caller = await self.find_caller(request)
            return await (let_in(endpoint, request, caller) if caller else endpoint(request))

        return handle


async def let_in(endpoint: EndpointCall, request: Request, caller: Principal) -> Response:
    """What `endpoint` answers, if the caller's limits allow it.

    Raises:
        TooManyRequests, QuotaExceeded
    """
    asker_var.set(Asker(caller.username, caller.key_id))
    limits = (await get_context(request)).limits
    bounds = limits.bounds(caller)
    if not bounds:
        return await endpoint(request)
    standing = Standing()
    request.state.response_headers = standing.headers
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(limits.admitted(bounds, standing))
        response = await endpoint(request)
        return _Held(response, stack.pop_all())


class _Held(Response):
    """A response that gives back its caller's place when it has been sent."""

    def __init__(self, response: Response, place: AsyncExitStack) -> None:
        self.status_code = response.status_code
        self.background = None
        self._response = response
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._place:
            await self._response(scope, receive, send)
