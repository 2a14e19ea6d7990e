"""`POST /v1/completions` over a real socket, asked by OpenAI's own clients, on both kinds of model servers."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI
from openai.types import Completion

from tests.support.fake_llamacpp import FakeLlamaCpp
from tests.support.fake_ollama import FakeModel, FakeOllama
from tests.support.llm_script import Fault, Reply
from tests.support.server import RunningServer, make_settings, running_server

MODEL = "smollm2:135m"
COUNT = "Count from 1 to 9:"
COUNTED = " 1, 2, 3, 4, 5, 6, 7, 8, 9"
Fake = FakeOllama | FakeLlamaCpp


@asynccontextmanager
async def serving(data_dir: Path, *fakes: Fake, **changes: Any) -> AsyncIterator[RunningServer]:
    urls = {"ollama": "http://127.0.0.1:9", "llamacpp": "http://127.0.0.1:9"}
    urls |= {"ollama" if isinstance(fake, FakeOllama) else "llamacpp": fake.url for fake in fakes}
    order = ",".join("ollama" if isinstance(fake, FakeOllama) else "llamacpp" for fake in fakes)
    settings = make_settings(
        data_dir,
        LLM_BACKEND=order,
        OLLAMA_BASE_URL=urls["ollama"],
        LLAMACPP_BASE_URL=urls["llamacpp"],
        OLLAMA_MODEL=MODEL,
        **changes,
    )
    async with running_server(settings) as server:
        yield server


@pytest.fixture(params=["ollama", "llamacpp"])
async def fake(request: pytest.FixtureRequest) -> AsyncIterator[Fake]:
    async with FakeOllama() if request.param == "ollama" else FakeLlamaCpp() as fake:
        yield fake


@pytest.fixture
async def http(tmp_path: Path, fake: Fake) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(tmp_path, fake) as server, await server.signed_in() as client:
        yield client


@pytest.fixture
async def alice(http: httpx.AsyncClient) -> AsyncIterator[AsyncOpenAI]:
    key = http.headers["authorization"].removeprefix("Bearer ")
    async with AsyncOpenAI(base_url=f"{http.base_url}/v1", api_key=key, max_retries=0, timeout=20) as client:
        yield client


def chunks_of(text: str) -> list[Any]:
    frames = [line.removeprefix("data: ") for line in text.split("\n\n") if line.startswith("data: ")]
    return [frame if frame == "[DONE]" else json.loads(frame) for frame in frames]


async def test_the_model_goes_on_with_the_text_as_it_stands(alice: AsyncOpenAI, fake: Fake) -> None:
    completion = await alice.completions.create(model="default", prompt=COUNT, max_tokens=50, seed=1, stop=["\n"])
    assert completion.choices[0].text == COUNTED
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage
    assert completion.usage.total_tokens > 0
    Completion.model_validate(completion.to_dict())
    call = fake.completions[-1]
    assert call.body["prompt"] == COUNT
    assert "messages" not in call.body
    if isinstance(fake, FakeOllama):
        assert (call.path, call.body["raw"]) == ("/api/generate", True)
        assert call.body["options"]["seed"] == 1
    else:
        assert (call.path, call.body["seed"], call.body["stop"]) == ("/v1/completions", 1, ["\n"])


async def test_a_stream_says_the_same_in_pieces(http: httpx.AsyncClient, alice: AsyncOpenAI) -> None:
    stream = await alice.completions.create(model="default", prompt=COUNT, stream=True)
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].text for chunk in chunks) == COUNTED
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert len({(chunk.id, chunk.created, chunk.model, chunk.object) for chunk in chunks}) == 1
    raw = await http.post(
        "/v1/completions", json={"prompt": COUNT, "stream": True, "stream_options": {"include_usage": True}}
    )
    *told, usage, done = chunks_of(raw.text)
    assert done == "[DONE]"
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] > 0
    assert all(chunk["usage"] is None for chunk in told)


@pytest.mark.parametrize("streams", [True, False])
async def test_several_prompts_and_copies_are_choices_in_this_order(http: httpx.AsyncClient, streams: bool) -> None:
    body = {"prompt": ["one", "two"], "n": 2, "echo": True, "stream": streams}
    answer = await http.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    texts: dict[int, str] = {}
    for part in chunks_of(answer.text)[:-1] if streams else [answer.json()]:
        for choice in part["choices"]:
            texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
    assert texts == {0: "one after one", 1: "one after one", 2: "two after two", 3: "two after two"}


async def test_a_limit_cuts_the_text_and_says_so(alice: AsyncOpenAI) -> None:
    completion = await alice.completions.create(model="default", prompt=COUNT, max_tokens=3)
    assert (completion.choices[0].text, completion.choices[0].finish_reason) == (" 1, 2, 3,", "length")


async def test_probabilities_have_their_old_shape(alice: AsyncOpenAI) -> None:
    completion = await alice.completions.create(model="default", prompt="one", logprobs=2)
    logprobs = completion.choices[0].logprobs
    assert logprobs
    assert logprobs.tokens == [" after", " one"]
    assert logprobs.token_logprobs == [-0.5, -0.5]
    assert logprobs.text_offset == [0, 6]
    assert logprobs.top_logprobs == [{" after": -0.5}, {" one": -0.5}]


async def test_nothing_of_it_is_a_conversation(http: httpx.AsyncClient, alice: AsyncOpenAI) -> None:
    await alice.completions.create(model="react/default", prompt="one")
    assert (await http.get("/api/chat/sessions")).json()["sessions"] == []


async def test_a_prompt_that_is_too_long_is_an_error_about_the_prompt(alice: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await alice.completions.create(model="default", prompt="word " * 10_000)
    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "prompt")


async def test_a_client_that_leaves_ends_every_call(http: httpx.AsyncClient, fake: Fake) -> None:
    fake.always(Reply(text="word " * 500, pace_s=0.05))
    body = {"prompt": ["a", "b"], "stream": True}
    async with http.stream("POST", "/v1/completions", json=body) as response:
        async for line in response.aiter_lines():
            if line.startswith("data:") and len(fake.completions) == 2:
                break
    for call in fake.completions:
        await call.gone()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [1, 2, 3]}, "prompt"),
        ({"prompt": [[1, 2], [3]]}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": ["a"] * 17}, "prompt"),
        ({"prompt": "a", "n": 99}, "n"),
        ({"prompt": "a", "best_of": 3}, "best_of"),
        ({"prompt": "a", "echo": True, "logprobs": 1}, "echo"),
        ({"prompt": "a", "suffix": "b"}, "suffix"),
        ({"prompt": "a", "temperature": -1}, "temperature"),
        ({"prompt": "a", "model": "nobody"}, "model"),
    ],
)
async def test_what_cannot_be_done_is_an_error_that_names_it(
    http: httpx.AsyncClient, fields: dict[str, Any], param: str
) -> None:
    for streams in (True, False):
        answer = await http.post("/v1/completions", json={**fields, "stream": streams})
        assert answer.status_code in {400, 404}, answer.text
        assert answer.json()["error"]["param"] == param, answer.json()


async def test_a_gap_is_filled_by_a_model_that_can(tmp_path: Path) -> None:
    async with (
        FakeLlamaCpp() as first,
        FakeOllama([FakeModel(MODEL, capabilities=("completion", "insert"))]) as second,
        serving(tmp_path, first, second) as server,
        await server.signed_in() as http,
    ):
        answer = await http.post("/v1/completions", json={"prompt": "def f(", "suffix": "return x"})
        assert answer.headers["x-llm-backend"] == "ollama", answer.text
        assert (second.completions[-1].body["suffix"], second.completions[-1].body["raw"]) == ("return x", False)


@pytest.mark.parametrize("fault", [Fault.CUT, Fault.ERROR, Fault.END, Fault.GARBAGE, Fault.HTML, Fault.HALF_LINE])
async def test_the_next_server_goes_on_where_one_broke_off(tmp_path: Path, fault: Fault) -> None:
    async with FakeOllama() as first, FakeLlamaCpp() as second:
        first.script(Reply(fault=fault, after=4))
        async with serving(tmp_path, first, second) as server, await server.signed_in() as http:
            answer = await http.post("/v1/completions", json={"prompt": COUNT, "max_tokens": 9, "stream": True})
            told = chunks_of(answer.text)
            assert told[-1] == "[DONE]", told
            assert "".join(chunk["choices"][0]["text"] for chunk in told[:-1]) == COUNTED
            assert second.completions[-1].body["prompt"] == f"{COUNT} 1, 2, 3, 4,"
            assert second.completions[-1].body["max_tokens"] == 5


@pytest.mark.parametrize("fault", [Fault.CUT, Fault.GARBAGE, Fault.END])
async def test_a_text_that_nobody_can_finish_ends_with_one_error(
    http: httpx.AsyncClient, fake: Fake, fault: Fault
) -> None:
    fake.script(Reply(fault=fault, after=3))
    fake.always(Reply(status=500))
    answer = await http.post("/v1/completions", json={"prompt": COUNT, "stream": True})
    *told, error = chunks_of(answer.text)
    assert "".join(chunk["choices"][0]["text"] for chunk in told) == " 1, 2, 3,"
    assert set(error["error"]) == {"message", "type", "param", "code"}


async def test_the_prompt_is_in_the_log_of_model_calls(tmp_path: Path) -> None:
    async with FakeOllama() as fake, serving(tmp_path, fake) as server, await server.signed_in() as http:
        await http.post("/v1/completions", json={"prompt": COUNT})
        log = tmp_path / "logs" / "prompts.log"
        async with asyncio.timeout(5):
            while not await asyncio.to_thread(lambda: log.exists() and log.stat().st_size):
                await asyncio.sleep(0.05)
        entry = json.loads(await asyncio.to_thread(log.read_text))
        assert (entry["prompt"], entry["messages"], entry["response"]) == (COUNT, [], COUNTED)


async def test_a_model_that_thinks_is_told_not_to_look_for_thoughts_in_a_text(tmp_path: Path) -> None:
    able = FakeModel(MODEL, capabilities=("completion", "thinking"))
    async with FakeOllama([able]) as fake, serving(tmp_path, fake) as server, await server.signed_in() as http:
        assert (await http.post("/v1/completions", json={"prompt": "one"})).status_code == 200
        assert fake.completions[-1].body["think"] is False
