"""Ollama: answers over the wire, and what is made of its bad days."""

import asyncio
import time

import aiohttp
import pytest

from backend.core.errors import BackendUnavailable, BadRequest, ContextOverflow, ModelNotFound
from backend.core.events import BackendEvent, Completed, TextDelta, ToolCallDelta, Usage
from backend.core.llm.ollama import Ollama
from backend.core.messages import Message
from tests.support.fake_ollama import FakeModel, FakeOllama
from tests.support.llm_calls import NEWS, QUICK, WEATHER, ask, collect, events_of, text_of
from tests.support.llm_script import Fault, Reply

# --- Answers over the wire --------------------------------------------------------------------------------------------


async def test_an_answer_streams_and_ends_with_one_completed(http: aiohttp.ClientSession) -> None:
    async with FakeOllama() as fake:
        events = await events_of(Ollama(http, fake.url), ask())
    assert text_of(events) == "Echo: Hi there"
    assert [type(event) for event in events] == [TextDelta, TextDelta, TextDelta, Completed]
    assert events[-1] == Completed("stop", Usage(prompt_tokens=6, completion_tokens=3))


async def test_the_first_delta_comes_before_the_last_is_made(http: aiohttp.ClientSession) -> None:
    async with FakeOllama() as fake:
        fake.script(Reply(pace_s=0.15))
        stream = Ollama(http, fake.url).stream(ask())
        assert await anext(stream) == TextDelta("Echo:")
        assert not fake.chats[-1].finished
        await stream.aclose()


async def test_tool_calls_come_whole_and_only_one_when_parallel_calls_are_off(http: aiohttp.ClientSession) -> None:
    calls = Reply(tool_calls=(("weather", {"place": "Rom"}), ("news", {})))
    async with FakeOllama([FakeModel(capabilities=("completion", "tools"))]) as fake:
        backend = Ollama(http, fake.url)
        fake.script(calls, calls)
        both = await events_of(backend, ask(tools=(WEATHER, NEWS)))
        one = await events_of(backend, ask(tools=(WEATHER, NEWS), parallel_tool_calls=False))
    assert [(event.index, event.name) for event in both[:-1] if isinstance(event, ToolCallDelta)] == [
        (0, "weather"),
        (1, "news"),
    ]
    assert [event.arguments for event in one[:-1] if isinstance(event, ToolCallDelta)] == ['{"place":"Rom"}']
    assert isinstance(one[-1], Completed)
    assert one[-1].finish_reason == "tool_calls"


async def test_a_prompt_that_is_too_long_is_an_error_with_both_counts(http: aiohttp.ClientSession) -> None:
    async with FakeOllama() as fake:
        with pytest.raises(ContextOverflow) as caught:
            await events_of(Ollama(http, fake.url, num_ctx=512), ask(Message("user", " ".join(["word"] * 3000))))
    assert (caught.value.prompt_tokens, caught.value.context_tokens) == (3004, 512)


async def test_tools_for_a_model_without_them_are_refused(http: aiohttp.ClientSession) -> None:
    async with FakeOllama() as fake:
        with pytest.raises(BadRequest) as caught:
            await events_of(Ollama(http, fake.url), ask(tools=(WEATHER,)))
    assert caught.value.param == "tools"


async def test_an_unknown_model_is_not_found(http: aiohttp.ClientSession) -> None:
    async with FakeOllama() as fake:
        with pytest.raises(ModelNotFound):
            await events_of(Ollama(http, fake.url), ask(model="nope"))


async def test_answers_one_after_another_share_a_connection(http: aiohttp.ClientSession) -> None:
    async with FakeOllama() as fake:
        backend = Ollama(http, fake.url)
        for _ in range(5):
            await events_of(backend, ask())
        assert len({call.peer for call in fake.calls}) == 1


async def test_a_pooled_connection_that_the_server_closed_is_no_failure(http: aiohttp.ClientSession) -> None:
    async with FakeOllama() as fake:
        backend = Ollama(http, fake.url)
        for _ in range(10):
            assert text_of(await events_of(backend, ask())) == "Echo: Hi there"
            fake.hang_up()


# --- Bad days ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.HANG])
@pytest.mark.parametrize("after", [0, 2])
async def test_half_an_answer_is_a_failure_after_what_was_said(
    http: aiohttp.ClientSession, fault: Fault, after: int
) -> None:
    events: list[BackendEvent] = []
    async with FakeOllama() as fake:
        backend = Ollama(http, fake.url)
        fake.script(Reply(text="one two three four", fault=fault, after=after))
        with pytest.raises(BackendUnavailable) as caught:
            await collect(backend, ask(), events)
        assert text_of(events) == "one two"[: after * 4].rstrip()
        assert not [event for event in events if isinstance(event, Completed)]
        for secret in (fake.url, "127.0.0.1", "localhost", "unexpected EOF"):
            assert secret not in caught.value.message
        assert text_of(await events_of(backend, ask())) == "Echo: Hi there"


@pytest.mark.parametrize("after", [0, 2])
async def test_silence_has_a_deadline_before_the_first_delta_and_after_it(
    http: aiohttp.ClientSession, after: int
) -> None:
    async with FakeOllama() as fake:
        backend = Ollama(http, fake.url, timeouts=QUICK)
        await backend.list_models()
        fake.script(Reply(text="one two three", fault=Fault.HANG, after=after))
        started = time.monotonic()
        with pytest.raises(BackendUnavailable, match="in time"):
            await events_of(backend, ask())
        assert time.monotonic() - started < 50
        assert await fake.chats[-1].gone() - started < 10


async def test_a_slow_answer_that_goes_on_is_no_silence(http: aiohttp.ClientSession) -> None:
    async with FakeOllama() as fake:
        fake.script(Reply(text="one two three four five", pace_s=0.2))
        events = await events_of(Ollama(http, fake.url, timeouts=QUICK), ask())
    assert text_of(events) == "one two three four five"


async def test_a_consumer_that_takes_its_time_is_not_the_backends_silence(http: aiohttp.ClientSession) -> None:
    async with FakeOllama() as fake:
        fake.script(Reply(text="one two three", pace_s=0.01))
        events: list[BackendEvent] = []
        async for event in Ollama(http, fake.url, timeouts=QUICK).stream(ask()):
            if not events:
                await asyncio.sleep(0.8)
            events.append(event)
    assert text_of(events) == "one two three"


async def test_closing_the_stream_stops_the_server_at_once(http: aiohttp.ClientSession) -> None:
    async with FakeOllama() as fake:
        fake.script(Reply(text="word " * 1000, pace_s=0.02))
        stream = Ollama(http, fake.url).stream(ask())
        await anext(stream)
        closed = time.monotonic()
        await stream.aclose()
        assert await fake.chats[-1].gone() - closed < 5


async def test_cancelling_before_the_first_delta_stops_the_server_at_once(http: aiohttp.ClientSession) -> None:
    async with FakeOllama() as fake:
        backend = Ollama(http, fake.url)
        fake.script(Reply(fault=Fault.HANG))
        waiting = asyncio.create_task(events_of(backend, ask()))
        while not fake.chats:
            await asyncio.sleep(0.01)
        cancelled = time.monotonic()
        waiting.cancel()
        assert await fake.chats[-1].gone() - cancelled < 5


async def test_a_server_that_is_not_there_fails_quickly(http: aiohttp.ClientSession) -> None:
    async with FakeOllama() as fake:
        pass  # and its port is free again
    started = time.monotonic()
    backend = Ollama(http, fake.url)
    for attempt in (events_of(backend, ask()), backend.list_models()):
        with pytest.raises(BackendUnavailable) as caught:
            await attempt
        assert str(fake.port) not in caught.value.message
    assert time.monotonic() - started < 5


async def test_a_redirect_is_not_followed(http: aiohttp.ClientSession) -> None:
    async with FakeOllama() as fake:
        fake.script(Reply(status=307, error="elsewhere"))
        with pytest.raises(BackendUnavailable):
            await events_of(Ollama(http, fake.url), ask())


async def test_sixty_four_streams_at_once_are_whole_and_leave_nothing_behind(http: aiohttp.ClientSession) -> None:
    async with FakeOllama() as fake:
        fake.always(Reply(text=" ".join(map(str, range(50)))))
        backend = Ollama(http, fake.url)
        before = len(asyncio.all_tasks())
        answers = await asyncio.gather(*(events_of(backend, ask()) for _ in range(64)))
        assert {text_of(events) for events in answers} == {" ".join(map(str, range(50)))}
        await asyncio.sleep(0.05)
        assert len(asyncio.all_tasks()) <= before + len({call.peer for call in fake.calls})  # the fake's own
