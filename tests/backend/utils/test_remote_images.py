"""Fetching a picture that a caller named: what is refused, and that a good one arrives."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from backend.core.errors import BadRequest
from backend.utils.guarded_fetch import IPAddress
from backend.utils.remote_images import fetch_image, image_type

PNG = b"\x89PNG\r\n\x1a\n" + b"\x00" * 100


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        (PNG, "image/png"),
        (b"\xff\xd8\xff\xe0abc", "image/jpeg"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "image/webp"),
        (b"GIF89a....", "image/gif"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", None),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", None),
        (b"", None),
    ],
)
def test_a_picture_is_known_by_its_first_bytes(content: bytes, media_type: str | None) -> None:
    assert image_type(content) == media_type


class Site:
    """A web server on loopback that counts what it is asked."""

    def __init__(self) -> None:
        self.port = 0
        self.asked: list[str] = []

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        kind, _, rest = request.path[1:].partition("/")
        if kind == "png":
            return web.Response(body=PNG, content_type="text/plain")
        if kind == "text":
            return web.Response(text="not a picture", content_type="image/png")
        if kind == "redirect":
            count = int(rest)
            raise web.HTTPFound(f"/redirect/{count - 1}" if count else "/png")
        if kind == "inside":
            raise web.HTTPFound(self.url("/png", "localhost"))
        if kind == "file":
            raise web.HTTPFound("file:///etc/passwd")
        if kind == "endless":
            response = web.StreamResponse()
            await response.prepare(request)
            for _ in range(10_000):
                await response.write(b"\x89PNG\r\n\x1a\n" * 1000)
            return response
        if kind == "slow":
            response = web.StreamResponse()
            await response.prepare(request)
            await response.write(PNG)
            await asyncio.sleep(30)
        raise web.HTTPNotFound


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site()
    app = web.Application()
    app.router.add_get("/{path:.*}", site.answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    site.port = runner.addresses[0][1]
    yield site
    await runner.cleanup()


async def fetch(url: str, site: Site, *, max_bytes: int = 10_000, timeout_s: float = 5.0) -> str:
    def loopback_in_digits(ip: IPAddress) -> bool:
        return str(ip) == "127.0.0.1"

    return await fetch_image(
        url, max_bytes=max_bytes, timeout_s=timeout_s, allowed=loopback_in_digits, ports={site.port}
    )


async def refusal(url: str, site: Site, **limits: float) -> str:
    with pytest.raises(BadRequest) as caught:
        await fetch(url, site, **limits)  # type: ignore[arg-type]
    assert caught.value.param == "messages"
    return caught.value.message


async def test_a_picture_arrives_as_a_data_url_with_its_real_type(site: Site) -> None:
    data_url = await fetch(site.url("/png"), site)
    assert data_url == f"data:image/png;base64,{base64.b64encode(PNG).decode()}"


async def test_three_redirects_are_followed_and_no_more(site: Site) -> None:
    assert (await fetch(site.url("/redirect/2"), site)).startswith("data:image/png")
    assert "redirected" in await refusal(site.url("/redirect/3"), site)


async def test_a_name_that_leads_inside_is_refused_before_anything_is_sent(site: Site) -> None:
    with pytest.raises(BadRequest, match="public"):
        await fetch_image(site.url("/png", "localhost"), max_bytes=1000, timeout_s=5, ports={site.port})
    assert site.asked == []


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "127.1", "2130706433", "0x7f.1", "0"])
async def test_an_address_in_digits_that_leads_inside_is_refused(site: Site, host: str) -> None:
    with pytest.raises(BadRequest, match=r"public|cannot be fetched"):
        await fetch_image(site.url("/png", host), max_bytes=1000, timeout_s=5, ports={site.port})
    assert site.asked == []


async def test_a_redirect_is_checked_like_a_first_address(site: Site) -> None:
    def never_twice(ip: IPAddress, seen: list[str] = []) -> bool:  # noqa: B006 - remembers on purpose
        seen.append(str(ip))
        return len(seen) == 1

    with pytest.raises(BadRequest, match="public"):
        await fetch_image(site.url("/inside"), max_bytes=1000, timeout_s=5, allowed=never_twice, ports={site.port})
    assert site.asked == ["/inside"]
    assert "http(s)" in await refusal(site.url("/file"), site)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://example.org/a.png", "http(s)"),
        ("file:///etc/passwd", "http(s)"),
        ("//example.org/a.png", "http(s)"),
        ("http://", "http(s)"),
        ("http://me:pw@example.org/a.png", "credentials"),
        ("http://example.org:22/a.png", "port"),
        ("http://example.org:99999/a.png", "cannot be fetched"),
        ("http://[::1/a.png", "cannot be fetched"),
    ],
)
async def test_what_is_no_web_address_is_refused(url: str, why: str) -> None:
    with pytest.raises(BadRequest) as caught:
        await fetch_image(url, max_bytes=1000, timeout_s=5)
    assert why in caught.value.message
    assert "pw" not in caught.value.message


async def test_what_is_no_picture_is_refused_whatever_its_server_says(site: Site) -> None:
    assert "PNG" in await refusal(site.url("/text"), site)
    assert "404" in await refusal(site.url("/nothing"), site)


async def test_size_and_time_are_bounded(site: Site) -> None:
    assert "larger" in await refusal(site.url("/png"), site, max_bytes=50)
    assert "larger" in await refusal(site.url("/endless"), site)
    started = time.monotonic()
    assert "within" in await refusal(site.url("/slow"), site, timeout_s=0.3)
    assert time.monotonic() - started < 5
