"""Files that are parts of messages, by their content or by the id of one of the user's files, made attachments."""

import asyncio
import base64
import binascii
import io
import mimetypes
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

from backend.api.uploads import MAX_FILES
from backend.core.attachments import NAMELESS, Attachment, FileReference
from backend.core.errors import BadRequest, NotFound
from backend.core.storage.files import Files
from backend.core.turns import Question

UNKNOWN_TYPE = "application/octet-stream"


@asynccontextmanager
async def open_file_parts(question: Question, files: Files, username: str) -> AsyncIterator[Question]:
    """The question with its file parts as attachments, which are open as long as the context is.

    Raises:
        BadRequest: a part that is no file, or too many of them.
        NotFound: a file that is not the user's.
    """
    if len(question.files) + len(question.attachments) > MAX_FILES:
        raise BadRequest(f"A request may come with {MAX_FILES} files at most.", param="messages")
    async with AsyncExitStack() as stack:
        opened = []
        for reference in question.files:
            attachment = await _open(reference, files, username)
            stack.callback(attachment.file.close)
            opened.append(attachment)
        yield replace(question, attachments=(*question.attachments, *opened), files=()) if opened else question


async def _open(reference: FileReference, files: Files, username: str) -> Attachment:
    if reference.data:
        return await asyncio.to_thread(_decode, reference, reference.data)
    if not reference.file_id:
        raise BadRequest(f"{reference.param}: a file needs file_data or file_id.", param=reference.param)
    try:
        stored, file = await files.open(username, reference.file_id)
    except NotFound as error:
        raise NotFound(error.message, param=f"{reference.param}.file_id") from None
    media_type, _ = await asyncio.to_thread(mimetypes.guess_type, stored.filename)
    return Attachment(reference.name or stored.filename, media_type or UNKNOWN_TYPE, file, reference.message)


def _decode(reference: FileReference, data: str) -> Attachment:
    name = reference.name or NAMELESS
    media_type = mimetypes.guess_type(name)[0]
    if data.startswith("data:"):
        head, comma, data = data[len("data:") :].partition(",")
        media_type = head.partition(";")[0] or media_type
        if not comma or not head.endswith(";base64"):
            raise _no_data(reference)
    try:
        content = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise _no_data(reference) from None
    return Attachment(name, media_type or UNKNOWN_TYPE, io.BytesIO(content), reference.message)


def _no_data(reference: FileReference) -> BadRequest:
    param = f"{reference.param}.file_data"
    return BadRequest(f"{param}: this is no base64, and no data URL that holds some.", param=param)
