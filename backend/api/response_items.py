"""Items of an input, as they are listed again, and as clients refer to them by id.

An id holds the key of the response that the item belongs to, so that finding an item is finding its response:

    resp_KEY ; msg_KEY_3 (output) ; msg_KEY_in_0 (input)
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from backend.core.errors import BadRequest, NotFound
from backend.core.storage.responses import StoredResponse
from backend.models.responses import (
    EchoedItem,
    InputFunctionCall,
    InputFunctionCallOutput,
    InputItem,
    InputMessage,
    InputPart,
    InputReference,
)

MAX_RESPONSES_READ = 64  # for the references of one request
_ITEM_ID = re.compile(r"[a-z]{2,8}_([0-9a-f]{32})_(?:in_)?\d{1,6}")
_ITEM: TypeAdapter[InputItem] = TypeAdapter(InputItem)


def list_input(given: str | Sequence[InputItem]) -> list[InputItem]:
    return [InputMessage(role="user", content=given)] if isinstance(given, str) else list(given)


async def resolve_references(
    items: Sequence[InputItem], find: Callable[[str], Awaitable[StoredResponse]]
) -> list[InputItem]:
    """The items with what they refer to in place of each reference.

    Args:
        find: a response of the caller's by its id; raises NotFound.

    Raises:
        NotFound: a reference to nothing of the caller's.
    """
    found: dict[str, StoredResponse] = {}
    resolved: list[InputItem] = []
    for index, item in enumerate(items):
        if not isinstance(item, InputReference):
            resolved.append(item)
            continue
        missing = NotFound(f"input.{index}: there is no item with this id.", param=f"input.{index}.id")
        named = _ITEM_ID.fullmatch(item.id)
        if not named:
            raise missing
        response_id = f"resp_{named[1]}"
        if response_id not in found:
            if len(found) == MAX_RESPONSES_READ:
                raise BadRequest(f"The input refers to more than {MAX_RESPONSES_READ} responses.", param="input")
            try:
                found[response_id] = await find(response_id)
            except NotFound:
                raise missing from None
        stored = found[response_id]
        try:
            target = next(each for each in (*stored.body["output"], *stored.input_items) if each["id"] == item.id)
            resolved.append(_ITEM.validate_python(target))
        except (StopIteration, ValidationError):
            raise missing from None
    return resolved


def input_item_objects(items: Sequence[InputItem], key: str) -> list[dict[str, Any]]:
    """The items as they are kept and listed: each with an id, and without the bytes of pictures and files."""
    return [_item_object(item, f"{key}_in_{index}") for index, item in enumerate(items)]


def _item_object(item: InputItem, name: str) -> dict[str, Any]:
    match item:
        case InputMessage(role=role, content=content):
            kind = "output_text" if role == "assistant" else "input_text"
            parts = [InputPart(type=kind, text=content)] if isinstance(content, str) else content
            shown = [_part_object(part, kind) for part in parts]
            return {"id": f"msg_{name}", "type": "message", "role": role, "status": "completed", "content": shown}
        case InputFunctionCall():
            return {"id": f"fc_{name}", "status": "completed", **item.model_dump()}
        case InputFunctionCallOutput(output=output):
            shown_output = output if isinstance(output, str) else [_part_object(part, "input_text") for part in output]
            return {"id": f"fco_{name}", "status": "completed", **item.model_dump(), "output": shown_output}
        case EchoedItem():
            return {"id": f"item_{name}", **item.model_dump()}
        case InputReference():
            raise AssertionError("references are resolved before")


def _part_object(part: InputPart, text_kind: str) -> dict[str, Any]:
    match part.type:
        case "input_image" | "image_url":
            address = part.image_url if isinstance(part.image_url, str) else (part.image_url or {}).get("url")
            remote = address if isinstance(address, str) and not address.startswith("data:") else None
            return {"type": "input_image", "image_url": remote, "detail": part.detail or "auto"}
        case "input_file" | "file":
            return {"type": "input_file", "filename": part.filename, "file_id": part.file_id}
        case _:
            told: dict[str, Any] = {"type": text_kind, "text": part.text or ""}
            return told | {"annotations": []} if text_kind == "output_text" else told
