"""Which tools there are, how they are, and what is counted of them."""

import time

from fastapi import APIRouter
from starlette.responses import Response

from backend.api.deps import Caller
from backend.api.tools_deps import AnyCaller, Tools
from backend.models.tools import ToolHealth, ToolInfo, ToolList, ToolsHealth

router = APIRouter(tags=["tools"])


@router.get("/health")
async def health(context: Tools) -> ToolsHealth:
    """Always 200 while the process lives; tells for each tool whether it is on, and if not, how to switch it on."""
    return ToolsHealth(
        uptime_s=round(time.monotonic() - context.started_at, 1),
        tools={tool.spec.name: ToolHealth.of(tool) for tool in context.toolbox},
    )


@router.get("/api/tools/list")
async def list_tools(caller: AnyCaller, context: Tools) -> ToolList:
    """All tools, also those that are off, with what is needed to call them."""
    return ToolList(
        tools=[
            ToolInfo(
                name=tool.spec.name,
                description=tool.spec.description,
                parameters=tool.parameters,
                enabled=(status := tool.status).enabled,
                starting=tool.is_starting,
                reason=status.reason,
                how_to_enable=status.how_to_enable,
                timeout_s=context.runs.timeout_s(tool),
            )
            for tool in context.toolbox
        ]
    )


@router.get("/metrics", response_class=Response)
async def metrics(caller: Caller, context: Tools) -> Response:
    """Counters for Prometheus (give it a bearer token)."""
    context.metrics.observe_queues(context.toolbox)
    return Response(context.metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")
