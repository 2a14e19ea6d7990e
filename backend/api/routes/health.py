"""Whether the main API is alive and ready, and what it counts."""

import time
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from backend.api.deps import Caller, Context
from backend.core.errors import Unavailable

router = APIRouter(tags=["health"])


@router.get("/health")
async def health(context: Context) -> dict[str, Any]:
    """Always 200 while the process lives; tells what is up, and how old that knowledge is. Holds no address."""
    tools = await context.tool_client.state()
    return {
        "status": "ok",
        "uptime_s": round(time.monotonic() - context.started_at, 1),
        "backends": [
            {
                "name": state.name,
                "state": state.state,
                "age_s": None if state.age_s is None else round(state.age_s, 1),
                "models": len(state.models),
                "error": state.error,
            }
            for state in context.catalog.states()
        ],
        "tools": {"state": "up" if tools.up else "down", "age_s": round(tools.age_s, 1)},
    }


@router.get("/ready")
async def ready(caller: Caller, context: Context) -> dict[str, Any]:
    """200 while questions can be answered: a backend is up and the database answers."""
    up = [state.name for state in context.catalog.states() if state.state == "up"]
    if not up:
        raise Unavailable("No LLM backend is up.", code="backend_unavailable", retry_after_s=5)
    await context.database.read(lambda connection: connection.exec_driver_sql("SELECT 1").scalar())
    return {"status": "ready", "backends": up}


@router.get("/metrics", response_class=Response)
async def metrics(caller: Caller, context: Context) -> Response:
    """Counters for Prometheus (give it a bearer token)."""
    for state in context.catalog.states():
        context.metrics.backend_up.labels(state.name).set(state.state == "up")
    if context.prompt_log:
        context.metrics.prompt_log_dropped.set(context.prompt_log.dropped)
    return Response(context.metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")
