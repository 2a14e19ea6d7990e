"""Pictures that a caller names by address are fetched here, once, at the edge; what is inside stays out of reach.

Whoever sends a chat message chooses the address, so a fetch must not become a way to this machine or its network:

- every address that the name resolves to must be public, and only those that were checked are connected to, so that a
  second answer of the name server changes nothing;
- a redirect is a new address, checked again, and there are few of them;
- only http(s) on its own port, no credentials, no proxy, no cookie, and what arrives is a picture by its first bytes.
"""

import asyncio
import base64
import ipaddress
import socket
from collections.abc import Callable, Collection
from urllib.parse import urljoin, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from backend.core.errors import BadRequest

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
AddressCheck = Callable[[IPAddress], bool]

WEB_PORTS = frozenset({80, 443})
MAX_REDIRECTS = 3
REDIRECTS = frozenset({301, 302, 303, 307, 308})

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
# Public by the registries' books, and yet not the internet; or not in the books of every Python that we run on.
_DENIED = tuple(
    map(
        ipaddress.ip_network,
        (
            "100.64.0.0/10",  # carriers' own; also a metadata service
            "168.63.129.16/32",  # a cloud's platform services, reachable from its machines only
            "192.0.0.0/24",
            "192.88.99.0/24",
            "198.18.0.0/15",
            "2001::/23",
            "2001:db8::/32",
            "3fff::/20",
        ),
    )
)


class _AddressRefused(Exception):
    """A name leads, or an address is, where nobody from outside may go. No `OSError`: aiohttp makes those its own."""


def is_public_address(ip: str | IPAddress) -> bool:
    """Whether `ip` is on the internet for sure. An address inside another one (mapped, 6to4, NAT64) is judged."""
    address = ipaddress.ip_address(ip) if isinstance(ip, str) else ip
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return False
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public_address(inner)
        if address not in _GLOBAL_UNICAST:
            return False
    denied = any(address.version == network.version and address in network for network in _DENIED)
    return address.is_global and not address.is_multicast and not address.is_reserved and not denied


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
        async with asyncio.timeout(timeout_s), _open_session(allowed) as session:
            content = await _fetch(session, url, max_bytes, ports)
    except _AddressRefused:
        raise _refused("is not on the public internet") from None
    except TimeoutError:
        raise _refused(f"did not arrive within {timeout_s:g} s") from None
    except (aiohttp.ClientError, OSError, ValueError):
        raise _refused("cannot be fetched") from None
    media_type = image_type(content)
    if media_type is None:
        raise _refused("is not a PNG, JPEG, WebP or GIF picture")
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


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


class _CheckedResolver(AbstractResolver):
    """Resolves a name only if every address behind it is allowed: a mixed answer is an attack or a mistake."""

    def __init__(self, allowed: AddressCheck) -> None:
        self._allowed = allowed
        self._resolver = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        results = await self._resolver.resolve(host, port, family)
        for result in results:
            _check(result["host"], self._allowed)
        return results

    async def close(self) -> None:
        await self._resolver.close()


def _check(host: str, allowed: AddressCheck) -> None:
    if not allowed(ipaddress.ip_address(host)):
        raise _AddressRefused


def _open_session(allowed: AddressCheck) -> aiohttp.ClientSession:
    def open_socket(info: aiohttp.AddrInfoType) -> socket.socket:
        """The last look, at the very address that is connected to: one written in digits is never resolved."""
        family, kind, protocol, _, address = info
        _check(str(address[0]), allowed)
        return socket.socket(family, kind, protocol)

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            resolver=_CheckedResolver(allowed), use_dns_cache=False, force_close=True, socket_factory=open_socket
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,  # a picture is small already, and a bomb is not one
        trust_env=False,
    )


async def _fetch(session: aiohttp.ClientSession, url: str, max_bytes: int, ports: Collection[int]) -> bytes:
    headers = {"Accept": "image/*", "Accept-Encoding": "identity"}
    for _ in range(MAX_REDIRECTS + 1):
        _check_url(url, ports)
        async with session.get(url, headers=headers, allow_redirects=False) as response:
            if response.status in REDIRECTS:
                url = urljoin(url, response.headers.get("Location", ""))
                continue
            if response.status != 200:
                raise _refused(f"cannot be fetched: its server answers {response.status}")
            return await _read(response, max_bytes)
    raise _refused("is redirected too often")


def _check_url(url: str, ports: Collection[int]) -> None:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise _refused("has no http(s) address")
    if parts.username is not None or parts.password is not None:
        raise _refused("has an address with credentials")
    if (parts.port or {"http": 80, "https": 443}[parts.scheme]) not in ports:
        raise _refused("has an address with a port that is not a web port")


async def _read(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    if (response.content_length or 0) > max_bytes:
        raise _refused(f"is larger than {max_bytes} bytes")
    content = bytearray()
    while data := await response.content.readany():
        content += data
        if len(content) > max_bytes:
            raise _refused(f"is larger than {max_bytes} bytes")
    return bytes(content)


def _refused(why: str) -> BadRequest:
    return BadRequest(f"A picture in `image_url` {why}. Send it as a data URL instead.", param="messages")
