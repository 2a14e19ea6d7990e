"""One's own files, in OpenAI's shapes: uploaded once, and named in requests by their ids.

Somebody else's file answers exactly like one that never was: 404.
"""

from typing import Annotated, Any, Literal, get_args

import orjson
from fastapi import APIRouter, Query, Request
from starlette.datastructures import FormData, UploadFile
from starlette.responses import Response, StreamingResponse

from backend.api.bodies import arriving
from backend.api.deps import Caller, Context
from backend.api.downloads import send_file
from backend.api.model_route import LimitedRoute
from backend.core.attachments import safe_name
from backend.core.errors import BadRequest
from backend.models.files import DeletedFile, FileObject, FileObjects, Purpose

UPLOAD_TIMEOUT_S = 600.0
MAX_FIELDS = 20
MAX_PAGE = 10_000
MIN_LIFETIME_S = 3_600
MAX_LIFETIME_S = 30 * 24 * 3_600
PURPOSES: tuple[str, ...] = get_args(Purpose)

router = APIRouter(prefix="/v1/files", tags=["files"], route_class=LimitedRoute)

FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "purpose": {"type": "string", "enum": PURPOSES},
                        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
                        "expires_after[seconds]": {
                            "type": "integer",
                            "minimum": MIN_LIFETIME_S,
                            "maximum": MAX_LIFETIME_S,
                        },
                    },
                }
            }
        },
    }
}


@router.post("", openapi_extra=FORM)
async def upload_file(request: Request, caller: Caller, context: Context) -> FileObject:
    """Keep a file. Name it in a `file` part of a message by its id."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise BadRequest("Send the file as multipart form data, with the fields `file` and `purpose`.")
    async with arriving(UPLOAD_TIMEOUT_S):
        form = await request.form(max_files=1, max_fields=MAX_FIELDS)
    try:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise BadRequest("The field `file` is missing, or is no file.", param="file")
        stored = await context.files.create(
            caller.username,
            file.file,
            filename=safe_name(file.filename or ""),
            purpose=_purpose(form),
            lifetime_s=_lifetime_s(form),
        )
    finally:
        await form.close()
    return FileObject.of(stored)


@router.get("")
async def list_files(
    caller: Caller,
    context: Context,
    after: Annotated[str | None, Query(max_length=100)] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = MAX_PAGE,
    order: Literal["asc", "desc"] = "desc",
    purpose: Annotated[str | None, Query(max_length=100)] = None,
) -> FileObjects:
    """Your files by the time they came, a page at a time."""
    page = await context.files.list(caller.username, after=after, limit=limit, order=order, purpose=purpose)
    return FileObjects.of(page)


@router.get("/{file_id}")
async def show_file(file_id: str, caller: Caller, context: Context) -> FileObject:
    return FileObject.of(await context.files.get(caller.username, file_id))


@router.get("/{file_id}/content", response_class=StreamingResponse)
async def download_file(file_id: str, request: Request, caller: Caller, context: Context) -> Response:
    """What is in a file, whole or the part that `Range` names."""
    stored, file = await context.files.open(caller.username, file_id)
    return await send_file(file, stored.filename, request)


@router.delete("/{file_id}")
async def delete_file(file_id: str, caller: Caller, context: Context) -> DeletedFile:
    await context.files.delete(caller.username, file_id)
    return DeletedFile(id=file_id)


def _purpose(form: FormData) -> str:
    purpose = form.get("purpose")
    if not isinstance(purpose, str) or purpose not in PURPOSES:
        raise BadRequest(f"purpose is one of: {', '.join(PURPOSES)}.", param="purpose")
    return purpose


def _lifetime_s(form: FormData) -> int | None:
    """`expires_after`, in brackets as OpenAI's clients write it, or as JSON."""
    whole = form.get("expires_after")
    if isinstance(whole, str) and whole:
        try:
            fields = orjson.loads(whole)
        except orjson.JSONDecodeError:
            fields = None
        if not isinstance(fields, dict):
            raise BadRequest("expires_after is an object with anchor and seconds.", param="expires_after")
    else:
        fields = {
            name: form[f"expires_after[{name}]"] for name in ("anchor", "seconds") if f"expires_after[{name}]" in form
        }
    if not fields:
        return None
    if fields.get("anchor") != "created_at":
        raise BadRequest("expires_after.anchor can only be created_at.", param="expires_after.anchor")
    seconds = str(fields.get("seconds"))
    if not seconds.isascii() or not seconds.isdigit() or not MIN_LIFETIME_S <= int(seconds[:12]) <= MAX_LIFETIME_S:
        raise BadRequest(
            f"expires_after.seconds is a number from {MIN_LIFETIME_S} to {MAX_LIFETIME_S}.",
            param="expires_after.seconds",
        )
    return int(seconds)
