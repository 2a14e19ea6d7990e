"""The benchmark's own honesty: only whole answers count, and nothing that it starts outlives it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from tests.benchmarks.gateway import wire
from tests.benchmarks.gateway.gateways import Gateway, start_upstream
from tests.benchmarks.gateway.load import Load, Sample, Target, dechunk, run
from tests.benchmarks.gateway.processes import Processes

TOKENS = [wire.TOKEN] * wire.TOKENS


@pytest.fixture(scope="module")
def upstream() -> Iterator[Gateway]:
    with Processes() as processes:
        yield start_upstream(processes)


@asynccontextmanager
async def server_that_streams(answer: bytes) -> AsyncIterator[Target]:
    """Whole answers to the warm-up, and to a request that streams the given bytes and the end of the connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with_stream = b'"stream":true'
        while head := await reader.readuntil(b"\r\n\r\n"):
            body = await reader.readexactly(wire.REQUEST_BODY_BYTES)
            assert head.startswith(b"POST ")
            writer.write(answer if with_stream in body else wire.completion())
            if with_stream in body:
                break
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield Target(server.sockets[0].getsockname()[1])


async def errors_for(answer: bytes, upstream: Gateway) -> Sample:
    async with server_that_streams(answer) as target:
        sample = await run(target, Load("bad", wire.BURST, 1), 5.0, upstream.server)
    assert not sample.latencies_s
    return sample


@pytest.mark.parametrize("model", wire.MODELS)
async def test_every_answer_of_the_upstream_is_whole(model: str, upstream: Gateway) -> None:
    sample = await run(upstream.target, Load("plain", model, 4), 0.1, upstream.server)
    assert not sample.errors
    assert len(sample.latencies_s) >= 4
    assert len(sample.first_tokens_s) == (0 if model == wire.REPLY else len(sample.latencies_s))
    if model == wire.PACED:
        assert min(sample.latencies_s) >= (wire.TOKENS - 1) * wire.TOKEN_INTERVAL_S


async def test_a_stream_with_a_token_too_few_is_an_error(upstream: Gateway) -> None:
    short = wire.STREAM_HEAD + b"".join(wire.stream_parts(TOKENS[1:], usage=False))
    assert (await errors_for(short, upstream)).errors == {"99 of 100 tokens": 3}


async def test_a_stream_without_its_last_line_is_an_error(upstream: Gateway) -> None:
    done = wire.http_chunk(b"data: [DONE]\n\n")
    whole = wire.STREAM_HEAD + b"".join(wire.stream_parts(TOKENS, usage=False))
    assert (await errors_for(whole.replace(done, b""), upstream)).errors == {"no [DONE]": 3}


async def test_a_stream_cut_in_the_middle_is_an_error(upstream: Gateway) -> None:
    whole = wire.STREAM_HEAD + b"".join(wire.stream_parts(TOKENS, usage=False))
    assert (await errors_for(whole[: len(whole) // 2], upstream)).errors == {"connection lost": 3}


async def test_a_status_other_than_200_is_an_error(upstream: Gateway) -> None:
    refusal = wire.completion().replace(b"200 OK", b"503 Service Unavailable")
    (reason,) = (await errors_for(refusal, upstream)).errors
    assert reason.startswith("HTTP 503")


async def test_a_server_that_has_gone_is_a_result_and_not_a_crash(upstream: Gateway) -> None:
    async with server_that_streams(b"") as target:
        pass
    sample = await run(target, Load("gone", wire.REPLY, 2), 1.0, upstream.server)
    assert sample.errors.total() == 1


def test_a_chunked_body_is_read_whole_at_every_cut() -> None:
    events = b"".join(wire.stream_parts(TOKENS[:3], usage=True))
    whole = dechunk(bytearray(events), 0)
    assert whole is not None
    assert whole.count(wire.TOKEN.encode()) == 3
    assert all(dechunk(bytearray(events[:cut]), 0) is None for cut in range(len(events) - 4))


def test_leaving_by_ctrl_c_ends_every_process_and_removes_the_folder() -> None:
    started = []

    def interrupted() -> None:
        with Processes() as processes:
            started.append((start_upstream(processes).server.process, processes.folder))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    ((process, folder),) = started
    assert process.poll() is not None
    assert not folder.exists()
