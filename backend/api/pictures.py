"""Pictures in a request: data URLs are checked, addresses are fetched, so that no backend ever fetches one."""

import asyncio
import dataclasses

from backend.core.errors import BadRequest
from backend.core.messages import ImagePart, Message
from backend.utils.remote_images import fetch_image

MAX_FETCHED = 16
MAX_BYTES = 20 * 2**20
TIMEOUT_S = 20.0


async def fetch_pictures(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The messages with every picture as a data URL.

    Raises:
        BadRequest: a picture that is no picture, cannot be had, or may not be fetched.
    """
    urls = {part.url for message in messages for part in _pictures(message)}
    for url in urls:
        if not url.startswith(("http://", "https://", "data:image/")):
            raise BadRequest("A picture is a data:image/... URL or an http(s) address.", param="messages")
    remote = [url for url in urls if not url.startswith("data:")]
    if not remote:
        return messages
    if len(remote) > MAX_FETCHED:
        raise BadRequest(f"At most {MAX_FETCHED} pictures may be named by address.", param="messages")
    try:
        async with asyncio.TaskGroup() as group:
            fetches = {
                url: group.create_task(fetch_image(url, max_bytes=MAX_BYTES, timeout_s=TIMEOUT_S)) for url in remote
            }
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    fetched = {url: task.result() for url, task in fetches.items()}
    return tuple(_replace(message, fetched) for message in messages)


def _pictures(message: Message) -> list[ImagePart]:
    return [] if isinstance(message.content, str) else [p for p in message.content if isinstance(p, ImagePart)]


def _replace(message: Message, fetched: dict[str, str]) -> Message:
    if isinstance(message.content, str):
        return message
    parts = tuple(
        dataclasses.replace(part, url=fetched.get(part.url, part.url)) if isinstance(part, ImagePart) else part
        for part in message.content
    )
    return dataclasses.replace(message, content=parts)
