"""The main API as an ASGI application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from backend.api.context import open_context
from backend.api.description import describe_truthfully
from backend.api.docs_page import add_docs_page
from backend.api.errors import install_error_handlers
from backend.api.metrics import Metrics
from backend.api.middleware import add_middleware
from backend.api.routes import (
    admin,
    auth,
    chat,
    completions,
    documents,
    embeddings,
    files,
    health,
    models,
    responses,
    runs,
    sessions,
    usage,
    vector_store_files,
    vector_stores,
)
from config import Settings

DESCRIPTION = "OpenAI-compatible chat with users, sessions and agents, on top of your own models."


def create_app(settings: Settings) -> FastAPI:
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_context(settings, metrics) as context:
            app.state.context = context
            yield

    app = FastAPI(title="LLM API Server", description=DESCRIPTION, lifespan=lifespan, docs_url=None, redoc_url=None)
    install_error_handlers(app)
    add_middleware(app, settings, metrics)
    open_to_clients = (chat, responses, completions, embeddings, models, files, vector_stores, vector_store_files)
    for routes in (*open_to_clients, documents, auth, admin, sessions, usage, runs, health):
        app.include_router(routes.router)
    describe_truthfully(app)
    add_docs_page(app)
    return app
