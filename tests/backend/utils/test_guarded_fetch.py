"""Fetching what somebody else named: which addresses are public, and what arrives. Redirects, names and limits are
tried with pictures in `test_remote_images.py`.
"""

import gzip
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from backend.utils.guarded_fetch import Fetched, FetchRefused, IPAddress, fetch, is_public_address


@pytest.mark.parametrize(
    "ip",
    [
        "127.0.0.1",
        "127.8.9.10",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "169.254.169.254",  # metadata of most clouds
        "100.100.100.200",  # of one more
        "168.63.129.16",  # and one more
        "192.0.0.192",
        "198.18.0.1",
        "192.0.2.1",
        "198.51.100.7",
        "203.0.113.9",
        "192.88.99.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::7f00:1",
        "fe80::1",
        "fe80::1%eth0",
        "2606:4700:4700::1111%1",
        "fc00::1",
        "fd00:ec2::254",
        "fec0::1",
        "ff02::1",
        "2001:db8::1",
        "3fff::1",
        "2001::1",
        "64:ff9b:1::1",
        "100::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "2002:7f00:1::",  # 6to4 of 127.0.0.1
        "2002:c0a8:101::1",  # 6to4 of 192.168.1.1
        "64:ff9b::7f00:1",  # NAT64 of 127.0.0.1
        "64:ff9b::a00:1",
    ],
)
def test_addresses_inside_are_not_public(ip: str) -> None:
    assert not is_public_address(ip)


@pytest.mark.parametrize(
    "ip",
    [
        "1.1.1.1",
        "8.8.8.8",
        "172.32.0.1",
        "2606:4700:4700::1111",
        "::ffff:1.1.1.1",
        "2002:101:101::1",
        "64:ff9b::808:808",
    ],
)
def test_addresses_of_the_internet_are_public(ip: str) -> None:
    assert is_public_address(ip)


async def answer(request: web.Request) -> web.Response:
    match request.path:
        case "/page":
            return web.Response(body="Größe".encode("latin-1"), headers={"Content-Type": "Text/HTML; charset=Latin-1"})
        case "/packed":
            return web.Response(body=gzip.compress(b"unpacked"), headers={"Content-Encoding": "gzip"})
        case "/bomb":
            return web.Response(body=gzip.compress(bytes(10_000_000)), headers={"Content-Encoding": "gzip"})
        case "/torn":
            return web.Response(body=b"no gzip", headers={"Content-Encoding": "gzip"})
        case "/brotli":
            return web.Response(body=b"who knows", headers={"Content-Encoding": "br"})
        case "/moved":
            raise web.HTTPMovedPermanently("/page")
    raise web.HTTPNotFound


@pytest.fixture
async def port() -> AsyncIterator[int]:
    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


async def get(path: str, port: int, *, media_types: set[str] | None = None) -> Fetched:
    def loopback(ip: IPAddress) -> bool:
        return ip.is_loopback

    url = f"http://127.0.0.1:{port}{path}"
    return await fetch(
        url, accept="*/*", max_bytes=20_000, timeout_s=5, media_types=media_types, allowed=loopback, ports={port}
    )


async def test_what_arrives_says_where_it_was_found_and_what_it_is(port: int) -> None:
    fetched = await get("/moved", port, media_types={"text/html"})
    assert fetched.url == f"http://127.0.0.1:{port}/page"
    assert (fetched.media_type, fetched.charset) == ("text/html", "Latin-1")
    assert fetched.content == "Größe".encode("latin-1")


async def test_another_kind_than_was_asked_for_is_refused(port: int) -> None:
    with pytest.raises(FetchRefused, match="text/html"):
        await get("/page", port, media_types={"application/json"})


async def test_what_a_server_packs_unasked_is_unpacked(port: int) -> None:
    assert (await get("/packed", port)).content == b"unpacked"


@pytest.mark.parametrize(
    ("path", "why"), [("/bomb", "larger"), ("/torn", "cannot be fetched"), ("/brotli", "packed in a way")]
)
async def test_what_cannot_be_unpacked_or_becomes_too_large_is_refused(port: int, path: str, why: str) -> None:
    with pytest.raises(FetchRefused, match=why):
        await get(path, port)
