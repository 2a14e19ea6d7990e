"""The tools API as an ASGI application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from backend.api.errors import install_error_handlers
from backend.api.metrics import Metrics
from backend.api.middleware import add_middleware
from backend.api.routes import tools
from backend.api.tools_context import open_tools_context
from config import Settings

DESCRIPTION = "What agents and users can have done: code run, the web and documents searched, presentations made."


def create_tools_app(settings: Settings) -> FastAPI:
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_tools_context(settings, metrics) as context:
            app.state.context = context
            yield

    app = FastAPI(title="LLM tools API", description=DESCRIPTION, lifespan=lifespan, redoc_url=None)
    install_error_handlers(app)
    add_middleware(app, settings, metrics)
    app.include_router(tools.router)
    return app
