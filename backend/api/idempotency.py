"""`Idempotency-Key`: a POST that is sent again gets the answer of the first one, and nothing is done twice.

    first POST with a key       runs, and is recorded
    the same again              the recorded answer, with `Idempotent-Replayed: true`; while it still runs, what there
                                is of it from its beginning, and then the rest as it comes
    the key with another body   400 `idempotency_key_reused`

Keys belong to an account and an address. Who sends one wants the work done exactly once, also over a connection that
breaks: so a request with a key runs to its end (within the limits that each run has) even when its clients leave, and
who comes again finds it. A request that failed before it had an answer is forgotten, to be tried again with the same
key, unless a tool had already acted. What began to stream is the answer, also when it broke off.

Answers are kept in this process's memory: `KEEP_S`, at most `MAX_ANSWERS` of all, `MAX_OF_USER` of a user, and
`MAX_TOTAL_BYTES`; the oldest go first. One over `MAX_ANSWER_BYTES` breaks off. A repeat is no new request for limits.
"""

import asyncio
import hashlib
import logging
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from backend.api.bodies import arriving
from backend.api.disconnects import stop_on_disconnect
from backend.api.errors import ClientDisconnected
from backend.core.errors import ApiError, BadRequest, TooManyRequests, Unavailable

HEADER = "idempotency-key"
KEEP_S = 3600.0
MAX_ANSWERS = 1000
MAX_OF_USER = 100
MAX_TOTAL_BYTES = 64 * 2**20
MAX_ANSWER_BYTES = 8 * 2**20
BODY_TIMEOUT_S = 600.0
BUSY_RETRY_S = 10.0

_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_BOUNDARY = re.compile(rb'boundary="?([^";,]+)')
_REPLAYED = (b"idempotent-replayed", b"true")

logger = logging.getLogger(__name__)

Handle = Callable[[Request], Awaitable[Response]]


class _Name(NamedTuple):
    account: str
    path: str
    key: str


@dataclass(slots=True)
class _Recording:
    """The answer to one request, while it comes and afterwards."""

    digest: bytes  # of the body
    begun_at: float  # time.monotonic() seconds
    start: Message | None = None
    chunks: list[bytes] = field(default_factory=list)
    size: int = 0
    has_ended: bool = False
    error: Exception | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)  # a new one for each change

    def tell(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


class Repeats:
    """The answers that may be asked for again. One for the life of the process; `close` ends what still runs.

    Args:
        stall_s: how long a client may refuse to read before it is given up.
    """

    def __init__(self, *, stall_s: float) -> None:
        self._stall_s = stall_s
        self._recordings: dict[_Name, _Recording] = {}  # the oldest first
        self._running: dict[_Name, asyncio.Task[None]] = {}
        self._bytes = 0  # of all recordings

    async def answer(self, request: Request, account: str, handle: Handle) -> Response:
        """The recorded answer to a request that carries a key, or the one that `handle` gives now.

        Raises:
            BadRequest: the key is none, or was sent with another body before.
            TooManyRequests: too many requests with keys are being answered.
        """
        key = request.headers[HEADER]
        if not _KEY.fullmatch(key):
            raise BadRequest("An Idempotency-Key has 1 to 255 visible characters.", param="Idempotency-Key")
        async with arriving(BODY_TIMEOUT_S):
            body = await request.body()
        name, digest = _Name(account, request.url.path, key), _digest(request, body)
        self._forget_old()
        recording = self._recordings.get(name)
        if recording is None:
            self._make_room(account)
            recording = self._recordings[name] = _Recording(digest, time.monotonic())
            self._running[name] = asyncio.create_task(self._run(name, recording, _detached(request, body), handle))
            return _Replay(recording, self._stall_s, repeated=False)
        if recording.digest != digest:
            raise BadRequest(
                "This Idempotency-Key was sent with another body before. Send a new key with a new request.",
                param="Idempotency-Key",
                code="idempotency_key_reused",
            )
        return _Replay(recording, self._stall_s, repeated=True)

    async def close(self) -> None:
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, name: _Name, recording: _Recording, request: Request, handle: Handle) -> None:
        async def record(message: Message) -> None:
            if message["type"] == "http.response.start":
                recording.start = message
            elif body := message.get("body", b""):
                recording.size += len(body)
                self._bytes += len(body)
                self._check_size(recording)
                recording.chunks.append(body)
            recording.tell()

        try:
            response = await handle(request)
            await response(request.scope, request.receive, record)
        except asyncio.CancelledError:
            recording.error = Unavailable("The server is shutting down.")
            raise
        except Exception as error:  # whatever it is, those who wait for the answer are told of it
            recording.error = error
            if not (isinstance(error, ApiError) and error.has_acted):
                self._forget(name)
        finally:
            recording.has_ended = True
            recording.tell()
            del self._running[name]

    def _forget_old(self) -> None:
        now = time.monotonic()
        for name, recording in list(self._recordings.items()):
            if now - recording.begun_at < KEEP_S:
                break
            if recording.has_ended:
                self._forget(name)

    def _make_room(self, account: str) -> None:
        """
        Raises:
            TooManyRequests: all that are kept are still being answered.
        """
        is_full = sum(name.account == account for name in self._recordings) >= MAX_OF_USER
        is_full = is_full and not self._forget_oldest(account)
        if is_full or (len(self._recordings) >= MAX_ANSWERS and not self._forget_oldest()):
            raise TooManyRequests(
                "Too many requests with an Idempotency-Key are being answered. Wait for one to end.",
                retry_after_s=BUSY_RETRY_S,
            )

    def _check_size(self, recording: _Recording) -> None:
        """
        Raises:
            ApiError: the recording cannot be kept.
        """
        is_full = recording.size > MAX_ANSWER_BYTES
        while not is_full and self._bytes > MAX_TOTAL_BYTES:
            is_full = not self._forget_oldest()
        if is_full:
            raise ApiError("The answer is too long to be kept for its Idempotency-Key. Ask for less, or send none.")

    def _forget_oldest(self, account: str | None = None) -> bool:
        """Whether there was one that has ended, of this user or of anybody."""
        for name, recording in self._recordings.items():
            if recording.has_ended and account in (None, name.account):
                self._forget(name)
                return True
        return False

    def _forget(self, name: _Name) -> None:
        if recording := self._recordings.pop(name, None):
            self._bytes -= recording.size


class _Replay(Response):
    """Sends a recording from its beginning, and goes on as it grows."""

    def __init__(self, recording: _Recording, stall_s: float, *, repeated: bool) -> None:
        self.status_code = 200
        self.background = None
        self._recording = recording
        self._stall_s = stall_s
        self._repeated = repeated

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with stop_on_disconnect(receive):
                await self._send_all(send)
        except ClientDisconnected:
            logger.debug("The client left the recorded answer.")
        except TimeoutError:
            logger.info("The client did not read its recorded answer for %g s.", self._stall_s)

    async def _send_all(self, send: Send) -> None:
        recording, sent, started = self._recording, 0, False
        while True:
            changed, has_ended = recording.changed, recording.has_ended
            if error := recording.error:
                if not started:
                    raise error
                logger.warning("A recorded answer broke off: %s", error)
                return  # without the last message: the client must not take half an answer for a whole one
            if recording.start and not started:
                headers = list(recording.start["headers"]) + ([_REPLAYED] if self._repeated else [])
                await self._send(send, {**recording.start, "headers": headers})
                started = True
            if has_ended or len(recording.chunks) > sent:
                body = b"".join(recording.chunks[sent:])
                sent = len(recording.chunks)
                await self._send(send, {"type": "http.response.body", "body": body, "more_body": not has_ended})
            if has_ended:
                return
            await changed.wait()

    async def _send(self, send: Send, message: Message) -> None:
        async with asyncio.timeout(self._stall_s):
            await send(message)


def _detached(request: Request, body: bytes) -> Request:
    """The same request, from a client that never leaves."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        while not messages:
            await asyncio.Event().wait()
        return messages.pop()

    return Request(request.scope, receive)


def _digest(request: Request, body: bytes) -> bytes:
    """Of a body, without what a client makes up anew each time that it sends the same form."""
    content_type = request.headers.get("content-type", "").encode("latin-1")
    if boundary := _BOUNDARY.search(content_type):
        body = body.replace(boundary[1], b"")
    return hashlib.blake2b(body, digest_size=32).digest()
