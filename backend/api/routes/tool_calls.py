"""`POST /api/tools/{name}`: one route for each tool, documented with the tool's own arguments."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Annotated, Any
from urllib.parse import unquote

from fastapi import APIRouter, Header, Request
from starlette.responses import Response

from backend.api.bodies import parse_object, read_json_object
from backend.api.disconnects import stop_on_disconnect
from backend.api.model_route import let_in
from backend.api.sse import RunResponse
from backend.api.tool_results import encode_result, error_frame, progress_frame, result_frame
from backend.api.tools_context import ToolsContext
from backend.api.tools_deps import AnyCaller, Tools
from backend.core.contracts import ToolContext, ToolResult
from backend.core.identity import ToolCaller
from backend.core.storage.sessions import new_session_id
from backend.core.tool_runs import Progress
from backend.core.toolbox import LoadedTool, Toolbox
from backend.models.tools import ToolCallResult

SessionHeader = Annotated[
    str | None, Header(alias="X-Session-ID", description="the session whose files the tool sees; none: a new one")
]
CollectionHeader = Annotated[
    str | None, Header(alias="X-RAG-Collection", description="what `rag` searches, URL-encoded, each in a line")
]
ModelHeader = Annotated[
    str | None, Header(alias="X-LLM-Model", description="the model that works for the tool, URL-encoded")
]
Run = AsyncGenerator[Progress | ToolResult, None]


def make_router(toolbox: Toolbox) -> APIRouter:
    router = APIRouter(tags=["tools"])
    for tool in toolbox:
        router.add_api_route(
            f"/api/tools/{tool.spec.name}",
            _endpoint(tool),
            methods=["POST"],
            name=tool.spec.name,
            operation_id=tool.spec.name,
            description=f"{tool.spec.description}\n\nWith `Accept: text/event-stream` it streams progress on the way.",
            responses={200: {"model": ToolCallResult, "content": {"text/event-stream": {}}}},
            openapi_extra=_request_body(tool),
        )

    @router.post("/api/tools/{name}", include_in_schema=False)
    async def call_unknown_tool(name: str, caller: AnyCaller) -> Response:
        toolbox.find(name)
        raise AssertionError("a tool that is known has a route of its own")

    return router


def _endpoint(tool: LoadedTool) -> Callable[..., Awaitable[Response]]:
    async def call_tool(
        request: Request,
        caller: AnyCaller,
        context: Tools,
        session_id: SessionHeader = None,
        rag_collection: CollectionHeader = None,
        model: ModelHeader = None,
    ) -> Response:
        async def answer(request: Request) -> Response:
            return await _call(tool, request, caller, context, session_id, rag_collection, model)

        if caller.session_id:  # the main API has let the question in that this belongs to
            return await answer(request)
        return await let_in(answer, request, caller.principal)

    return call_tool


async def _call(
    tool: LoadedTool,
    request: Request,
    caller: ToolCaller,
    context: ToolsContext,
    session_id: str | None,
    rag_collection: str | None,
    model: str | None,
) -> Response:
    args = parse_object(tool.spec.args, await read_json_object(request, optional=True))
    tool.check_not_off()  # before a session is made for nothing
    await context.scratch_quota.check(caller.principal.username)
    session_id = await _enter_session(caller, session_id, tool, context)
    tool_context = ToolContext(
        username=caller.principal.username,
        session_id=session_id,
        request_id=request.state.request_id,
        workspace=await context.sessions.scratch(session_id),
        rag_collection=unquote(rag_collection) if rag_collection else None,
        llm=context.llm,
        model=context.settings.TOOL_MODELS.get(tool.spec.name) or unquote(model or "default"),
    )
    run = context.runs.run(tool, args, tool_context)
    headers = {"X-Session-ID": session_id}
    if "text/event-stream" in request.headers.get("accept", ""):
        return RunResponse(
            _frames(run),
            lambda: headers,
            keepalive_s=context.settings.SSE_KEEPALIVE_S,
            stall_s=context.settings.CLIENT_STALL_TIMEOUT_S,
            open_streams=context.metrics.open_streams,
            encode_error=error_frame,
        )
    async with stop_on_disconnect(request.receive):
        result = await _finish(run)
    return Response(encode_result(result), media_type="application/json", headers=headers)


async def _enter_session(caller: ToolCaller, named: str | None, tool: LoadedTool, context: ToolsContext) -> str:
    """The session of a call: the one that the main API's token names, or the user's own, or a new one.

    Raises:
        NotFound: the session is not the user's.
    """
    if caller.session_id:
        return caller.session_id
    username = caller.principal.username
    if named:
        await context.sessions.open(username, named)
        return named
    session_id = new_session_id()
    await context.sessions.create(username, session_id, (), title=tool.spec.name)
    return session_id


async def _frames(run: Run) -> AsyncGenerator[bytes, None]:
    async with aclosing(run):
        async for item in run:
            yield progress_frame(item) if isinstance(item, Progress) else result_frame(item)


async def _finish(run: Run) -> ToolResult:
    async with aclosing(run):
        async for item in run:
            if isinstance(item, ToolResult):
                return item
    raise AssertionError("a run ends with its result")


def _request_body(tool: LoadedTool) -> dict[str, Any]:
    schema = _argument_schema(tool)
    schema.pop("$defs", None)
    return {"requestBody": {"required": "required" in schema, "content": {"application/json": {"schema": schema}}}}


def nested_schemas(toolbox: Toolbox) -> dict[str, Any]:
    """What the arguments of the tools are made of, as the components of the API's description that they refer to."""
    return {
        f"{tool.spec.name}.{name}": schema
        for tool in toolbox
        for name, schema in _argument_schema(tool).get("$defs", {}).items()
    }


def _argument_schema(tool: LoadedTool) -> dict[str, Any]:
    return tool.spec.args.model_json_schema(ref_template=f"#/components/schemas/{tool.spec.name}.{{model}}")
