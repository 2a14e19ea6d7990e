"""The load generator: keep-alive connections that each send one request after another, checked to the last byte.

It is written on raw asyncio protocols (run it on uvloop): prepared requests out, answers framed by hand. An answer
counts only if it is whole: status 200, the full text, a finish reason and, streamed, every token and `[DONE]`. All
else is an error, counted by its reason. Latency runs from the write of the request to its last byte, time to first
token to the read that held the first token.
"""

import asyncio
import gc
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from time import perf_counter
from typing import cast

from tests.benchmarks.gateway import wire
from tests.benchmarks.gateway.processes import Server

_DRAIN_S = 40.0  # for the answers that are under way when the time is over
_TOKEN = wire.TOKEN.encode()
_REPLY_TEXT = wire.REPLY_TEXT.encode()
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_STOPPED = re.compile(rb'"finish_reason" *: *"stop"')


class BadAnswer(Exception):
    """An answer that a client could not use; its text says why in a few words."""


@dataclass(frozen=True)
class Target:
    port: int
    key: str | None = None


@dataclass(frozen=True)
class Load:
    """What is sent: `connections` at once, the first request of each spread evenly over `spread_s`."""

    name: str
    model: str
    connections: int
    spread_s: float = 0.0

    @property
    def stream(self) -> bool:
        return self.model != wire.REPLY


@dataclass
class Sample:
    """What one run of one load saw."""

    elapsed_s: float = 0.0
    cpu_s: float = 0.0  # that the server under test used
    resident_mib: float = 0.0  # of the server, right after
    latencies_s: list[float] = field(default_factory=list)
    first_tokens_s: list[float] = field(default_factory=list)
    events: int = 0  # Server-Sent Events that held the tokens, over all streams
    errors: Counter[str] = field(default_factory=Counter)


class Connection(asyncio.Protocol):
    """One keep-alive HTTP/1.1 connection with at most one request under way."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[None] | None = None
        self._reset()

    def _reset(self) -> None:
        self._received = bytearray()
        self._body_at = -1
        self._length: int | None = None
        self.body = b""
        self.status = 0
        self.first_token_at = 0.0
        self.ended_at = 0.0

    @property
    def open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._fail("connection lost")

    async def exchange(self, request: bytes) -> None:
        """Send a request and wait until its answer is in `status` and `body`."""
        assert self._transport
        self._reset()
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        await self._answer

    def close(self) -> None:
        if self._transport:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        if not self.first_token_at and _TOKEN in data:
            self.first_token_at = perf_counter()
        received = self._received
        received += data
        if self._body_at < 0 and not self._read_head():
            return
        if self._length is not None:
            if len(received) < self._body_at + self._length:
                return
            self.body = bytes(received[self._body_at :])
        elif received.endswith(b"0\r\n\r\n"):
            body = dechunk(received, self._body_at)
            if body is None:
                return
            self.body = body
        else:
            return
        self.ended_at = perf_counter()
        if self._answer and not self._answer.done():
            self._answer.set_result(None)

    def _read_head(self) -> bool:
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = bytes(self._received[:end])
        self._body_at = end + 4
        self.status = int(head[9:12])
        length = _CONTENT_LENGTH.search(head)
        self._length = int(length[1]) if length else None
        if length is None and not _CHUNKED.search(head):
            self._fail("answer without a length")
        return True

    def _fail(self, reason: str) -> None:
        if self._answer and not self._answer.done():
            self._answer.set_exception(BadAnswer(reason))


def dechunk(received: bytearray, at: int) -> bytes | None:
    """The body of a chunked answer, or None while its last chunk is not there."""
    parts = []
    while (end := received.find(b"\r\n", at)) >= 0:
        size = int(received[at:end].partition(b";")[0], 16)
        if size == 0:
            return b"".join(parts)
        at = end + 2 + size + 2
        if at > len(received):
            return None
        parts.append(received[end + 2 : at - 2])
    return None


def check(connection: Connection, load: Load) -> None:
    """Raise BadAnswer unless the answer is exactly what the upstream said."""
    body = connection.body
    if connection.status != 200:
        raise BadAnswer(f"HTTP {connection.status}: {body[:120].decode(errors='replace')}")
    if not _STOPPED.search(body):
        raise BadAnswer("no finish reason")
    if not load.stream:
        if _REPLY_TEXT not in body:
            raise BadAnswer("the text is not whole")
    elif body.count(_TOKEN) != wire.TOKENS:
        raise BadAnswer(f"{body.count(_TOKEN)} of {wire.TOKENS} tokens")
    elif not body.rstrip().endswith(b"data: [DONE]"):
        raise BadAnswer("no [DONE]")


_numbers = count()


def requests(target: Target, load: Load) -> Iterator[bytes]:
    head = wire.http_head(f"127.0.0.1:{target.port}", target.key)
    before, after = wire.request_template(load.model, stream=load.stream)
    for number in _numbers:
        yield b"%b%b%08d%b" % (head, before, number, after)


async def connect(target: Target) -> Connection:
    _, connection = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", target.port)
    return connection


async def run(target: Target, load: Load, seconds: float, server: Server) -> Sample:
    """Warm each connection up with one short request, then start requests for so many seconds and await them all."""
    sample = Sample()
    connections: list[Connection] = []
    try:
        for _ in range(load.connections):
            connections.append(await connect(target))
        await _warm_up(target, connections)
    except (BadAnswer, OSError) as error:  # a server that has gone is a result too
        sample.errors[f"warm-up: {error!r}"] += 1
        for connection in connections:
            connection.close()
        return sample
    gc.disable()  # a collection in the generator would look like a slow answer
    try:
        cpu_before_s, start = server.cpu_s(), perf_counter()
        delays = [load.spread_s * index / load.connections for index in range(load.connections)]
        users = [
            asyncio.create_task(_use(target, load, connection, start + delay, start + delay + seconds, sample))
            for connection, delay in zip(connections, delays, strict=True)
        ]
        done, late = await asyncio.wait(users, timeout=load.spread_s + seconds + _DRAIN_S)
        sample.elapsed_s, sample.cpu_s = perf_counter() - start, server.cpu_s() - cpu_before_s
        sample.resident_mib = server.resident_mib()
        sample.errors.update(["no answer in time"] * len(late))
        for user in late:
            user.cancel()
        await asyncio.gather(*done)  # raises what is no error of the server
    finally:
        gc.enable()
    return sample


async def _warm_up(target: Target, connections: list[Connection]) -> None:
    load = Load("warm-up", wire.REPLY, len(connections))
    source = requests(target, load)
    async with asyncio.timeout(_DRAIN_S):
        await asyncio.gather(*(connection.exchange(next(source)) for connection in connections))
    for connection in connections:
        check(connection, load)


async def _use(
    target: Target, load: Load, connection: Connection, start: float, deadline: float, sample: Sample
) -> None:
    """One user: a request, its answer, the next request, until the deadline or the third error."""
    source = requests(target, load)
    chances = 3
    try:
        await asyncio.sleep(max(0.0, start - perf_counter()))
        while chances and perf_counter() < deadline:
            try:
                if not connection.open:
                    connection = await connect(target)
                request, sent_at = next(source), perf_counter()
                await connection.exchange(request)
                check(connection, load)
            except (BadAnswer, OSError) as error:
                chances -= 1
                connection.close()
                sample.errors[str(error)] += 1
                continue
            sample.latencies_s.append(connection.ended_at - sent_at)
            if load.stream:
                sample.first_tokens_s.append(connection.first_token_at - sent_at)
                sample.events += connection.body.count(b"data: {")
    finally:
        connection.close()
