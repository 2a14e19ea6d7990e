"""OpenAI's own client for Python, on the routes beside chat: responses, and completions of texts; sync and async."""

import json
from collections.abc import AsyncIterator, Iterator
from importlib.metadata import version
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from tests.e2e.clients.conformance import Client
from tests.e2e.clients.model import OLLAMA_MODEL, Models
from tests.support.llm_script import Fault, Reply
from tests.support.openai_events import EVENT_TYPES, check_response

CLIENT = Client(
    "openai (Python), responses and completions",
    version("openai"),
    "texts and items, events, `.stream()`, `.parse()`, tools, `previous_response_id`, what is kept; `completions`",
)
WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "description": "Tells the weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city", "days"],
        "additionalProperties": False,
    },
    "strict": True,
}


class City(BaseModel):
    name: str
    people: int


@pytest.fixture
def client(server: httpx.Client, token: str) -> Iterator[OpenAI]:
    with OpenAI(
        base_url=f"{server.base_url}/v1", api_key=token, max_retries=0, timeout=60, _strict_response_validation=True
    ) as client:
        yield client


@pytest.fixture
async def async_client(server: httpx.Client, token: str) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(
        base_url=f"{server.base_url}/v1", api_key=token, max_retries=0, timeout=60, _strict_response_validation=True
    ) as client:
        yield client


def test_a_response(client: OpenAI, model: str) -> None:
    response = client.responses.create(model=model, input="Hello", instructions="Be brief.")
    check_response(response.to_dict())
    assert (response.output_text, response.status) == ("Echo: Hello", "completed")


async def test_an_async_response(async_client: AsyncOpenAI, model: str) -> None:
    response = await async_client.responses.create(model=model, input=[{"role": "user", "content": "Hello"}])
    assert response.output_text == "Echo: Hello"


def test_events(client: OpenAI, model: str) -> None:
    events = list(client.responses.create(model=model, input="Count from 1 to 9", stream=True))
    assert all(type(event) is EVENT_TYPES[event.type] for event in events)
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == "1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert events[-1].type == "response.completed"


async def test_the_streaming_helper(async_client: AsyncOpenAI, model: str) -> None:
    async with async_client.responses.stream(model=model, input="Count from 1 to 3") as events:
        final = await events.get_final_response()
    assert final.output_text == "1, 2, 3"


def test_parse_gives_an_object(client: OpenAI, model: str) -> None:
    response = client.responses.parse(model=model, input="Paris, 2000000 people", text_format=City)
    assert isinstance(response.output_parsed, City)


def test_a_format_streams_into_the_helper(client: OpenAI, model: str) -> None:
    with client.responses.stream(model=model, input="Paris, 2000000 people", text_format=City) as events:
        assert isinstance(events.get_final_response().output_parsed, City)


@pytest.mark.parametrize("choice", ["auto", "required", {"type": "function", "name": "weather"}])
def test_a_loop_of_tools_goes_on_from_the_response(client: OpenAI, model: str, choice: Any) -> None:
    first = client.responses.create(model=model, input="Paris, 3 days", tools=[WEATHER], tool_choice=choice)
    (call,) = [item for item in first.output if item.type == "function_call"]
    assert call.name == "weather"
    assert set(json.loads(call.arguments)) == {"city", "days"}
    result: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}]
    second = client.responses.create(model=model, input=result, tools=[WEATHER], previous_response_id=first.id)
    assert second.output_text.startswith("Echo:")


def test_a_loop_of_tools_with_all_items_echoed(client: OpenAI, model: str) -> None:
    items: Any = [{"role": "user", "content": "Paris, 3 days"}]
    first = client.responses.create(model=model, input=items, tools=[WEATHER], store=False)
    items += first.output
    items += [
        {"type": "function_call_output", "call_id": item.call_id, "output": "sunny"}
        for item in first.output
        if item.type == "function_call"
    ]
    last = client.responses.create(model=model, input=items, tools=[WEATHER], store=False)
    assert last.output_text.startswith("Echo:")


def test_a_call_streams_into_the_helper(client: OpenAI, model: str) -> None:
    with client.responses.stream(model=model, input="Paris, 3 days", tools=[WEATHER]) as events:
        (call,) = events.get_final_response().output
    assert call.type == "function_call"
    assert set(json.loads(call.arguments)) == {"city", "days"}


def test_branches_of_a_conversation(client: OpenAI, models: Models) -> None:
    root = client.responses.create(model=OLLAMA_MODEL, input="root")
    for name in ("left", "right"):
        client.responses.create(model=OLLAMA_MODEL, input=name, previous_response_id=root.id)
        read = [message["content"] for message in models.ollama.chats[-1].body["messages"]]
        assert read == ["root", "Echo: root", name]


def test_what_is_kept(client: OpenAI) -> None:
    made = client.responses.create(model=OLLAMA_MODEL, input="Hello", metadata={"a": "b"})
    assert client.responses.retrieve(made.id).to_dict() == made.to_dict()
    assert [item.type for item in client.responses.input_items.list(made.id)] == ["message"]
    with pytest.raises(openai.BadRequestError):
        client.responses.cancel(made.id)
    client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)


def test_a_break_in_the_middle_is_told(client: OpenAI, models: Models) -> None:
    models.ollama.script(Reply(text="one two three four", fault=Fault.CUT, after=2))
    stream = client.responses.create(model=OLLAMA_MODEL, input="Hello", stream=True)
    models.ollama.always(Reply(status=500))
    models.llamacpp.always(Reply(status=500))
    try:
        last = list(stream)[-1]
    finally:
        models.ollama.always(Reply())
        models.llamacpp.always(Reply())
    assert last.type in {"response.failed", "response.completed"}  # another backend may have gone on with it


def test_a_text_goes_on(client: OpenAI, model: str) -> None:
    completion = client.completions.create(model=model, prompt="Count from 1 to 5:", max_tokens=20)
    assert (completion.choices[0].text, completion.choices[0].finish_reason) == (" 1, 2, 3, 4, 5", "stop")


async def test_texts_go_on_in_a_stream(async_client: AsyncOpenAI, model: str) -> None:
    async_client._strict_response_validation = False  # its type knows no null as finish reason; the wire has it
    stream = await async_client.completions.create(model=model, prompt=["one", "two"], n=2, echo=True, stream=True)
    texts = ["", "", "", ""]
    async for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert texts == ["one after one", "one after one", "two after two", "two after two"]


def test_tokens_as_a_prompt_are_refused_by_name(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(model=OLLAMA_MODEL, prompt=[1, 2, 3])
    assert refused.value.param == "prompt"
