"""The tools: which there are, how they are, and a call of one."""

import time
from typing import Any

from fastapi import APIRouter, Request

router = APIRouter(tags=["tools"])


@router.get("/health")
async def health(request: Request) -> dict[str, Any]:
    """Always 200 while the process lives."""
    return {"status": "ok", "uptime_s": round(time.monotonic() - request.app.state.context.started_at, 1), "tools": {}}


@router.get("/api/tools/list")
async def list_tools() -> dict[str, Any]:
    return {"tools": []}
