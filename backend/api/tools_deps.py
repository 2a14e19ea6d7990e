"""What the tools API's routes ask for in their signatures: its parts, and who calls.

async def route(caller: AnyCaller, context: Tools) -> ...     a user, or the main API on a user's behalf
"""

from typing import Annotated

from fastapi import Depends, Request
from fastapi.openapi.models import HTTPBearer as HTTPBearerModel
from fastapi.security.base import SecurityBase

from backend.api.deps import get_credential
from backend.api.model_route import LimitedRoute
from backend.api.tools_context import ToolsContext
from backend.core.identity import Principal, ToolCaller


class _MayCallTools(SecurityBase):
    def __init__(self) -> None:
        self.model = HTTPBearerModel(description="Your token or API key, as on the main API.")
        self.scheme_name = "bearer"

    async def __call__(self, request: Request) -> ToolCaller:
        context: ToolsContext = request.app.state.context
        return await context.authenticator.authenticate_tool_caller(get_credential(request.headers))


class LimitedToolsRoute(LimitedRoute):
    @staticmethod
    async def find_caller(request: Request) -> Principal | None:
        context: ToolsContext = request.app.state.context
        caller = await context.authenticator.authenticate_tool_caller(get_credential(request.headers))
        return None if caller.session_id else caller.principal  # the main API has let in what it asks for


async def get_tools_context(request: Request) -> ToolsContext:
    context: ToolsContext = request.app.state.context
    return context


Tools = Annotated[ToolsContext, Depends(get_tools_context)]
AnyCaller = Annotated[ToolCaller, Depends(_MayCallTools())]
