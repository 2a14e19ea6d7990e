"""One's own conversations: list, read, rename, delete, and the files that tools made in them.

Somebody else's session answers exactly like one that never was: 404.
"""

import asyncio
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response, StreamingResponse

from backend.api.deps import Caller, Context
from backend.api.downloads import send_file
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

router = APIRouter(prefix="/api/chat", tags=["sessions"])


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
    return await send_file(file, PurePosixPath(name).name, request)


def _render_history(session_id: str, messages: Sequence[StoredMessage]) -> bytes:
    lines = b",".join(message.to_json() for message in messages)
    return b'{"session_id":"%s","messages":[%s]}' % (session_id.encode(), lines)
