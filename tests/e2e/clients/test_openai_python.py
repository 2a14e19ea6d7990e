"""OpenAI's own client for Python, against every kind of model: chat, streams, tools, formats; sync and async."""

import json
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from tests.e2e.clients.conformance import Client
from tests.e2e.clients.model import LLAMACPP_MODEL, OLLAMA_MODEL, PLAIN_MODEL, TOOLLESS_MODEL, Models
from tests.support.llm_script import Fault, Reply

CLIENT = Client(
    "openai (Python)",
    version("openai"),
    "chat, streams, `.stream()`, `.parse()`, tools, formats, logprobs, images; sync, async",
)
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
}
CLOCK: Any = {"type": "function", "function": {"name": "clock"}}
QUESTION: Any = [{"role": "user", "content": "Paris, 3 days"}]
PIXEL = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


class City(BaseModel):
    name: str
    people: int


@pytest.fixture
def client(server: httpx.Client, token: str) -> OpenAI:
    return OpenAI(
        base_url=f"{server.base_url}/v1", api_key=token, max_retries=0, timeout=60, _strict_response_validation=True
    )


@pytest.fixture
async def async_client(server: httpx.Client, token: str) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(
        base_url=f"{server.base_url}/v1", api_key=token, max_retries=0, timeout=60, _strict_response_validation=True
    ) as client:
        yield client


def test_chat(client: OpenAI, model: str) -> None:
    answer = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Hello"}])
    assert answer.choices[0].message.content == "Echo: Hello"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0


def test_a_stream_with_usage(client: OpenAI, model: str) -> None:
    chunks = list(
        client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": "Count from 1 to 9"}],
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert [c.choices[0].delta.role for c in chunks if c.choices and c.choices[0].delta.role] == ["assistant"]
    assert len({(c.id, c.created, c.model) for c in chunks}) == 1
    assert [bool(c.usage) for c in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].choices == []


def test_the_streaming_helper(client: OpenAI, model: str) -> None:
    with client.chat.completions.stream(model=model, messages=[{"role": "user", "content": "Hello"}]) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert "content.delta" in kinds
    assert final.choices[0].message.content == "Echo: Hello"
    assert final.choices[0].message.role == "assistant"


async def test_async_chat_and_stream(async_client: AsyncOpenAI, model: str) -> None:
    question: Any = [{"role": "user", "content": "Hello"}]
    answer = await async_client.chat.completions.create(model=model, messages=question)
    assert answer.choices[0].message.content == "Echo: Hello"
    stream = await async_client.chat.completions.create(model=model, messages=question, stream=True)
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "Echo: Hello"


@pytest.mark.parametrize("choice", ["auto", "required", {"type": "function", "function": {"name": "weather"}}])
def test_a_tool_is_called_whatever_the_choice(client: OpenAI, model: str, choice: Any) -> None:
    answer = client.chat.completions.create(
        model=model, messages=QUESTION, tools=[WEATHER, CLOCK], tool_choice=choice, parallel_tool_calls=False
    )
    message = answer.choices[0].message
    assert message.tool_calls
    (call,) = message.tool_calls
    assert call.type == "function"
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments) == {"city": "Paris, 3 days", "days": 3}
    assert call.id.startswith("call")
    assert answer.choices[0].finish_reason == "tool_calls"
    assert message.content is None


def test_no_tool_is_called_when_none_is_to_be(client: OpenAI, model: str) -> None:
    answer = client.chat.completions.create(model=model, messages=QUESTION, tools=[WEATHER], tool_choice="none")
    assert answer.choices[0].message.content == "Echo: Paris, 3 days"
    assert answer.choices[0].message.tool_calls is None


def test_a_tool_call_streams_into_the_helper(client: OpenAI, model: str) -> None:
    with client.chat.completions.stream(model=model, messages=QUESTION, tools=[WEATHER]) as stream:
        done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
        final = stream.get_final_completion()
    assert [event.name for event in done] == ["weather"]
    assert final.choices[0].message.tool_calls
    assert json.loads(final.choices[0].message.tool_calls[0].function.arguments)["days"] == 3


def test_a_loop_of_tools_with_whole_messages_echoed(client: OpenAI, model: str) -> None:
    messages: Any = list(QUESTION)
    for _ in range(4):
        message = client.chat.completions.create(model=model, messages=messages, tools=[WEATHER]).choices[0].message
        messages.append(message.to_dict() | {"refusal": None, "audio": None, "annotations": [], "unknown": {"a": 1}})
        if not message.tool_calls:
            break
        for call in message.tool_calls:
            messages.append({"role": "tool", "tool_call_id": call.id, "content": '{"sunny": true}'})
    assert [m["role"] for m in messages] == ["user", "assistant", "tool", "assistant"]
    assert messages[-1]["content"].startswith("Echo:")


async def test_an_async_loop_of_tools(async_client: AsyncOpenAI, model: str) -> None:
    first = await async_client.chat.completions.create(model=model, messages=QUESTION, tools=[WEATHER])
    message = first.choices[0].message
    assert message.tool_calls
    results: Any = [{"role": "tool", "tool_call_id": call.id, "content": "sunny"} for call in message.tool_calls]
    last = await async_client.chat.completions.create(
        model=model, messages=[*QUESTION, message, *results], tools=[WEATHER]
    )
    assert last.choices[0].finish_reason == "stop"


def test_two_calls_at_once_keep_apart(client: OpenAI, models: Models) -> None:
    calls = (("weather", {"city": "Paris", "days": 1}), ("clock", {}))
    for name in (OLLAMA_MODEL, LLAMACPP_MODEL):
        models.of(name).script(Reply(tool_calls=calls))
        with client.chat.completions.stream(model=name, messages=QUESTION, tools=[WEATHER, CLOCK]) as stream:
            for _ in stream:
                pass
            made = stream.get_final_completion().choices[0].message.tool_calls
        assert made
        assert [(call.function.name, json.loads(call.function.arguments)) for call in made] == list(calls)
        assert len({call.id for call in made}) == 2


def test_a_strict_tool_gets_arguments_that_fit(client: OpenAI, models: Models) -> None:
    strict: Any = {"type": "function", "function": WEATHER["function"] | {"strict": True}}
    for name in (OLLAMA_MODEL, LLAMACPP_MODEL):
        models.of(name).script(Reply(tool_calls=(("weather", {"town": "Paris"}),)))
        answer = client.chat.completions.create(model=name, messages=QUESTION, tools=[strict])
        assert answer.choices[0].message.tool_calls
        assert json.loads(answer.choices[0].message.tool_calls[0].function.arguments).keys() == {"city", "days"}


def test_history_with_broken_arguments_is_taken(client: OpenAI, model: str) -> None:
    call: Any = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": '}}
    history: Any = [
        *QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "broken"},
        {"role": "user", "content": "So?"},
    ]
    answer = client.chat.completions.create(model=model, messages=history)
    assert answer.choices[0].finish_reason == "stop"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_functions_of_the_old_form_are_called_in_the_old_form(client: OpenAI, model: str) -> None:
    functions: Any = [WEATHER["function"]]
    answer = client.chat.completions.create(model=model, messages=QUESTION, functions=functions).choices[0]
    assert answer.finish_reason == "function_call"
    assert answer.message.tool_calls is None
    assert answer.message.function_call
    assert answer.message.function_call.name == "weather"
    assert json.loads(answer.message.function_call.arguments)["days"] == 3
    chunks = list(client.chat.completions.create(model=model, messages=QUESTION, functions=functions, stream=True))
    deltas = [chunk.choices[0].delta.function_call for chunk in chunks if chunk.choices[0].delta.function_call]
    assert [delta.name for delta in deltas if delta.name] == ["weather"]
    assert json.loads("".join(delta.arguments or "" for delta in deltas))["days"] == 3
    assert chunks[-1].choices[0].finish_reason == "function_call"
    history: Any = [
        *QUESTION,
        answer.message.to_dict(),
        {"role": "function", "name": "weather", "content": "sunny"},
    ]
    last = client.chat.completions.create(model=model, messages=history, functions=functions).choices[0]
    assert last.finish_reason == "stop"


def test_parse_gives_an_object(client: OpenAI, model: str) -> None:
    parsed = (
        client.chat.completions.parse(model=model, messages=QUESTION, response_format=City).choices[0].message.parsed
    )
    assert parsed == City(name="Paris, 3 days", people=3)


async def test_async_parse_with_a_tool_and_a_format(async_client: AsyncOpenAI, model: str) -> None:
    tool = openai.pydantic_function_tool(City, name="found")
    answer = await async_client.chat.completions.parse(
        model=model, messages=QUESTION, tools=[tool], response_format=City
    )
    (call,) = answer.choices[0].message.tool_calls or ()
    assert call.function.parsed_arguments == City(name="Paris, 3 days", people=3)
    result: Any = {"role": "tool", "tool_call_id": call.id, "content": "done"}
    last = await async_client.chat.completions.parse(
        model=model, messages=[*QUESTION, answer.choices[0].message, result], tools=[tool], response_format=City
    )
    assert isinstance(last.choices[0].message.parsed, City)


def test_a_format_streams_into_the_helper(client: OpenAI, model: str) -> None:
    with client.chat.completions.stream(model=model, messages=QUESTION, response_format=City) as stream:
        for _ in stream:
            pass
        assert stream.get_final_completion().choices[0].message.parsed == City(name="Paris, 3 days", people=3)


def test_a_json_object(client: OpenAI, model: str) -> None:
    answer = client.chat.completions.create(model=model, messages=QUESTION, response_format={"type": "json_object"})
    assert json.loads(answer.choices[0].message.content or "") == {"echo": "Paris, 3 days"}


def test_a_broken_schema_is_refused_by_name(client: OpenAI, model: str) -> None:
    for schema in ({"type": "objekt"}, {"$ref": "#/$defs/nothing"}):
        form: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        with pytest.raises(openai.BadRequestError) as refusal:
            client.chat.completions.create(model=model, messages=QUESTION, response_format=form, stream=True)
        assert refusal.value.param == "response_format"


def test_an_answer_out_of_form_is_asked_for_again(client: OpenAI, model: str, models: Models) -> None:
    models.of(model).script(Reply(text='{"name": "Paris"}'), Reply(text='{"name": "Paris", "people": 2}'))
    parsed = (
        client.chat.completions.parse(model=model, messages=QUESTION, response_format=City).choices[0].message.parsed
    )
    assert parsed == City(name="Paris", people=2)


def test_a_stream_out_of_form_ends_with_an_error(client: OpenAI, model: str, models: Models) -> None:
    models.of(model).script(Reply(text='{"name": "Paris"}'))
    form: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": City.model_json_schema()}}
    stream = client.chat.completions.create(model=model, messages=QUESTION, response_format=form, stream=True)
    with pytest.raises(openai.APIError, match="response_format") as failure:
        list(stream)
    assert failure.value.code == "invalid_model_output"


def test_an_answer_that_never_fits_is_an_error_that_is_not_repeated(client: OpenAI, model: str, models: Models) -> None:
    models.of(model).script(Reply(text="no"), Reply(text="no"))
    with pytest.raises(openai.InternalServerError, match="response_format"):
        client.with_options(max_retries=2).chat.completions.create(
            model=model, messages=QUESTION, response_format={"type": "json_object"}
        )


def test_a_form_that_the_limit_cut_says_length(client: OpenAI, model: str) -> None:
    form: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": City.model_json_schema()}}
    answer = client.chat.completions.create(
        model=model, messages=QUESTION, response_format=form, max_completion_tokens=2
    )
    assert answer.choices[0].finish_reason == "length"
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(model=model, messages=QUESTION, response_format=City, max_tokens=2)


def test_several_choices(client: OpenAI, model: str) -> None:
    answer = client.chat.completions.create(model=model, messages=QUESTION, n=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    chunks = list(client.chat.completions.create(model=model, messages=QUESTION, n=2, stream=True))
    assert {chunk.choices[0].index for chunk in chunks} == {0, 1}


def test_logprobs(client: OpenAI, model: str) -> None:
    answer = client.chat.completions.create(model=model, messages=QUESTION, logprobs=True, top_logprobs=2)
    logprobs = answer.choices[0].logprobs
    assert logprobs
    assert logprobs.content
    assert len(logprobs.content[0].top_logprobs) == 2
    with pytest.raises(openai.BadRequestError) as refusal:
        client.chat.completions.create(model=model, messages=QUESTION, top_logprobs=2)
    assert refusal.value.param == "top_logprobs"


def test_sampling_reaches_the_model(client: OpenAI, models: Models) -> None:
    for name in (OLLAMA_MODEL, LLAMACPP_MODEL):
        client.chat.completions.create(
            model=name,
            messages=QUESTION,
            seed=-9007199254740991,
            stop=["\n", "END"],
            temperature=0,
            top_p=0.5,
            presence_penalty=0.5,
            frequency_penalty=-0.5,
            max_completion_tokens=50,
        )
        body = models.of(name).chats[-1].body
        sent = body.get("options", body)
        assert sent["seed"] == 1
        assert sent["stop"] == ["\n", "END"]
        assert (sent["temperature"], sent["top_p"]) == (0, 0.5)
        assert (sent["presence_penalty"], sent["frequency_penalty"]) == (0.5, -0.5)
        assert sent.get("num_predict", sent.get("max_tokens")) == 50


def test_reasoning_comes_apart_from_the_answer(client: OpenAI, model: str, models: Models) -> None:
    models.of(model).script(Reply(text="42", thinking="Hm."))
    message = client.chat.completions.create(model=model, messages=QUESTION, reasoning_effort="low").choices[0].message
    assert message.content == "42"
    assert message.to_dict()["reasoning_content"] == "Hm."


def test_logit_bias_works_or_is_refused_by_name(client: OpenAI, models: Models) -> None:
    client.chat.completions.create(model=LLAMACPP_MODEL, messages=QUESTION, logit_bias={"5": -100})
    assert models.llamacpp.chats[-1].body["logit_bias"] == {"5": -100}
    with pytest.raises(openai.BadRequestError) as refusal:
        client.chat.completions.create(model=OLLAMA_MODEL, messages=QUESTION, logit_bias={"5": -100})
    assert refusal.value.param == "logit_bias"
    client.chat.completions.create(model=OLLAMA_MODEL, messages=QUESTION, logit_bias={"foo": 0})


def test_parts_and_a_picture(client: OpenAI, models: Models) -> None:
    parts: Any = [
        {"type": "text", "text": "What is"},
        {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
        {"type": "text", "text": "this?"},
    ]
    messages: Any = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts}]
    client.chat.completions.create(model=LLAMACPP_MODEL, messages=messages)
    system, user = models.llamacpp.chats[-1].body["messages"]
    assert system == {"role": "system", "content": "Be brief."}
    assert [part["type"] for part in user["content"]] == ["text", "image_url", "text"]
    assert user["content"][1]["image_url"]["url"] == PIXEL


def test_every_field_at_once_is_taken(client: OpenAI, model: str) -> None:
    answer = client.chat.completions.create(
        model=model,
        messages=[{"role": "developer", "content": "Be kind.", "name": "boss"}, *QUESTION],
        audio={"format": "wav", "voice": "alloy"},
        frequency_penalty=-2,
        logit_bias={"foo": 0},
        logprobs=True,
        max_completion_tokens=0,
        max_tokens=0,
        metadata={"foo": "string"},
        modalities=["text"],
        n=1,
        parallel_tool_calls=True,
        prediction={"content": "string", "type": "content"},
        presence_penalty=-2,
        prompt_cache_key="key",
        reasoning_effort="minimal",
        safety_identifier="me",
        seed=-9007199254740991,
        service_tier="auto",
        stop="\n",
        store=True,
        stream=False,
        stream_options={"include_usage": True},
        temperature=1,
        top_logprobs=0,
        top_p=1,
        user="user-1234",
        verbosity="low",
        web_search_options={"search_context_size": "low"},
        tools=[WEATHER],
        tool_choice="none",
    )
    assert answer.choices[0].finish_reason in {"stop", "length"}


def test_sound_is_refused_by_name(client: OpenAI, model: str) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        client.chat.completions.create(
            model=model, messages=QUESTION, modalities=["text", "audio"], audio={"format": "wav", "voice": "alloy"}
        )
    assert refusal.value.param == "modalities"
    part: Any = {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}
    with pytest.raises(openai.BadRequestError) as refusal:
        client.chat.completions.create(model=model, messages=[{"role": "user", "content": [part]}])
    assert "messages.0.content.0" in str(refusal.value.param)
    pytest.xfail("sound")


def test_errors_have_their_classes(client: OpenAI, server: httpx.Client) -> None:
    with pytest.raises(openai.NotFoundError) as failure:
        client.chat.completions.create(model="no-such-model", messages=QUESTION)
    assert (failure.value.code, failure.value.param) == ("model_not_found", "model")
    assert failure.value.request_id
    with pytest.raises(openai.AuthenticationError):
        OpenAI(base_url=f"{server.base_url}/v1", api_key="sk-wrong", max_retries=0).models.list()


def test_a_break_in_the_middle_of_an_answer_is_an_error(client: OpenAI, models: Models) -> None:
    models.llamacpp.script(Reply(text="one two three", fault=Fault.CUT, after=2))
    stream = client.chat.completions.create(model=LLAMACPP_MODEL, messages=QUESTION, stream=True)
    with pytest.raises(openai.APIError):
        list(stream)


def test_models_are_listed_and_found(client: OpenAI) -> None:
    listed = {model.id for model in client.models.list()}
    assert {OLLAMA_MODEL, TOOLLESS_MODEL, LLAMACPP_MODEL, PLAIN_MODEL, f"react/{OLLAMA_MODEL}"} <= listed
    assert client.models.retrieve(OLLAMA_MODEL).id == OLLAMA_MODEL
