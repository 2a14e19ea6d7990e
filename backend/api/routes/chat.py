"""`POST /v1/chat/completions`."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from backend.api.chat_requests import asks_for_functions, read_chat_request, to_question
from backend.api.completions import ChunkEncoder, CompletionHead, completion_object
from backend.api.deps import authenticate_request, get_context, signed_in
from backend.api.disconnects import stop_on_disconnect
from backend.api.errors import JSONBytes
from backend.api.file_parts import open_file_parts
from backend.api.model_route import ModelRoute
from backend.api.neighbours import read_chat_id
from backend.api.pictures import fetch_pictures
from backend.api.sse import RunResponse
from backend.api.status_lines import StatusLines
from backend.api.turn_replies import finish, turn_headers
from backend.core.turns import OpenTurn
from backend.models.answers import ChatCompletion
from backend.models.chat import ChatCompletionRequest

router = APIRouter(tags=["chat"], route_class=ModelRoute)

REQUEST_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": ChatCompletionRequest.model_json_schema()}},
    }
}


@router.post(
    "/v1/chat/completions",
    openapi_extra=REQUEST_BODY,
    responses={200: {"model": ChatCompletion, "content": {"text/event-stream": {}}}},
    dependencies=[Depends(signed_in)],
)
async def create_chat_completion(request: Request) -> Response:
    """Answer a conversation, in OpenAI's shape, as one object or as a stream of Server-Sent Events."""
    caller = await authenticate_request(request)
    context = await get_context(request)
    request_id: str = request.state.request_id
    async with read_chat_request(request) as (wire, attachments):
        question = to_question(wire, request.headers, attachments)
        messages = await fetch_pictures(question.request.messages)
        question = replace(question, request=replace(question.request, messages=messages))
        async with open_file_parts(question, context.files, caller.username) as asked:
            turn = await context.turns.open(asked, username=caller.username, request_id=request_id)
    head = CompletionHead(
        f"chatcmpl-{request_id}", int(time.time()), wire.model or "default", turn.session_id, turn.run_id
    )
    functions = asks_for_functions(wire)
    if wire.stream:
        include_usage = bool(wire.stream_options and wire.stream_options.include_usage)
        encoder = ChunkEncoder(head, include_usage=include_usage, choices=question.choices, functions=functions)
        shown = StatusLines(encoder) if read_chat_id(request.headers) else encoder
        settings = context.settings
        return RunResponse(
            _frames(turn, shown),
            lambda: turn_headers(turn),
            keepalive_s=settings.SSE_KEEPALIVE_S,
            stall_s=settings.CLIENT_STALL_TIMEOUT_S,
            open_streams=context.metrics.open_streams,
            encode_error=shown.encode_error,
        )
    async with stop_on_disconnect(request.receive):
        await finish(turn)
    return JSONBytes(completion_object(head, turn.answers, functions=functions), headers=turn_headers(turn))


async def _frames(turn: OpenTurn, encoder: ChunkEncoder | StatusLines) -> AsyncGenerator[bytes, None]:
    if len(turn.answers) == 1:
        async with aclosing(turn.run()) as events:
            async for event in events:
                yield encoder.encode(event)
    else:
        async with aclosing(turn.run_all()) as numbered_events:
            async for choice, event in numbered_events:
                yield encoder.encode(event, choice)
    yield encoder.end()
