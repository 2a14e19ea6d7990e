"""What somebody else names by its address (a picture, a page) is fetched here; what is inside stays out of reach.

Users and models choose these addresses, so a fetch must not become a way to this machine or its network:

- every address that the name resolves to must be public, and only those that were checked are connected to, so that a
  second answer of the name server changes nothing;
- a redirect is a new address, checked again, and there are few of them;
- only http(s) on its own port, no credentials, no proxy, no cookie.

What arrives is bounded in time and in bytes, also after it is unpacked.
"""

import asyncio
import ipaddress
import socket
import zlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
AddressCheck = Callable[[IPAddress], bool]

WEB_PORTS = frozenset({80, 443})
MAX_REDIRECTS = 3
REDIRECTS = frozenset({301, 302, 303, 307, 308})

_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
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


@dataclass(frozen=True, slots=True)
class Fetched:
    url: str  # where it was found at last
    media_type: str  # as the server calls it, in lower case
    charset: str | None  # as the server calls it
    content: bytes


class FetchRefused(Exception):
    """Nothing can, or may, be had there. `reason` goes on a sentence that begins with what was to be fetched."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


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


async def fetch(
    url: str,
    *,
    accept: str,
    max_bytes: int,
    timeout_s: float,
    media_types: Collection[str] | None = None,
    allowed: AddressCheck = is_public_address,
    ports: Collection[int] = WEB_PORTS,
) -> Fetched:
    """Get what is at `url`.

    Args:
        media_types: those that are read at all; None: any.

    Raises:
        FetchRefused: it cannot be had, or may not be.
    """
    try:
        async with asyncio.timeout(timeout_s), _open_session(allowed) as session:
            return await _follow(session, url, accept, max_bytes, media_types, ports)
    except _AddressRefused:
        raise FetchRefused("is not on the public internet") from None
    except TimeoutError:
        raise FetchRefused(f"did not arrive within {timeout_s:g} s") from None
    except (aiohttp.ClientError, OSError, ValueError, zlib.error):
        raise FetchRefused("cannot be fetched") from None


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
        auto_decompress=False,  # unpacked below, where there is a bound
        trust_env=False,
    )


async def _follow(
    session: aiohttp.ClientSession,
    url: str,
    accept: str,
    max_bytes: int,
    media_types: Collection[str] | None,
    ports: Collection[int],
) -> Fetched:
    headers = {"Accept": accept, "Accept-Encoding": "identity"}
    for _ in range(MAX_REDIRECTS + 1):
        _check_url(url, ports)
        async with session.get(url, headers=headers, allow_redirects=False) as response:
            if response.status in REDIRECTS:
                url = urljoin(url, response.headers.get("Location", ""))
                continue
            if response.status != 200:
                raise FetchRefused(f"cannot be fetched: its server answers {response.status}")
            media_type = response.content_type.lower()
            if media_types is not None and media_type not in media_types:
                raise FetchRefused(f"is of a kind that cannot be read here ({media_type[:100]})")
            content = _unpack(await _read(response, max_bytes), response, max_bytes)
            return Fetched(url, media_type, response.charset, content)
    raise FetchRefused("is redirected too often")


def _check_url(url: str, ports: Collection[int]) -> None:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise FetchRefused("has no http(s) address")
    if parts.username is not None or parts.password is not None:
        raise FetchRefused("has an address with credentials")
    if (parts.port or {"http": 80, "https": 443}[parts.scheme]) not in ports:
        raise FetchRefused("has an address with a port that is not a web port")


async def _read(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    if (response.content_length or 0) > max_bytes:
        raise FetchRefused(f"is larger than {max_bytes} bytes")
    content = bytearray()
    while data := await response.content.readany():
        content += data
        if len(content) > max_bytes:
            raise FetchRefused(f"is larger than {max_bytes} bytes")
    return bytes(content)


def _unpack(content: bytes, response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """The content as it is meant: some servers pack it although they were asked not to."""
    coding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if coding in {"", "identity"}:
        return content
    if coding not in {"gzip", "x-gzip", "deflate"}:
        raise FetchRefused("is packed in a way that cannot be read here")
    unpacked = zlib.decompressobj(_GZIP_OR_ZLIB).decompress(content, max_bytes + 1)
    if len(unpacked) > max_bytes:
        raise FetchRefused(f"is larger than {max_bytes} bytes")
    return unpacked
