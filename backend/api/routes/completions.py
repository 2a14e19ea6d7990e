"""`POST /v1/completions`: the model goes on with a text, as it stands. No template, no session, no agent."""

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from backend.agents.merging import Merged
from backend.api.bodies import parse_object, read_json_object
from backend.api.completions import CompletionHead
from backend.api.deps import authenticate_request, get_context, signed_in
from backend.api.disconnects import stop_on_disconnect
from backend.api.errors import JSONBytes
from backend.api.model_route import ModelRoute
from backend.api.sse import RunResponse
from backend.api.text_completions import TextEncoder, text_completion_object
from backend.api.turn_replies import turn_headers
from backend.core.errors import BadRequest, ContextOverflow
from backend.core.events import Event
from backend.core.llm.base import LLMRequest, Sampling
from backend.core.turns import OpenTurn, Question
from backend.models.answers import TextCompletion
from backend.models.completions import MAX_PROMPTS, CompletionRequest

router = APIRouter(tags=["completions"], route_class=ModelRoute)

REQUEST_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": CompletionRequest.model_json_schema()}},
    }
}


@router.post(
    "/v1/completions",
    openapi_extra=REQUEST_BODY,
    responses={200: {"model": TextCompletion, "content": {"text/event-stream": {}}}},
    dependencies=[Depends(signed_in)],
)
async def create_completion(request: Request) -> Response:
    """Go on with one text or several, in the shape of OpenAI's older API."""
    caller = await authenticate_request(request)
    context = await get_context(request)
    request_id: str = request.state.request_id
    wire = _parse(await read_json_object(request))
    prompts = _prompts(wire.prompt)
    turns = [
        await context.turns.open(_question(wire, prompt), username=caller.username, request_id=request_id)
        for prompt in prompts
    ]
    copies = wire.n or 1
    beginnings = [prompt if wire.echo else "" for prompt in prompts for _ in range(copies)]
    head = CompletionHead(f"cmpl-{request_id}", int(time.time()), wire.model or "default", None)
    if wire.stream:
        include_usage = bool(wire.stream_options and wire.stream_options.include_usage)
        encoder = TextEncoder(head, beginnings, include_usage=include_usage)
        return RunResponse(
            _frames(_events(turns), encoder),
            lambda: turn_headers(turns[0]),
            keepalive_s=context.settings.SSE_KEEPALIVE_S,
            stall_s=context.settings.CLIENT_STALL_TIMEOUT_S,
            open_streams=context.metrics.open_streams,
        )
    async with stop_on_disconnect(request.receive), aclosing(_events(turns)) as events:
        async for _ in events:
            pass  # the answers of the turns hold the result
    answers = [answer for turn in turns for answer in turn.answers]
    return JSONBytes(text_completion_object(head, answers, beginnings), headers=turn_headers(turns[0]))


def _parse(fields: dict[str, Any]) -> CompletionRequest:
    wire = parse_object(CompletionRequest, fields)
    if wire.best_of is not None and wire.best_of > (wire.n or 1):
        raise BadRequest("All completions are returned: leave best_of out, or set it to n.", param="best_of")
    if wire.echo and wire.logprobs is not None:
        raise BadRequest("The prompt's own tokens have no logprobs here: leave echo out.", param="echo")
    return wire


def _prompts(given: Any) -> list[str]:
    """Raises: BadRequest for what is no text."""
    prompts = [given] if isinstance(given, str) else given
    if not isinstance(prompts, list) or not prompts:
        raise BadRequest("The prompt is a text, or a list of texts.", param="prompt")
    if all(isinstance(prompt, int | list) for prompt in prompts):
        raise BadRequest("Prompts of tokens are not taken, since models differ in theirs: send text.", param="prompt")
    if not all(isinstance(prompt, str) for prompt in prompts):
        raise BadRequest("The prompt is a text, or a list of texts.", param="prompt")
    if len(prompts) > MAX_PROMPTS:
        raise BadRequest(f"A request may have {MAX_PROMPTS} prompts at most.", param="prompt")
    return prompts


def _question(wire: CompletionRequest, prompt: str) -> Question:
    stop = [wire.stop] if isinstance(wire.stop, str) else wire.stop or ()
    sampling = Sampling(
        temperature=wire.temperature,
        top_p=wire.top_p,
        max_tokens=None if wire.max_tokens is None else max(1, wire.max_tokens),
        stop=tuple(filter(None, stop)),
        seed=wire.seed,
        presence_penalty=wire.presence_penalty,
        frequency_penalty=wire.frequency_penalty,
        logit_bias=wire.logit_bias or None,
        logprobs=wire.logprobs is not None,
        top_logprobs=wire.logprobs,
    )
    request = LLMRequest(wire.model or "", (), sampling, prompt=prompt, suffix=wire.suffix or None)
    return Question(request, agent="chat", store=False, choices=wire.n or 1)


async def _events(turns: Sequence[OpenTurn]) -> AsyncGenerator[tuple[int, Event], None]:
    """The events of all choices of all prompts as they come, each with its choice's index.

    Raises:
        ApiError: one of them failed; the others are ended.
    """
    runs = [turn.run(choice) for turn in turns for choice in range(len(turn.answers))]
    merged: Merged[tuple[int, Event]] = Merged()
    for index, run in enumerate(runs):
        merged.add(_numbered(index, run))
    try:
        async with aclosing(merged.items()) as events:
            async for numbered in events:
                yield numbered
    except ContextOverflow as error:
        error.param = "prompt"
        raise


async def _numbered(index: int, events: AsyncGenerator[Event, None]) -> AsyncGenerator[tuple[int, Event], None]:
    async with aclosing(events):
        async for event in events:
            yield index, event


async def _frames(events: AsyncGenerator[tuple[int, Event], None], encoder: TextEncoder) -> AsyncGenerator[bytes, None]:
    async with aclosing(events):
        async for choice, event in events:
            yield encoder.encode(event, choice)
    yield encoder.end()
