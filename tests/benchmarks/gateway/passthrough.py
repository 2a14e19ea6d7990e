"""The least that a Python gateway can do: Starlette, one aiohttp client, bytes forwarded as they come.

No sign-in, no storage, nothing parsed but whether to stream: what remains is the price of the two HTTP libraries.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypedDict

import aiohttp
import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route


class State(TypedDict):
    client: aiohttp.ClientSession


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[State]:
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=60)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as client:
        yield {"client": client}


async def forward(request: Request) -> Response:
    body = await request.body()
    client: aiohttp.ClientSession = request.state.client
    answer = await client.post(UPSTREAM, data=body, headers={"Content-Type": "application/json"})
    if orjson.loads(body).get("stream"):
        return StreamingResponse(_chunks(answer), answer.status, media_type="text/event-stream")
    async with answer:
        return Response(await answer.read(), answer.status, media_type="application/json")


async def _chunks(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    async with answer:
        async for chunk in answer.content.iter_any():
            yield chunk


if __name__ == "__main__":
    port, upstream = sys.argv[1:]
    UPSTREAM = f"{upstream}/v1/chat/completions"
    app = Starlette(routes=[Route("/v1/chat/completions", forward, methods=["POST"])], lifespan=lifespan)
    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning", access_log=False)
