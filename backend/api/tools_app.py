"""The tools API as an ASGI application."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from backend.api.description import describe_truthfully
from backend.api.docs_page import add_docs_page
from backend.api.errors import install_error_handlers
from backend.api.middleware import add_middleware
from backend.api.routes import collection_uploads, collections, text_vectors, tool_calls, tools
from backend.api.tool_metrics import ToolMetrics
from backend.api.tools_context import open_tools_context
from backend.core.toolbox import Toolbox
from config import Settings
from tools_config import TOOLS

DESCRIPTION = "What agents and users can have done: code run, the web and documents searched, presentations made."


def create_tools_app(settings: Settings, tools_list: Mapping[str, str] = TOOLS) -> FastAPI:
    metrics = ToolMetrics()
    toolbox = Toolbox(tools_list, settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_tools_context(settings, metrics, toolbox) as context:
            app.state.context = context
            yield

    app = FastAPI(title="LLM tools API", description=DESCRIPTION, lifespan=lifespan, docs_url=None, redoc_url=None)
    install_error_handlers(app)
    add_middleware(app, settings, metrics)
    for routes in (tools, collections, collection_uploads, text_vectors):
        app.include_router(routes.router)
    app.include_router(tool_calls.make_router(toolbox))
    _describe_arguments(app, toolbox)
    describe_truthfully(app)
    add_docs_page(app)
    return app


def _describe_arguments(app: FastAPI, toolbox: Toolbox) -> None:
    """Put the parts of the tools' arguments where the API's description refers to them."""
    describe = app.openapi

    def describe_with_parts() -> dict[str, Any]:
        description = describe()
        description["components"]["schemas"] |= tool_calls.nested_schemas(toolbox)
        return description

    app.openapi = describe_with_parts  # type: ignore[method-assign]
