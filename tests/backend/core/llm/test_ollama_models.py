"""What is known of Ollama's models: their window, their abilities, and whether they go on with an answer."""

import asyncio
import time

import aiohttp
import pytest

from backend.core.errors import BackendUnavailable
from backend.core.llm.ollama import Ollama
from backend.core.messages import Message
from tests.support.fake_ollama import FakeModel, FakeOllama
from tests.support.llm_calls import ask, events_of, text_of
from tests.support.llm_script import Reply

MODEL = "smollm2:135m"


@pytest.mark.parametrize(("setting", "sent"), [("5m", "5m"), ("-1", -1), ("300", 300)])
async def test_keep_alive_goes_as_a_number_where_it_is_one(
    http: aiohttp.ClientSession, setting: str, sent: object
) -> None:
    async with FakeOllama() as fake:
        await events_of(Ollama(http, fake.url, keep_alive=setting), ask())
        assert fake.chats[-1].body["keep_alive"] == sent


@pytest.mark.parametrize(("context", "window"), [(2048, 2048), (131072, 8192)])
async def test_the_window_is_the_models_own_where_that_is_smaller(
    http: aiohttp.ClientSession, context: int, window: int
) -> None:
    async with FakeOllama([FakeModel(context=context)]) as fake:
        backend = Ollama(http, fake.url, num_ctx=8192)
        await events_of(backend, ask())
        assert fake.chats[-1].body["options"]["num_ctx"] == window
        (listed,) = await backend.list_models()
        assert listed.context_tokens == window


# --- Models -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tags_tell_all", [True, False])
async def test_models_are_listed_with_window_and_abilities_by_old_and_new_servers(
    http: aiohttp.ClientSession, tags_tell_all: bool
) -> None:
    models = [FakeModel(context=2048), FakeModel("thinker:7b", capabilities=("completion", "tools", "thinking"))]
    async with FakeOllama(models, tags_tell_all=tags_tell_all) as fake:
        backend = Ollama(http, fake.url)
        small, thinker = await backend.list_models()
        shows = [call for call in fake.calls if call.path == "/api/show"]
        assert len(shows) == (0 if tags_tell_all else 2)
        assert (small.id, small.context_tokens, small.capabilities) == (MODEL, 2048, {"completion"})
        assert (thinker.id, thinker.context_tokens) == ("thinker:7b", 8192)
        assert thinker.capabilities == {"completion", "tools", "thinking"}
        assert abs(small.created - time.time()) < 60
        await backend.list_models()
        assert len([call for call in fake.calls if call.path == "/api/show"]) == len(shows)  # known by digest


async def test_a_model_that_was_replaced_is_looked_at_again(http: aiohttp.ClientSession) -> None:
    async with FakeOllama([FakeModel(digest="a")], tags_tell_all=False) as fake:
        backend = Ollama(http, fake.url)
        await backend.list_models()
        fake.models = [FakeModel(digest="b", capabilities=("completion", "vision"))]
        (model,) = await backend.list_models()
    assert "vision" in model.capabilities


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"{}", b'{"models":[3]', b'{"models":[3]}', b'{"models":[{"name":"m","details":[3]}]}'],
)
async def test_a_list_that_is_not_ollamas_is_a_failure(http: aiohttp.ClientSession, body: bytes) -> None:
    async def rubbish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        writer.close()

    async with await asyncio.start_server(rubbish, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(BackendUnavailable):
            await Ollama(http, f"http://127.0.0.1:{port}").list_models()


# --- Going on with an answer ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("continues", [True, False])
async def test_whether_a_model_goes_on_is_found_out_once(http: aiohttp.ClientSession, continues: bool) -> None:
    async with FakeOllama([FakeModel(continues=continues)]) as fake:
        backend = Ollama(http, fake.url)
        await backend.list_models()
        assert [await backend.continues(MODEL) for _ in range(3)] == [continues] * 3
        assert len(fake.chats) == (1 if continues else 0)  # a template that closes every message needs no trial


async def test_a_template_that_promises_more_than_the_model_does_is_not_believed(http: aiohttp.ClientSession) -> None:
    open_at_the_end = FakeModel().template or "{{ slice .Messages }}"
    async with FakeOllama([FakeModel(continues=False, template=open_at_the_end)]) as fake:
        assert not await Ollama(http, fake.url).continues(MODEL)
        assert fake.chats[-1].body["options"]["num_ctx"] == 8192  # the same as ever: no model is loaded anew for this


async def test_not_knowing_whether_a_model_goes_on_is_no_and_is_not_remembered(http: aiohttp.ClientSession) -> None:
    async with FakeOllama() as fake:
        backend = Ollama(http, fake.url)
        fake.always(Reply(status=503))
        assert not await backend.continues(MODEL)
        assert not await backend.continues("nope")
        fake.always(Reply())
        assert await backend.continues(MODEL)


async def test_only_the_new_text_of_an_answer_that_goes_on_comes(http: aiohttp.ClientSession) -> None:
    async with FakeOllama() as fake:
        request = ask(Message("user", "Count from 1 to 5"), Message("assistant", "1, 2, 3"))
        assert text_of(await events_of(Ollama(http, fake.url), request)) == ", 4, 5"
        assert fake.chats[-1].body["messages"][-1] == {"role": "assistant", "content": "1, 2, 3"}
