"""One's own conversations: list, read, rename, delete, and the files that tools made in them.

Somebody else's session answers exactly like one that never was: 404.
"""

import asyncio
import mimetypes
import os
import re
from collections.abc import AsyncGenerator, Sequence
from pathlib import PurePosixPath
from typing import Annotated, BinaryIO
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from starlette.responses import Response, StreamingResponse

from backend.api.deps import Caller, Context
from backend.core.errors import ApiError
from backend.core.storage.conversations import StoredMessage
from backend.models.sessions import (
    DeletedSession,
    FileInfo,
    FileList,
    History,
    SessionChange,
    SessionInfo,
    SessionList,
)

BLOCK_BYTES = 2**18
RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")

router = APIRouter(prefix="/api/chat", tags=["sessions"])


class RangeNotSatisfiable(ApiError):
    status, type, default_code = 416, "invalid_request_error", "range_not_satisfiable"

    def __init__(self, size: int) -> None:
        super().__init__(f"The file has {size} bytes; the range begins after its end.", param="range")
        self._size = size

    @property
    def headers(self) -> dict[str, str]:
        return {"Content-Range": f"bytes */{self._size}"}


@router.get("/sessions")
async def list_sessions(
    caller: Caller,
    context: Context,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=100)] = None,
) -> SessionList:
    """Your sessions, the one with the newest message first, a page at a time."""
    page = await context.sessions.list(caller.username, limit=limit, cursor=cursor)
    return SessionList(sessions=[SessionInfo.of(record) for record in page.sessions], next_cursor=page.next_cursor)


@router.get("/sessions/{session_id}")
async def show_session(session_id: str, caller: Caller, context: Context) -> SessionInfo:
    return SessionInfo.of(await context.sessions.open(caller.username, session_id))


@router.patch("/sessions/{session_id}")
async def rename_session(session_id: str, change: SessionChange, caller: Caller, context: Context) -> SessionInfo:
    return SessionInfo.of(await context.sessions.rename(caller.username, session_id, change.title))


@router.delete("/sessions/{session_id}")
async def delete_session(session_id: str, caller: Caller, context: Context) -> DeletedSession:
    """Remove a session with its messages and files, for good."""
    await context.sessions.delete(caller.username, session_id)
    return DeletedSession(session_id=session_id)


@router.get("/history/{session_id}", responses={200: {"model": History}})
async def read_history(
    session_id: str,
    caller: Caller,
    context: Context,
    limit: Annotated[int | None, Query(ge=1, description="the newest so many; all of them by default")] = None,
    before: Annotated[int | None, Query(ge=1, description="only messages whose `seq` is below this")] = None,
) -> Response:
    """What was said in a session, oldest first."""
    messages = await context.sessions.messages(caller.username, session_id, limit=limit, before=before)
    # In a thread: a long conversation would hold up every stream of this process.
    body = await asyncio.to_thread(_render_history, session_id, messages)
    return Response(body, media_type="application/json")


@router.get("/sessions/{session_id}/files")
async def list_files(session_id: str, caller: Caller, context: Context) -> FileList:
    """The files that tools made in a session, newest first."""
    files = await context.sessions.files(caller.username, session_id)
    return FileList(files=[FileInfo.of(file, session_id) for file in files])


@router.get("/sessions/{session_id}/files/{name:path}", response_class=StreamingResponse)
async def download_file(session_id: str, name: str, request: Request, caller: Caller, context: Context) -> Response:
    """A file that a tool made, whole or the part that `Range` names."""
    file = await context.sessions.open_file(caller.username, session_id, name)
    size = os.fstat(file.fileno()).st_size
    try:
        part = _parse_range(request, size)
    except RangeNotSatisfiable:
        file.close()
        raise
    wanted = part or range(size)
    headers = {
        "Accept-Ranges": "bytes",
        "Content-Length": str(len(wanted)),
        "Content-Disposition": _attachment(PurePosixPath(name).name),
        # A page that a model wrote is never to run as one of ours.
        "X-Content-Type-Options": "nosniff",
    }
    if part is not None:
        headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
    kind, _ = await asyncio.to_thread(mimetypes.guess_type, name)  # reads the system's tables when it is first asked
    status = 200 if part is None else 206
    return StreamingResponse(_read(file, wanted), status, headers, kind or "application/octet-stream")


async def _read(file: BinaryIO, wanted: range) -> AsyncGenerator[bytes, None]:
    with file:
        position = wanted.start
        while position < wanted.stop:
            count = min(BLOCK_BYTES, wanted.stop - position)
            block = await asyncio.to_thread(os.pread, file.fileno(), count, position)
            if not block:  # it was cut meanwhile: the length that was announced tells the client
                return
            position += len(block)
            yield block


def _parse_range(request: Request, size: int) -> range | None:
    """The bytes that are asked for; None for all. What is no single range is ignored, as the standard allows."""
    given = RANGE.fullmatch(request.headers.get("range", ""))
    if given is None or given[0] == "bytes=-" or "if-range" in request.headers:
        return None
    first, last = given[1], given[2]
    if not first:
        wanted = range(max(0, size - int(last)), size)
    else:
        wanted = range(int(first), min(size, int(last) + 1) if last else size)
        if last and int(last) < int(first):
            return None
    if not wanted:
        raise RangeNotSatisfiable(size)
    return wanted


def _attachment(name: str) -> str:
    if name.isascii() and not set(name) & set('"\\%'):
        return f'attachment; filename="{name}"'
    return f"attachment; filename*=UTF-8''{quote(name, safe='')}"


def _render_history(session_id: str, messages: Sequence[StoredMessage]) -> bytes:
    lines = b",".join(message.to_json() for message in messages)
    return b'{"session_id":"%s","messages":[%s]}' % (session_id.encode(), lines)
