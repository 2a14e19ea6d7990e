"""Files on their way to a client: whole, or the part that `Range` names, and never as a page of ours."""

import asyncio
import mimetypes
import os
import re
from collections.abc import AsyncGenerator
from typing import BinaryIO
from urllib.parse import quote

from fastapi import Request
from starlette.responses import Response, StreamingResponse

from backend.core.errors import ApiError

BLOCK_BYTES = 2**18
RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


class RangeNotSatisfiable(ApiError):
    status, type, default_code = 416, "invalid_request_error", "range_not_satisfiable"

    def __init__(self, size: int) -> None:
        super().__init__(f"The file has {size} bytes; the range begins after its end.", param="range")
        self._size = size

    @property
    def headers(self) -> dict[str, str]:
        return {"Content-Range": f"bytes */{self._size}"}


async def send_file(file: BinaryIO, name: str, request: Request) -> Response:
    """
    Args:
        file: closed when it is sent.

    Raises:
        RangeNotSatisfiable
    """
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
        "Content-Disposition": _attachment(name),
        # A page that a model or a stranger wrote is never to run as one of ours.
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
