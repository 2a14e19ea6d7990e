"""The originals of documents, where the sources of answers point to."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import aiohttp
from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from backend.api.deps import Caller, Context
from backend.api.vector_stores import document_path

TIMEOUT_S = 3600.0  # of a download, whole
BLOCK_BYTES = 2**18
RELAYED = ("Accept-Ranges", "Content-Disposition", "Content-Length", "Content-Range", "Content-Type")

router = APIRouter(prefix="/api/documents", tags=["documents"])


@router.get("/{collection_id}/{document_id}", response_class=StreamingResponse)
async def download_document(
    collection_id: str, document_id: str, request: Request, caller: Caller, context: Context
) -> Response:
    """The file that was handed in, whole or the part that `Range` names."""
    path = f"{document_path(collection_id, document_id)}/file"
    headers = {name: request.headers[name] for name in ("Range", "If-Range") if name in request.headers}
    async with AsyncExitStack() as stack:
        answer = await stack.enter_async_context(
            context.tools_api.open(caller.username, "GET", path, headers=headers, timeout_s=TIMEOUT_S)
        )
        return _Relayed(answer, stack.pop_all())


class _Relayed(StreamingResponse):
    """An answer of the tools API, which is closed when it was passed on."""

    def __init__(self, answer: aiohttp.ClientResponse, opened: AsyncExitStack) -> None:
        headers = {name: answer.headers[name] for name in RELAYED if name in answer.headers}
        # A page that a stranger wrote is never to run as one of ours.
        super().__init__(_blocks(answer), answer.status, headers | {"X-Content-Type-Options": "nosniff"})
        self._opened = opened

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._opened:
            await super().__call__(scope, receive, send)


async def _blocks(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    async for block in answer.content.iter_chunked(BLOCK_BYTES):
        yield block
