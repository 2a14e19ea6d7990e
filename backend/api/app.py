"""The main API as an ASGI application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from backend.api.context import open_context
from backend.api.errors import install_error_handlers
from backend.api.metrics import Metrics
from backend.api.middleware import RequestMiddleware
from backend.api.routes import admin, auth, chat, health, models, sessions
from config import Settings

EXPOSED_HEADERS = ["X-Request-ID", "X-Session-ID", "X-LLM-Backend", "X-Dropped-Messages", "Retry-After"]
DESCRIPTION = "OpenAI-compatible chat with users, sessions and agents, on top of your own models."


def create_app(settings: Settings) -> FastAPI:
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_context(settings, metrics) as context:
            app.state.context = context
            yield

    app = FastAPI(title="LLM API Server", description=DESCRIPTION, lifespan=lifespan, redoc_url=None)
    install_error_handlers(app)
    add_middleware(app, settings, metrics)
    for routes in (chat, models, auth, admin, sessions, health):
        app.include_router(routes.router)
    return app


def add_middleware(app: FastAPI, settings: Settings, metrics: Metrics) -> None:
    """The layers that both servers have; the last one added is the outermost."""
    if settings.CORS_ORIGINS:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.CORS_ORIGINS,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=EXPOSED_HEADERS,
            # A browser may send what it has stored for us only to origins that are named.
            allow_credentials="*" not in settings.CORS_ORIGINS,
        )
    app.add_middleware(
        RequestMiddleware,
        metrics=metrics,
        max_body=settings.MAX_BODY_MB * 2**20,
        max_upload=settings.MAX_UPLOAD_MB * 2**20,
    )
