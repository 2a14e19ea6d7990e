"""llama.cpp: answers over the wire, what its template can do, and what is made of its bad days."""

import asyncio
import time

import aiohttp
import pytest

from backend.core.errors import BackendUnavailable, BadRequest, ContextOverflow
from backend.core.events import BackendEvent, Completed, TextDelta, ToolCallDelta, Usage
from backend.core.llm.llamacpp import LlamaCpp
from backend.core.messages import ImagePart, Message
from tests.support.fake_llamacpp import FakeLlamaCpp
from tests.support.llm_calls import NEWS, QUICK, WEATHER, ask, collect, events_of, reasoning_of, text_of
from tests.support.llm_script import Fault, Reply

# --- Answers over the wire --------------------------------------------------------------------------------------------


async def test_an_answer_streams_and_ends_with_one_completed(http: aiohttp.ClientSession) -> None:
    async with FakeLlamaCpp() as fake:
        fake.script(Reply(thinking="Let me see"))
        events = await events_of(LlamaCpp(http, fake.url), ask())
    assert reasoning_of(events) == "Let me see"
    assert text_of(events) == "Echo: Hi there"
    assert events[-1] == Completed("stop", Usage(prompt_tokens=6, completion_tokens=6, cached_tokens=3))
    assert len([event for event in events if isinstance(event, Completed)]) == 1


async def test_tool_calls_stream_in_pieces(http: aiohttp.ClientSession) -> None:
    async with FakeLlamaCpp() as fake:
        fake.script(Reply(tool_calls=(("weather", {"place": "Rom"}), ("news", {}))))
        events = await events_of(LlamaCpp(http, fake.url), ask(tools=(WEATHER, NEWS)))
    pieces = [event for event in events if isinstance(event, ToolCallDelta)]
    assert [(piece.index, piece.name) for piece in pieces if piece.name] == [(0, "weather"), (1, "news")]
    assert "".join(piece.arguments for piece in pieces if piece.index == 0) == '{"place": "Rom"}'
    assert isinstance(events[-1], Completed)
    assert events[-1].finish_reason == "tool_calls"


async def test_a_prompt_that_is_too_long_is_an_error_with_both_counts(http: aiohttp.ClientSession) -> None:
    async with FakeLlamaCpp(n_ctx=512) as fake:
        with pytest.raises(ContextOverflow) as caught:
            await events_of(LlamaCpp(http, fake.url), ask(Message("user", " ".join(["word"] * 3000))))
    assert (caught.value.prompt_tokens, caught.value.context_tokens) == (3004, 512)


async def test_an_answer_goes_on_with_new_text_only_also_inside_a_word(http: aiohttp.ClientSession) -> None:
    async with FakeLlamaCpp() as fake:
        backend = LlamaCpp(http, fake.url)
        for begun in ("Echo:", "Echo: Hi th", "Ec", "Echo: Hi there"):
            events = await events_of(backend, ask(Message("user", "Hi there"), Message("assistant", begun)))
            assert begun + text_of(events) == "Echo: Hi there"
        assert await backend.continues("tiny")


async def test_pictures_for_a_model_that_cannot_see_are_refused(http: aiohttp.ClientSession) -> None:
    async with FakeLlamaCpp() as fake:
        picture = Message("user", (ImagePart("data:image/png;base64,YWJj"),))
        with pytest.raises(BadRequest) as caught:
            await events_of(LlamaCpp(http, fake.url), ask(picture))
    assert caught.value.param == "messages"


async def test_answers_one_after_another_share_a_connection(http: aiohttp.ClientSession) -> None:
    async with FakeLlamaCpp() as fake:
        for _ in range(5):
            await events_of(LlamaCpp(http, fake.url), ask())
        assert len({call.peer for call in fake.calls}) == 1


async def test_the_key_goes_with_every_request(http: aiohttp.ClientSession) -> None:
    async with FakeLlamaCpp(api_key="s3cret") as fake:
        backend = LlamaCpp(http, fake.url, api_key="s3cret")
        assert len(await backend.list_models()) == 1
        assert text_of(await events_of(backend, ask())) == "Echo: Hi there"


async def test_a_wrong_key_is_the_admins_business_and_is_not_repeated(http: aiohttp.ClientSession) -> None:
    async with FakeLlamaCpp(api_key="s3cret") as fake:
        backend = LlamaCpp(http, fake.url, api_key="wr0ng")
        for attempt in (events_of(backend, ask()), backend.list_models()):
            with pytest.raises(BackendUnavailable, match="API key") as caught:
                await attempt
            assert "wr0ng" not in caught.value.message


# --- Models and templates ---------------------------------------------------------------------------------------------


async def test_the_model_is_listed_with_window_and_abilities(http: aiohttp.ClientSession) -> None:
    async with FakeLlamaCpp("qwen", n_ctx=2048, vision=True) as fake:
        (model,) = await LlamaCpp(http, fake.url).list_models()
    assert (model.id, model.context_tokens, model.created) == ("qwen", 2048, 1795373847)
    assert model.capabilities == {"completion", "tools", "vision"}


async def test_tools_are_refused_where_the_template_would_drop_them(http: aiohttp.ClientSession) -> None:
    async with FakeLlamaCpp(supports_tools=False) as fake:
        backend = LlamaCpp(http, fake.url)
        for _ in range(2):
            with pytest.raises(BadRequest) as caught:
                await events_of(backend, ask(tools=(WEATHER,)))
            assert caught.value.param == "tools"
        assert not fake.chats
        assert [call.path for call in fake.calls] == ["/props"]  # read once
        assert text_of(await events_of(backend, ask(tools=(WEATHER,), tool_choice="none")))


async def test_a_server_that_comes_back_with_another_model_is_looked_at_again(http: aiohttp.ClientSession) -> None:
    async with FakeLlamaCpp(supports_tools=False) as fake:
        backend = LlamaCpp(http, fake.url)
        assert "tools" not in (await backend.list_models())[0].capabilities
        fake.supports_tools = True
        assert "tools" in (await backend.list_models())[0].capabilities
        assert await events_of(backend, ask(tools=(WEATHER,)))


async def test_a_server_too_old_to_tell_is_given_the_tools(http: aiohttp.ClientSession) -> None:
    async with FakeLlamaCpp(supports_tools=None) as fake:
        await events_of(LlamaCpp(http, fake.url), ask(tools=(WEATHER,)))
        assert fake.chats[-1].body["tools"]


async def test_a_server_that_still_loads_its_model_says_when_to_come_back(http: aiohttp.ClientSession) -> None:
    async with FakeLlamaCpp() as fake:
        fake.loading = True
        backend = LlamaCpp(http, fake.url)
        for attempt in (events_of(backend, ask()), backend.list_models()):
            with pytest.raises(BackendUnavailable) as caught:
                await attempt
            assert caught.value.retry_after_s == 2


# --- Bad days ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.HANG])
@pytest.mark.parametrize("after", [0, 2])
async def test_half_an_answer_is_a_failure_after_what_was_said(
    http: aiohttp.ClientSession, fault: Fault, after: int
) -> None:
    events: list[BackendEvent] = []
    async with FakeLlamaCpp() as fake:
        backend = LlamaCpp(http, fake.url)
        fake.script(Reply(text="one two three four", fault=fault, after=after))
        with pytest.raises(BackendUnavailable) as caught:
            await collect(backend, ask(), events)
        assert text_of(events) == ("one two" if after else "")
        assert not [event for event in events if isinstance(event, Completed)]
        assert "127.0.0.1" not in caught.value.message
        assert text_of(await events_of(backend, ask())) == "Echo: Hi there"


@pytest.mark.parametrize("after", [0, 2])
async def test_silence_has_a_deadline_before_the_first_delta_and_after_it(
    http: aiohttp.ClientSession, after: int
) -> None:
    async with FakeLlamaCpp() as fake:
        fake.script(Reply(text="one two three", fault=Fault.HANG, after=after))
        started = time.monotonic()
        with pytest.raises(BackendUnavailable, match="in time"):
            await events_of(LlamaCpp(http, fake.url, timeouts=QUICK), ask())
        assert time.monotonic() - started < 50
        assert await fake.chats[-1].gone() - started < 10


async def test_pings_do_not_count_as_an_answer(http: aiohttp.ClientSession) -> None:
    async def ping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        try:
            for _ in range(1000):
                writer.write(b":\n\n")
                await writer.drain()
                await asyncio.sleep(0.05)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(ping, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        started = time.monotonic()
        with pytest.raises(BackendUnavailable, match="in time"):
            await events_of(LlamaCpp(http, f"http://127.0.0.1:{port}", timeouts=QUICK), ask())
        assert time.monotonic() - started < 50


async def test_closing_the_stream_stops_the_server_at_once(http: aiohttp.ClientSession) -> None:
    async with FakeLlamaCpp() as fake:
        fake.script(Reply(text="word " * 1000, pace_s=0.02))
        stream = LlamaCpp(http, fake.url).stream(ask())
        assert await anext(stream) == TextDelta("word")
        closed = time.monotonic()
        await stream.aclose()
        assert await fake.chats[-1].gone() - closed < 5


async def test_a_server_that_is_not_there_fails_quickly(http: aiohttp.ClientSession) -> None:
    async with FakeLlamaCpp() as fake:
        pass  # and its port is free again
    started = time.monotonic()
    backend = LlamaCpp(http, fake.url)
    for attempt in (events_of(backend, ask()), events_of(backend, ask(tools=(WEATHER,))), backend.list_models()):
        with pytest.raises(BackendUnavailable):
            await attempt
    assert time.monotonic() - started < 5
