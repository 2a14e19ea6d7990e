"""A chat request as multipart form data: the fields of the JSON body as strings, beside `files`."""

from typing import Any

import orjson
from starlette.datastructures import FormData, UploadFile

from backend.core.attachments import Attachment
from backend.core.errors import BadRequest

MAX_FILES = 20
MAX_FIELDS = 100
FILE_FIELDS = {"files", "files[]", "file"}
TEXT_FIELDS = {"model", "agent_type", "session_id", "reasoning_effort", "rag_collection", "user"}
LIST_FIELDS = {"available_tools"}  # may be repeated instead of written as JSON


def split_form(form: FormData) -> tuple[dict[str, Any], list[Attachment]]:
    """The form's fields as a JSON body would have them, and its files.

    Raises:
        BadRequest: a file in a field that takes none.
    """
    fields: dict[str, Any] = {}
    attachments: list[Attachment] = []
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            if name not in FILE_FIELDS:
                raise BadRequest(f"{name}: files go into the field `files`.", param=name)
            media_type = value.content_type or "application/octet-stream"
            attachments.append(Attachment(value.filename or "attachment", media_type, value.file))
        elif name in LIST_FIELDS and not value.lstrip().startswith("["):
            fields.setdefault(name, []).append(value)
        else:
            fields[name] = value if name in TEXT_FIELDS else _json_or_text(value)
    return fields, attachments


def _json_or_text(value: str) -> Any:
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return value  # `stop=END`; where a field takes no text, its check says so
