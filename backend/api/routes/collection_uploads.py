"""Documents on their way into a collection, on the tools API, with news of how far they are.

stream = (progress* file)* (result | error)      each an SSE event of that name, its data one JSON object
"""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from typing import Any

import orjson
from fastapi import APIRouter, Request
from pydantic import TypeAdapter, ValidationError
from starlette.datastructures import UploadFile
from starlette.responses import Response

from backend.api.bodies import arriving
from backend.api.deps import get_credential
from backend.api.disconnects import stop_on_disconnect
from backend.api.routes.collections import Collections, own_collection
from backend.api.sse import RunResponse
from backend.api.tool_results import error_frame, event_frame
from backend.api.tools_context import ToolsContext
from backend.api.tools_deps import AnyCaller, LimitedToolsRoute, Tools
from backend.core.documents.collections import DEFAULT, DocumentCollections
from backend.core.documents.records import Attributes, Collection, Progress
from backend.core.documents.uploads import FileTaken, IncomingFile, add_files, with_progress
from backend.core.errors import BadRequest, NotFound
from backend.core.identity import ToolCaller
from backend.models.collections import CollectionInfo, UploadedFile, UploadResult
from backend.utils.unique_ids import unique_hex

UPLOAD_TIMEOUT_S = 600.0
MAX_FILES = 100
MAX_FIELDS = 20
ATTRIBUTES = TypeAdapter(dict[str, str | float | bool])

FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["files"],
                    "properties": {
                        "files": {"type": "array", "items": {"type": "string", "format": "binary"}},
                        "collection": {"type": "string", "description": "name or id; made, if there is none"},
                        "attributes": {"type": "string", "description": "a JSON object"},
                    },
                }
            }
        },
    }
}

router = APIRouter(prefix="/api/tools/rag", tags=["documents"], route_class=LimitedToolsRoute)


@router.post(
    "/collections/{ref}/reindex", responses={200: {"model": UploadResult, "content": {"text/event-stream": {}}}}
)
async def reindex_collection(
    ref: str, request: Request, caller: AnyCaller, context: Tools, collections: Collections
) -> Response:
    """Read documents again that were made with another embedding model."""
    collection = await own_collection(collections, caller, ref)

    async def work() -> AsyncGenerator[Progress | FileTaken, None]:
        again = with_progress(
            lambda listen: collections.reindex(caller.principal.username, collection.id, progress=listen)
        )
        async with aclosing(again) as news:
            async for item in news:
                if isinstance(item, Progress):
                    yield item
                else:
                    for added in item:
                        yield FileTaken(added.document.name, added)

    return await _reply(request, context, collection, work())


@router.post(
    "/upload", openapi_extra=FORM, responses={200: {"model": UploadResult, "content": {"text/event-stream": {}}}}
)
async def upload_documents(request: Request, caller: AnyCaller, context: Tools, collections: Collections) -> Response:
    """Read files (form field `files`) into a `collection`, each in place of the document of its name.

    A collection of a new name is made.
    `attributes`, a JSON object, are those of each document; searches can be filtered by them.
    With `Accept: text/event-stream` it streams how far each file is. A file that cannot be read is told in the result;
    the others are taken.
    """
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise BadRequest("Send the documents as multipart form data, in the field `files`.")
    async with AsyncExitStack() as stack:
        async with arriving(UPLOAD_TIMEOUT_S):
            form = await request.form(max_files=MAX_FILES, max_fields=MAX_FIELDS)
        stack.push_async_callback(form.close)
        # Files may arrive for long: nothing is made any more for a user who was deleted meanwhile.
        await context.authenticator.authenticate_tool_caller(get_credential(request.headers))
        ref = form.get("collection") or DEFAULT
        collection = await _own_or_new(collections, caller, ref if isinstance(ref, str) else DEFAULT)
        attributes = _attributes(form.get("attributes"))
        uploaded = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        if not uploaded:
            raise BadRequest("There is no file in the field `files`.", param="files")
        files = []
        for file in uploaded:
            draft = await stack.enter_async_context(context.drafts.take(file.file, f"rag_{unique_hex(12)}"))
            files.append(IncomingFile(_base_name(file.filename or ""), draft.path))
        kept = stack.pop_all()

    async def work() -> AsyncGenerator[Progress | FileTaken, None]:
        username = caller.principal.username
        async with kept, aclosing(add_files(collections, username, collection.id, files, attributes)) as news:
            async for item in news:
                yield item

    return await _reply(request, context, collection, work())


async def _own_or_new(collections: DocumentCollections, caller: ToolCaller, ref: str) -> Collection:
    try:
        return await own_collection(collections, caller, ref)
    except NotFound:
        return await collections.create(caller.principal.username, ref)


def _attributes(given: object) -> Attributes | None:
    """Raises: BadRequest"""
    if given is None:
        return None
    try:
        return ATTRIBUTES.validate_json(given if isinstance(given, str) else "")
    except ValidationError:
        raise BadRequest(
            "attributes is a JSON object whose values are texts, numbers or booleans.", param="attributes"
        ) from None


def _base_name(name: str) -> str:
    """What a browser or a client calls a file, without its folders."""
    return name.replace("\\", "/").rpartition("/")[2]


async def _reply(
    request: Request,
    context: ToolsContext,
    collection: Collection,
    work: AsyncGenerator[Progress | FileTaken, None],
) -> Response:
    """News as a stream, or the end alone, as the client asks."""
    result = UploadResult(collection=CollectionInfo.of(collection), files=[], failed=0)
    if "text/event-stream" in request.headers.get("accept", ""):
        return RunResponse(
            _frames(work, result),
            dict,
            keepalive_s=context.settings.SSE_KEEPALIVE_S,
            stall_s=context.settings.CLIENT_STALL_TIMEOUT_S,
            open_streams=context.metrics.open_streams,
            encode_error=error_frame,
        )
    async with stop_on_disconnect(request.receive), aclosing(work) as news:
        async for item in news:
            _note(item, result)
    return Response(result.model_dump_json(), media_type="application/json")


async def _frames(
    work: AsyncGenerator[Progress | FileTaken, None], result: UploadResult
) -> AsyncGenerator[bytes, None]:
    async with aclosing(work) as news:
        async for item in news:
            taken = _note(item, result)
            if taken:
                yield event_frame(b"file", taken.model_dump_json().encode())
            else:
                yield event_frame(b"progress", orjson.dumps(item))
    yield event_frame(b"result", result.model_dump_json().encode())


def _note(item: Progress | FileTaken, result: UploadResult) -> UploadedFile | None:
    if isinstance(item, Progress):
        return None
    if item.added:
        taken = UploadedFile.of(item.added)
    else:
        taken = UploadedFile(name=item.name, outcome="failed", error=item.error.message if item.error else None)
        result.failed += 1
    result.files.append(taken)
    return taken
