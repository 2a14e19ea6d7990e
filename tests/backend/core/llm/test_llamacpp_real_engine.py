"""The backend against the real engine: what no fake can promise."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
from jsonschema import validate

from backend.agents.plan import plan_schema
from backend.core.errors import BadRequest, ContextOverflow
from backend.core.events import Completed
from backend.core.llm.base import ResponseFormat, Sampling
from backend.core.llm.grammar import write_grammar
from backend.core.llm.llamacpp import LlamaCpp
from backend.core.messages import ImagePart, Message, ToolCall
from tests.support.engine import running_engine
from tests.support.llm_calls import WEATHER, ask, events_of, text_of

pytestmark = pytest.mark.timeout(120)

GREEDY = Sampling(temperature=0, max_tokens=12, seed=1)
QUESTION = Message("user", "Name the capital of France in one sentence.")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_engine(tmp_path_factory.mktemp("engine")) as url:
        yield url


@pytest.fixture
def backend(engine: str, http: aiohttp.ClientSession) -> LlamaCpp:
    return LlamaCpp(http, engine)


async def test_an_answer_streams_with_usage(backend: LlamaCpp) -> None:
    events = await events_of(backend, ask(QUESTION, sampling=GREEDY))
    completed = events[-1]
    assert len(events) > 3
    assert text_of(events)
    assert isinstance(completed, Completed)
    assert completed.usage.prompt_tokens > 10
    assert 0 < completed.usage.completion_tokens <= 12


async def test_the_same_prefix_is_answered_from_the_cache(backend: LlamaCpp) -> None:
    system = Message("system", "You are a guide to the cities of Europe. Answer in one short sentence.")
    for _ in range(2):
        *_, completed = await events_of(backend, ask(system, QUESTION, sampling=GREEDY))
    assert isinstance(completed, Completed)
    assert completed.usage.cached_tokens > 20


async def test_an_answer_fits_the_schema(backend: LlamaCpp) -> None:
    schema = {
        "type": "object",
        "properties": {"action": {"enum": ["search", "answer"]}, "count": {"type": "integer", "maximum": 9}},
        "required": ["action", "count"],
    }
    sampling = Sampling(temperature=0, max_tokens=60, seed=1)
    events = await events_of(backend, ask(QUESTION, sampling=sampling, response_format=ResponseFormat(schema)))
    assert json.loads(text_of(events))["action"] in {"search", "answer"}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"type": "string", "maxLength": 8}, "b": {"type": ["integer", "null"]}}},
        {"type": "object", "properties": {'a\n"é': {"const": 'b\\"\n'}}, "required": ['a\n"é']},
        {"type": "object", "properties": {"x": {"type": "number"}, "y": {"type": "boolean"}}, "required": ["y"]},
        {"type": "array", "items": {"enum": ["on", 7, None]}, "minItems": 2, "maxItems": 3},
        {"type": "array", "items": {"type": "string", "maxLength": 3}, "maxItems": 2},
        {"anyOf": [{"type": "object", "additionalProperties": False}, {"type": "array", "maxItems": 0}]},
        plan_schema(["search"], 4),
    ],
)
async def test_the_engine_understands_our_grammars(backend: LlamaCpp, schema: dict[str, Any]) -> None:
    assert write_grammar(schema)
    sampling = Sampling(temperature=0.7, max_tokens=200, seed=3)
    events = await events_of(backend, ask(QUESTION, sampling=sampling, response_format=ResponseFormat(schema)))
    completed = events[-1]
    assert isinstance(completed, Completed)
    if completed.finish_reason == "stop":
        validate(json.loads(text_of(events)), schema)


async def test_what_a_model_wrote_under_a_grammar_is_in_the_cache_when_it_is_sent_back(backend: LlamaCpp) -> None:
    schema = {"type": "object", "properties": {"action": {"const": "search"}}, "required": ["action"]}
    asked = (Message("system", 'Reply with JSON alone: ```json\n{\n  "action": "search"\n}\n```'), QUESTION)
    events = await events_of(backend, ask(*asked, sampling=GREEDY, response_format=ResponseFormat(schema)))
    first = events[-1]
    said = Message("assistant", text_of(events))
    *_, second = await events_of(backend, ask(*asked, said, Message("user", "Go on."), sampling=GREEDY))
    assert isinstance(first, Completed)
    assert isinstance(second, Completed)
    # All that was read and written, but for the token that ended it.
    assert second.usage.cached_tokens >= first.usage.prompt_tokens + first.usage.completion_tokens - 2


async def test_a_prompt_that_is_too_long_is_an_error_with_both_counts(backend: LlamaCpp) -> None:
    with pytest.raises(ContextOverflow) as caught:
        await events_of(backend, ask(Message("user", "word " * 1500), sampling=GREEDY))
    assert caught.value.context_tokens == 1024
    assert (caught.value.prompt_tokens or 0) > 1500


async def test_closing_the_stream_frees_the_slot(engine: str, backend: LlamaCpp, http: aiohttp.ClientSession) -> None:
    story = ask(Message("user", "Tell a very long story about the sea."), sampling=Sampling(max_tokens=800, seed=1))
    stream = backend.stream(story)
    await anext(stream)
    assert await busy_slots(engine, http) == 1
    await stream.aclose()
    async with asyncio.timeout(4):  # 0.1 s on an idle machine; the story itself would take at least 8
        while await busy_slots(engine, http):
            await asyncio.sleep(0.02)


async def busy_slots(engine: str, http: aiohttp.ClientSession) -> int:
    async with http.get(f"{engine}/slots") as response:
        return sum(bool(slot["is_processing"]) for slot in await response.json())


@pytest.mark.parametrize("begun", ["The capital of France is", "The capital of Fra", "The", 'He said "Fra'])
async def test_an_answer_goes_on_with_new_text_only_also_inside_a_word(backend: LlamaCpp, begun: str) -> None:
    text = text_of(await events_of(backend, ask(QUESTION, Message("assistant", begun), sampling=GREEDY)))
    assert text
    assert not text.startswith(begun[:8])
    if begun.endswith("Fra"):
        assert (begun + text).split("Fra")[-1].startswith("nce")


async def test_tools_are_refused_since_this_template_would_drop_them(backend: LlamaCpp) -> None:
    with pytest.raises(BadRequest) as caught:
        await events_of(backend, ask(QUESTION, tools=(WEATHER,)))
    assert caught.value.param == "tools"


async def test_pictures_are_refused_since_this_model_cannot_see(backend: LlamaCpp) -> None:
    with pytest.raises(BadRequest) as caught:
        await events_of(backend, ask(Message("user", (ImagePart("data:image/png;base64,iVBORw0KGgo="),))))
    assert caught.value.param == "messages"


async def test_every_field_is_taken(backend: LlamaCpp) -> None:
    sampling = Sampling(0.5, 0.9, 3, ("\n\n\n",), -9007199254740991, 0.1, 0.1, {"19556": -100.0}, logprobs=True)
    history = (
        Message("system", "Be kind."),
        Message("system", "Be brief."),
        Message("user", "What is the weather?"),
        Message("assistant", "", (ToolCall("c1", "weather", "{broken"),)),
        Message("tool", "sunny", tool_call_id="c1"),
        QUESTION,
    )
    events = await events_of(backend, ask(*history, sampling=sampling, reasoning_effort="none"))
    assert text_of(events)
    assert events[0].logprobs[0]["top_logprobs"] == []  # type: ignore[union-attr,index]


async def test_the_model_is_listed_with_its_window(backend: LlamaCpp) -> None:
    (model,) = await backend.list_models()
    assert model.context_tokens == 1024
    assert model.capabilities == {"completion"}
