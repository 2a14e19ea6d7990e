"""The client's tools on the real engine, whose model has a template without tools."""

import json
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
from jsonschema import validate

from backend.core.events import Completed, TextDelta, ToolCallDelta
from backend.core.llm.base import LLMRequest, NamedTool, ResponseFormat, Sampling, ToolDefinition
from backend.core.llm.client_tools import ClientTools
from backend.core.llm.llamacpp import LlamaCpp
from backend.core.messages import Message, ToolCall
from tests.support.engine import running_engine
from tests.support.llm_calls import events_of, text_of

pytestmark = pytest.mark.timeout(120)

BOOKING = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 20},
        "nights": {"type": "integer", "minimum": 1, "maximum": 30},
        "guests": {"type": "array", "items": {"$ref": "#/$defs/Guest"}, "minItems": 1, "maxItems": 2},
    },
    "required": ["city", "nights", "guests"],
    "$defs": {
        "Guest": {
            "type": "object",
            "properties": {"name": {"type": "string", "maxLength": 12}, "kind": {"enum": ["adult", "child"]}},
            "required": ["name", "kind"],
        }
    },
}
BOOK = ToolDefinition("book", "Books a hotel.", BOOKING)
CLOCK = ToolDefinition("clock", "Tells the time.", {"type": "object", "properties": {}})
QUESTION = Message("user", "Book a room in Paris for Ann, 2 nights.")
SAMPLING = Sampling(temperature=0, max_tokens=200, seed=1)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    ClientTools(LlamaCpp(None, "http://127.0.0.1:9"), lambda _: frozenset())  # type: ignore[arg-type] # reads the prompts
    with running_engine(tmp_path_factory.mktemp("engine"), context=2048) as url:
        yield url


@pytest.fixture
async def llm(engine: str, http: aiohttp.ClientSession) -> ClientTools:
    backend = LlamaCpp(http, engine)
    (model,) = await backend.list_models()
    assert "tools" not in model.capabilities
    return ClientTools(backend, lambda _: model.capabilities)


def ask(*messages: Message, **fields: Any) -> LLMRequest:
    return LLMRequest("default", messages or (QUESTION,), SAMPLING, **fields)


@pytest.mark.parametrize(("tools", "choice"), [((CLOCK, BOOK), NamedTool("book")), ((BOOK, CLOCK), "required")])
async def test_a_call_that_has_to_be_made_is_made_and_fits(llm: ClientTools, tools: Any, choice: Any) -> None:
    events = await events_of(llm, ask(tools=tools, tool_choice=choice))
    head, *rest = [event for event in events if isinstance(event, ToolCallDelta)]
    assert head.name in {tool.name for tool in tools}
    assert head.id
    if head.name == "book":
        validate(json.loads("".join(delta.arguments for delta in rest)), BOOKING)
    assert isinstance(events[-1], Completed)
    assert events[-1].finish_reason == "tool_calls"
    assert not text_of(events)


async def test_with_a_choice_the_model_calls_or_speaks(llm: ClientTools) -> None:
    history = (
        QUESTION,
        Message("assistant", "", (ToolCall("a", "book", '{"city": "Paris"}'),)),
        Message("tool", "The room is booked. Its number is 12.", tool_call_id="a"),
        Message("user", "Thank you. Say hello to Ann."),
    )
    events = await events_of(llm, ask(*history, tools=(CLOCK, BOOK)))
    assert isinstance(events[-1], Completed)
    called = any(isinstance(event, ToolCallDelta) for event in events)
    assert called != bool(text_of(events).strip())
    assert events[-1].finish_reason in ({"tool_calls"} if called else {"stop", "length"})


@pytest.mark.parametrize("schema", [None, BOOKING])
async def test_an_answer_has_its_format(llm: ClientTools, schema: dict[str, Any] | None) -> None:
    events = await events_of(llm, ask(response_format=ResponseFormat(schema), live=False))
    assert isinstance(events[-1], Completed)
    if events[-1].finish_reason == "stop":
        validate(json.loads(text_of(events)), schema or {"type": "object"})
    assert any(isinstance(event, TextDelta) for event in events)
