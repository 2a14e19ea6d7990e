"""`/v1/responses`: an answer as OpenAI's newer API has it, made by the same turns as that of a chat."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from backend.api.bodies import read_json_object
from backend.api.deps import Caller, Context, authenticate_request, get_context, signed_in
from backend.api.disconnects import stop_on_disconnect
from backend.api.errors import JSONBytes
from backend.api.file_parts import open_file_parts
from backend.api.model_route import ModelRoute
from backend.api.pictures import fetch_pictures
from backend.api.response_items import input_item_objects, list_input, resolve_references
from backend.api.response_output import ResponseOutput
from backend.api.response_stream import OpenResponse, ResponseEncoder
from backend.api.responses_requests import named_as_here, parse_response_request, to_response_question
from backend.api.sse import RunResponse
from backend.api.turn_replies import turn_headers
from backend.core.errors import ApiError, BadRequest, ContextOverflow, NotFound
from backend.core.events import Event, HistoryTrimmed, RunFinished
from backend.core.storage.responses import Responses, StoredResponse
from backend.core.turns import OpenTurn
from backend.models.answers import DeletedResponse, InputItems, ResponseObject
from backend.models.responses import ResponseRequest
from backend.utils.unique_ids import unique_hex

router = APIRouter(tags=["responses"])
models = APIRouter(tags=["responses"], route_class=ModelRoute)  # the one route that has a model work

REQUEST_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": ResponseRequest.model_json_schema()}},
    }
}


@models.post(
    "/v1/responses",
    openapi_extra=REQUEST_BODY,
    responses={200: {"model": ResponseObject, "content": {"text/event-stream": {}}}},
    dependencies=[Depends(signed_in)],
)
async def create_response(request: Request) -> Response:
    """Answer an input, in the shape of OpenAI's Responses API, as one object or as a stream of named events."""
    caller = await authenticate_request(request)
    context = await get_context(request)
    fields = await read_json_object(request)
    wire = parse_response_request(fields)
    previous = await _find_previous(context.responses, caller.username, wire.previous_response_id)
    items = await resolve_references(
        list_input(wire.input), lambda response_id: context.responses.find(caller.username, response_id)
    )
    with named_as_here():
        question = to_response_question(wire, items, previous, request.headers)
        messages = await fetch_pictures(question.request.messages)
        question = replace(question, request=replace(question.request, messages=messages))
        async with open_file_parts(question, context.files, caller.username) as asked:
            turn = await context.turns.open(asked, username=caller.username, request_id=request.state.request_id)
    response = _begin(wire, fields, turn)

    async def keep() -> None:
        if turn.recorder and turn.session_id:
            key = response.id.removeprefix("resp_")
            stored = StoredResponse(
                response.id,
                caller.username,
                turn.session_id,
                time.time(),
                turn.spans,
                response.to_object(),
                input_item_objects(items, key),
            )
            await context.responses.keep(stored)

    may_trim = wire.truncation != "disabled"
    if wire.stream:
        encoder = ResponseEncoder(response)
        settings = context.settings
        return RunResponse(
            _frames(_events(turn, may_trim=may_trim, live=True), response, encoder, keep),
            lambda: turn_headers(turn),
            keepalive_s=settings.SSE_KEEPALIVE_S,
            stall_s=settings.CLIENT_STALL_TIMEOUT_S,
            open_streams=context.metrics.open_streams,
            encode_error=encoder.fail,
        )
    async with stop_on_disconnect(request.receive), aclosing(_events(turn, may_trim=may_trim, live=False)) as events:
        async for event in events:
            response.take(event)
        await keep()
    return JSONBytes(response.to_object(), headers=turn_headers(turn))


router.include_router(models)


@router.get("/v1/responses/{response_id}", responses={200: {"model": ResponseObject}})
async def retrieve_response(response_id: str, caller: Caller, context: Context, stream: bool = False) -> Response:
    """A response that was kept."""
    stored = await context.responses.find(caller.username, response_id)
    if stream:
        raise BadRequest("A response that is finished is not streamed again: leave stream out.", param="stream")
    return JSONBytes(stored.body)


@router.delete("/v1/responses/{response_id}", responses={200: {"model": DeletedResponse}})
async def delete_response(response_id: str, caller: Caller, context: Context) -> Response:
    """Forget a response. The conversation that it belongs to stays in its session."""
    await context.responses.delete(caller.username, response_id)
    return JSONBytes({"id": response_id, "object": "response", "deleted": True})


@router.post("/v1/responses/{response_id}/cancel")
async def cancel_response(response_id: str, caller: Caller, context: Context) -> Response:
    """Always an error: only responses that are made in the background could be cancelled, and here none is."""
    await context.responses.find(caller.username, response_id)
    raise BadRequest("Only background responses can be cancelled. To stop one, close the connection that it comes on.")


@router.get("/v1/responses/{response_id}/input_items", responses={200: {"model": InputItems}})
async def list_input_items(
    response_id: str,
    caller: Caller,
    context: Context,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Literal["asc", "desc"] = "desc",
    after: str | None = None,
) -> Response:
    """The items that a response was made from."""
    stored = await context.responses.find(caller.username, response_id)
    items = list(stored.input_items) if order == "asc" else list(stored.input_items)[::-1]
    if after is not None:
        place = next((at for at, item in enumerate(items) if item["id"] == after), None)
        if place is None:
            raise BadRequest("There is no item with the id in after.", param="after")
        items = items[place + 1 :]
    page = items[:limit]
    ends = {"first_id": page[0]["id"], "last_id": page[-1]["id"]} if page else {"first_id": "", "last_id": ""}
    return JSONBytes({"object": "list", "data": page, **ends, "has_more": len(items) > limit})


async def _find_previous(responses: Responses, username: str, response_id: str | None) -> StoredResponse | None:
    if response_id is None:
        return None
    try:
        return await responses.find(username, response_id)
    except NotFound as error:
        raise NotFound(error.message, param="previous_response_id", code="previous_response_not_found") from None


def _begin(wire: ResponseRequest, fields: dict[str, Any], turn: OpenTurn) -> OpenResponse:
    key = unique_hex(16)
    extensions = {"session_id": turn.session_id, "run_id": turn.run_id}
    return OpenResponse(
        f"resp_{key}",
        int(time.time()),
        wire.model or "default",
        _echo(wire, fields, turn),
        {name: value for name, value in extensions.items() if value is not None},
        ResponseOutput(
            key, include=frozenset(wire.include or ()), container_id=f"cntr_{turn.session_id or unique_hex(8)}"
        ),
    )


def _echo(wire: ResponseRequest, fields: dict[str, Any], turn: OpenTurn) -> dict[str, Any]:
    """The fields of the request that the object repeats, as the client sent them."""
    text, sampling = fields.get("text") or {}, turn.turn.request.sampling
    container = {"container": {"type": "auto"}}  # which clients of today do not leave out
    tools = [container | tool if tool["type"] == "code_interpreter" else tool for tool in fields.get("tools") or ()]
    echoed = {
        "instructions": wire.instructions,
        "max_output_tokens": wire.max_output_tokens,
        "metadata": wire.metadata or {},
        "parallel_tool_calls": wire.parallel_tool_calls is not False,
        "previous_response_id": wire.previous_response_id,
        "reasoning": {"effort": wire.reasoning and wire.reasoning.effort, "summary": None},
        "store": turn.recorder is not None,
        "temperature": sampling.temperature,
        "text": {**text, "format": text.get("format") or {"type": "text"}},
        "tool_choice": fields.get("tool_choice") or "auto",
        "tools": tools,
        "top_logprobs": wire.top_logprobs or 0,
        "top_p": wire.top_p,
        "truncation": wire.truncation or "auto",
        "user": wire.user,
    }
    return echoed | ({"conversation": {"id": wire.conversation.id}} if wire.conversation else {})


async def _events(turn: OpenTurn, *, may_trim: bool, live: bool) -> AsyncGenerator[Event, None]:
    with named_as_here():
        async with aclosing(turn.run(live=live)) as events:
            async for event in events:
                if isinstance(event, HistoryTrimmed) and not may_trim:
                    raise ContextOverflow(
                        "The conversation is too long, and truncation is disabled: shorten it, or set it to auto."
                    )
                yield event


async def _frames(
    events: AsyncGenerator[Event, None],
    response: OpenResponse,
    encoder: ResponseEncoder,
    keep: Callable[[], Awaitable[None]],
) -> AsyncGenerator[bytes, None]:
    """The bytes of a run. The response is kept before the event that says how it ended, or when the client leaves."""
    frame = b""
    try:
        async with aclosing(events):
            async for event in events:
                frame = encoder.encode(event)
                if isinstance(event, RunFinished):
                    await keep()
                    frame += encoder.end()
                yield frame
                frame = b""
    except ApiError as error:
        if not encoder.begun:
            raise
        frame += encoder.fail(error)
        with suppress(ApiError):  # what the client is told is what went wrong first
            await keep()
        yield frame
    except (asyncio.CancelledError, GeneratorExit):
        if encoder.begun and response.status == "in_progress":
            response.cancel()
            await keep()
        raise
