"""Pictures that a caller names by address are fetched here, once, at the edge, under the guard of `guarded_fetch`."""

import base64
from collections.abc import Collection

from backend.core.errors import BadRequest
from backend.utils.guarded_fetch import WEB_PORTS, AddressCheck, FetchRefused, fetch, is_public_address


async def fetch_image(
    url: str,
    *,
    max_bytes: int,
    timeout_s: float,
    allowed: AddressCheck = is_public_address,
    ports: Collection[int] = WEB_PORTS,
) -> str:
    """Fetch the picture at `url` and return it as a `data:` URL.

    Raises:
        BadRequest: no picture can or may be had there; the message says why, `param` is "messages".
    """
    try:
        fetched = await fetch(
            url, accept="image/*", max_bytes=max_bytes, timeout_s=timeout_s, allowed=allowed, ports=ports
        )
    except FetchRefused as refusal:
        raise _refused(refusal.reason) from None
    media_type = image_type(fetched.content)
    if media_type is None:
        raise _refused("is not a PNG, JPEG, WebP or GIF picture")
    return f"data:{media_type};base64,{base64.b64encode(fetched.content).decode()}"


def image_type(content: bytes) -> str | None:
    """The media type by the first bytes, whatever a server says."""
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if content.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if content.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    return None


def _refused(why: str) -> BadRequest:
    return BadRequest(f"A picture in `image_url` {why}. Send it as a data URL instead.", param="messages")
