"""`/v1/responses` over a real socket, asked by OpenAI's own clients, with fake model servers behind it."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel
from sqlalchemy import text

from backend.core.storage import responses as responses_storage
from tests.support.agents import NativeModel, RunningAgents, running_agents
from tests.support.fake_llamacpp import FakeLlamaCpp
from tests.support.fake_ollama import FakeModel, FakeOllama
from tests.support.llm_script import Fault, Reply, message_text
from tests.support.openai_events import check_events, check_item_list, check_response, read_events
from tests.support.server import RunningServer, make_settings, running_server

MODEL = "smollm2:135m"
WEATHER: dict[str, Any] = {
    "type": "function",
    "name": "weather",
    "description": "Tells the weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": False,
}


@pytest.fixture
async def ollama() -> AsyncIterator[FakeOllama]:
    async with FakeOllama([FakeModel(MODEL, capabilities=("completion", "tools", "thinking"))]) as fake:
        yield fake


@pytest.fixture
async def server(tmp_path: Path, ollama: FakeOllama) -> AsyncIterator[RunningServer]:
    settings = make_settings(tmp_path, OLLAMA_BASE_URL=ollama.url, OLLAMA_MODEL=MODEL, SSE_KEEPALIVE_S=5)
    async with running_server(settings) as server:
        yield server


@pytest.fixture
async def http(server: RunningServer) -> AsyncIterator[httpx.AsyncClient]:
    async with await server.signed_in("alice") as client:
        yield client


@pytest.fixture
async def alice(http: httpx.AsyncClient) -> AsyncIterator[AsyncOpenAI]:
    async with client_of(http) as client:
        yield client


def client_of(http: httpx.AsyncClient) -> AsyncOpenAI:
    key = http.headers["authorization"].removeprefix("Bearer ")
    return AsyncOpenAI(base_url=f"{http.base_url}/v1", api_key=key, max_retries=0, timeout=20)


def asked(ollama: FakeOllama) -> list[tuple[str, str]]:
    """What the model read last."""
    return [(message["role"], message_text(message)) for message in ollama.chats[-1].body["messages"]]


async def stream(http: httpx.AsyncClient, **fields: Any) -> list[dict[str, Any]]:
    response = await http.post("/v1/responses", json={"stream": True, **fields})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    events = read_events(response.text)
    check_events(events)
    return events


# --- Answers -------------------------------------------------------------------------------------------------------


async def test_a_text_is_answered_in_openais_shape(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/responses", json={"model": MODEL, "input": "Hi", "metadata": {"a": "b"}})
    response = check_response(answer.json())
    assert response.output_text == "Echo: Hi"
    assert response.status == "completed"
    assert response.model == MODEL
    assert response.metadata == {"a": "b"}
    assert response.usage
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens > 0
    assert answer.headers["x-session-id"] == answer.json()["session_id"]
    assert answer.headers["x-llm-backend"] == "ollama"


async def test_a_stream_says_the_same_as_the_object_that_is_kept(http: httpx.AsyncClient) -> None:
    events = await stream(http, input="Count from 1 to 9", instructions="Be brief.")
    final = events[-1]["response"]
    assert final["output"][0]["content"][0]["text"] == "1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert (await http.get(f"/v1/responses/{final['id']}")).json() == final


async def test_openais_streaming_client_reads_the_stream(alice: AsyncOpenAI) -> None:
    async with alice.responses.stream(model=MODEL, input="Count from 1 to 3") as events:
        text = "".join([event.delta async for event in events if event.type == "response.output_text.delta"])
        final = await events.get_final_response()
    assert text == final.output_text == "1, 2, 3"


async def test_openais_blocking_client_works_as_well(http: httpx.AsyncClient) -> None:
    def use() -> tuple[str, str, str]:
        key = http.headers["authorization"].removeprefix("Bearer ")
        with OpenAI(base_url=f"{http.base_url}/v1", api_key=key, max_retries=0) as client:
            whole = client.responses.create(model=MODEL, input="Hi")
            with client.responses.stream(model=MODEL, input="you", previous_response_id=whole.id) as events:
                streamed = events.get_final_response()
            return whole.output_text, streamed.output_text, client.responses.retrieve(whole.id).output_text

    assert await asyncio.to_thread(use) == ("Echo: Hi", "Echo: you", "Echo: Hi")


async def test_items_are_the_messages_that_the_model_reads(alice: AsyncOpenAI, ollama: FakeOllama) -> None:
    await alice.responses.create(
        model=MODEL,
        instructions="Speak plainly.",
        input=[
            {"role": "developer", "content": "Be kind."},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "One?"}]},
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm."}]},
            {"role": "assistant", "content": "One."},
            {
                "role": "user",
                "content": [{"type": "input_text", "text": "Two?"}, {"type": "input_text", "text": "Yes?"}],
            },
        ],
    )
    assert asked(ollama) == [
        ("system", "Speak plainly."),
        ("system", "Be kind."),
        ("user", "One?"),
        ("assistant", "One."),
        ("user", "Two?\nYes?"),
    ]


async def test_a_thought_is_an_item_of_its_own(alice: AsyncOpenAI, ollama: FakeOllama) -> None:
    ollama.script(Reply(text="4", thinking="Two and two"))
    response = await alice.responses.create(model=MODEL, input="2+2?", reasoning={"effort": "low"})
    assert [item.type for item in response.output] == ["reasoning", "message"]
    assert response.output[0].summary[0].text == "Two and two"  # type: ignore[union-attr]
    assert ollama.chats[-1].body["think"] == "low"


async def test_what_is_asked_of_the_model_reaches_it(alice: AsyncOpenAI, ollama: FakeOllama) -> None:
    response = await alice.responses.create(
        model=MODEL, input="Count from 1 to 9", max_output_tokens=3, temperature=0.1, top_p=0.5
    )
    options = ollama.chats[-1].body["options"]
    assert (options["num_predict"], options["temperature"], options["top_p"]) == (3, 0.1, 0.5)
    assert response.status == "incomplete"
    assert response.incomplete_details
    assert response.incomplete_details.reason == "max_output_tokens"


class Person(BaseModel):
    name: str
    age: int


async def test_a_schema_holds_the_answer_and_openais_parser_reads_it(alice: AsyncOpenAI, ollama: FakeOllama) -> None:
    response = await alice.responses.parse(model=MODEL, input="Who?", text_format=Person)
    assert isinstance(response.output_parsed, Person)
    assert ollama.chats[-1].body["format"]["required"] == ["name", "age"]
    assert response.text
    assert response.text.format
    assert response.text.format.type == "json_schema"


async def test_token_probabilities_come_where_they_are_asked_for(tmp_path: Path) -> None:
    async with FakeLlamaCpp() as fake:
        settings = make_settings(tmp_path, LLM_BACKEND="llamacpp", LLAMACPP_BASE_URL=fake.url)
        async with running_server(settings) as server, await server.signed_in() as http:
            events = await stream(http, input="Hi", include=["message.output_text.logprobs"], top_logprobs=2)
            tokens = events[-1]["response"]["output"][0]["content"][0]["logprobs"]
            assert "".join(token["token"] for token in tokens) == "Echo: Hi"
            assert len(tokens[0]["top_logprobs"]) == 2


# --- Functions of the client's -------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_id", [True, False])
async def test_a_function_is_called_by_the_client_and_its_result_goes_back(
    alice: AsyncOpenAI, ollama: FakeOllama, by_id: bool
) -> None:
    ollama.script(Reply(text="", tool_calls=(("weather", {"city": "Oslo"}), ("weather", {"city": "Rome"}))))
    question: list[Any] = [{"role": "user", "content": "Weather in Oslo and Rome?"}]
    first = await alice.responses.create(model=MODEL, input=question, tools=[WEATHER])
    calls = [item for item in first.output if item.type == "function_call"]
    assert [json.loads(call.arguments) for call in calls] == [{"city": "Oslo"}, {"city": "Rome"}]
    results = [{"type": "function_call_output", "call_id": call.call_id, "output": "sunny"} for call in calls]
    echoed = [] if by_id else [*question, *(item.model_dump() for item in first.output)]
    ollama.script(Reply(text="Sunny in both."))
    second = await alice.responses.create(
        model=MODEL,
        input=[*echoed, *results],  # type: ignore[list-item]
        tools=[WEATHER],
        previous_response_id=first.id if by_id else openai.omit,
    )
    assert second.output_text == "Sunny in both."
    read = ollama.chats[-1].body["messages"]
    assert [message["role"] for message in read] == ["user", "assistant", "tool", "tool"]
    assert [call["function"]["arguments"] for call in read[1]["tool_calls"]] == [{"city": "Oslo"}, {"city": "Rome"}]
    assert [message["tool_name"] for message in read[2:]] == ["weather", "weather"]


async def test_arguments_of_a_call_are_streamed(http: httpx.AsyncClient, ollama: FakeOllama) -> None:
    ollama.script(Reply(text="", tool_calls=(("weather", {"city": "Oslo"}),)))
    events = await stream(http, input="Weather?", tools=[WEATHER])
    deltas = [event["delta"] for event in events if event["type"] == "response.function_call_arguments.delta"]
    assert json.loads("".join(deltas)) == {"city": "Oslo"}


# --- Conversations -------------------------------------------------------------------------------------------------


async def test_a_response_goes_on_from_an_earlier_one_also_from_an_old_one(
    alice: AsyncOpenAI, ollama: FakeOllama
) -> None:
    first = await alice.responses.create(model=MODEL, input="1", instructions="Be brief.")
    second = await alice.responses.create(model=MODEL, input="2", previous_response_id=first.id)
    assert asked(ollama) == [("user", "1"), ("assistant", "Echo: 1"), ("user", "2")]  # instructions are not carried on
    branch = await alice.responses.create(model=MODEL, input="2b", previous_response_id=first.id)
    assert asked(ollama) == [("user", "1"), ("assistant", "Echo: 1"), ("user", "2b")]
    await alice.responses.create(model=MODEL, input="3b", previous_response_id=branch.id)
    assert [text for _, text in asked(ollama)] == ["1", "Echo: 1", "2b", "Echo: 2b", "3b"]
    await alice.responses.create(model=MODEL, input="3", previous_response_id=second.id)
    assert [text for _, text in asked(ollama)] == ["1", "Echo: 1", "2", "Echo: 2", "3"]
    sessions = {response.to_dict()["session_id"] for response in (first, second, branch)}
    assert len(sessions) == 1


async def test_branches_that_grow_at_the_same_time_do_not_see_each_other(
    alice: AsyncOpenAI, ollama: FakeOllama
) -> None:
    root = await alice.responses.create(model=MODEL, input="root")
    ollama.always(Reply(pace_s=0.01))

    async def grow(name: str) -> str:
        grown = root
        for number in range(3):
            grown = await alice.responses.create(model=MODEL, input=f"{name}{number}", previous_response_id=grown.id)
        return grown.id

    ends = await asyncio.gather(*(grow(name) for name in "abcd"))
    for name, end in zip("abcd", ends, strict=True):
        await alice.responses.create(model=MODEL, input="end", previous_response_id=end)
        assert [text for role, text in asked(ollama) if role == "user"] == [
            "root",
            *(f"{name}{n}" for n in range(3)),
            "end",
        ]


async def test_a_client_that_sends_all_of_it_each_time_has_one_session(alice: AsyncOpenAI) -> None:
    first = await alice.responses.create(model=MODEL, input="1")
    echoed: Any = [{"role": "user", "content": "1"}, *(item.model_dump() for item in first.output)]
    second = await alice.responses.create(model=MODEL, input=[*echoed, {"role": "user", "content": "2"}])
    assert first.to_dict()["session_id"] == second.to_dict()["session_id"]


async def test_a_session_of_chat_can_be_gone_on_with(
    http: httpx.AsyncClient, alice: AsyncOpenAI, ollama: FakeOllama
) -> None:
    chat = await http.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "1"}]})
    session_id = chat.json()["session_id"]
    response = await alice.responses.create(model=MODEL, input="2", conversation=session_id)
    assert response.conversation
    assert response.conversation.id == session_id
    await alice.responses.create(model=MODEL, input="3", previous_response_id=response.id)
    assert [text for _, text in asked(ollama)] == ["1", "Echo: 1", "2", "Echo: 2", "3"]


async def test_what_is_not_to_be_stored_leaves_nothing_behind(
    http: httpx.AsyncClient, alice: AsyncOpenAI, ollama: FakeOllama
) -> None:
    kept = await alice.responses.create(model=MODEL, input="1")
    passing = await alice.responses.create(model=MODEL, input="2", previous_response_id=kept.id, store=False)
    assert [text for _, text in asked(ollama)] == ["1", "Echo: 1", "2"]
    with pytest.raises(openai.NotFoundError):
        await alice.responses.retrieve(passing.id)
    history = await http.get(f"/api/chat/history/{kept.to_dict()['session_id']}")
    assert [message["content"] for message in history.json()["messages"]] == ["1", "Echo: 1"]
    assert "session_id" not in passing.to_dict()


async def test_an_item_is_known_by_its_id(alice: AsyncOpenAI, http: httpx.AsyncClient, ollama: FakeOllama) -> None:
    first = await alice.responses.create(model=MODEL, input="1")
    reference: Any = [{"type": "item_reference", "id": first.output[0].id}, {"role": "user", "content": "2"}]
    await alice.responses.create(model=MODEL, input=reference)
    assert asked(ollama) == [("assistant", "Echo: 1"), ("user", "2")]
    wrong = await http.post("/v1/responses", json={"input": [{"type": "item_reference", "id": "msg_1"}]})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (404, "input.0.id")


# --- What is kept --------------------------------------------------------------------------------------------------


async def test_a_response_is_kept_until_it_is_deleted(alice: AsyncOpenAI, http: httpx.AsyncClient) -> None:
    made = await alice.responses.create(model=MODEL, input="Hi")
    assert (await alice.responses.retrieve(made.id)).to_dict() == made.to_dict()
    await alice.responses.delete(made.id)
    for call in (alice.responses.retrieve, alice.responses.delete, alice.responses.cancel):
        with pytest.raises(openai.NotFoundError):
            await call(made.id)
    with pytest.raises(openai.NotFoundError) as gone:
        await alice.responses.create(model=MODEL, input="Hi", previous_response_id=made.id)
    assert gone.value.code == "previous_response_not_found"
    assert (await http.get(f"/api/chat/history/{made.to_dict()['session_id']}")).status_code == 200


async def test_its_input_is_listed_in_pages(alice: AsyncOpenAI, http: httpx.AsyncClient) -> None:
    picture = "data:image/png;base64,iVBORw0KGgo="
    items: Any = [
        {"role": "user", "content": "1"},
        {"role": "assistant", "content": "2"},
        {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_1", "output": "sunny"},
        {"role": "user", "content": "5"},
    ]
    made = await alice.responses.create(model=MODEL, input=items)
    page = await http.get(f"/v1/responses/{made.id}/input_items", params={"order": "asc", "limit": 2})
    check_item_list(page.json())
    assert page.json()["has_more"]
    listed = [item async for item in alice.responses.input_items.list(made.id, limit=2)]
    assert [item.type for item in listed][::-1] == [
        "message",
        "message",
        "function_call",
        "function_call_output",
        "message",
    ]
    assert len({item.id for item in listed}) == 5
    assert picture not in page.text


async def test_another_users_responses_are_not_there(server: RunningServer, alice: AsyncOpenAI) -> None:
    made = await alice.responses.create(model=MODEL, input="Hi")
    async with await server.signed_in("bob") as http, client_of(http) as bob:
        for call in (
            bob.responses.retrieve,
            bob.responses.delete,
            bob.responses.cancel,
            bob.responses.input_items.list,
        ):
            with pytest.raises(openai.NotFoundError):
                await call(made.id)  # type: ignore[operator]
        with pytest.raises(openai.NotFoundError):
            await bob.responses.create(model=MODEL, input="Hi", previous_response_id=made.id)
        with pytest.raises(openai.NotFoundError):
            await bob.responses.create(model=MODEL, input=[{"type": "item_reference", "id": made.output[0].id}])  # type: ignore[list-item,typeddict-item]
        with pytest.raises(openai.NotFoundError):
            await bob.responses.create(model=MODEL, input="Hi", conversation=made.to_dict()["session_id"])  # type: ignore[arg-type]
    assert (await alice.responses.retrieve(made.id)).id == made.id


async def test_responses_go_with_their_session(alice: AsyncOpenAI, http: httpx.AsyncClient) -> None:
    made = await alice.responses.create(model=MODEL, input="Hi")
    assert (await http.delete(f"/api/chat/sessions/{made.to_dict()['session_id']}")).is_success
    with pytest.raises(openai.NotFoundError):
        await alice.responses.retrieve(made.id)


async def test_of_a_long_input_the_newest_items_are_listed(alice: AsyncOpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responses_storage, "MAX_INPUT_BYTES", 300)
    long: Any = [{"role": "user", "content": f"{number} " + "x" * 100} for number in range(5)]
    made = await alice.responses.create(model=MODEL, input=long)
    listed = [item async for item in alice.responses.input_items.list(made.id)]
    assert 1 <= len(listed) < 5
    assert listed[0].content[0].text.startswith("4")  # type: ignore[union-attr]


# --- Bad days ------------------------------------------------------------------------------------------------------


async def test_an_answer_that_breaks_off_is_told_in_the_stream_and_kept_so(
    http: httpx.AsyncClient, ollama: FakeOllama
) -> None:
    ollama.script(Reply(text="one two three four", fault=Fault.CUT, after=2))
    ollama.always(Reply(status=500))
    events = await stream(http, input="Hi")
    failed = events[-1]
    assert failed["type"] == "response.failed"
    assert failed["response"]["error"]["code"] == "server_error"
    assert failed["response"]["output"][0]["status"] == "incomplete"
    assert (await http.get(f"/v1/responses/{failed['response']['id']}")).json() == failed["response"]


async def test_a_response_that_cannot_be_kept_ends_as_failed(server: RunningServer, http: httpx.AsyncClient) -> None:
    database = server.app.state.context.database
    await database.write(lambda connection: connection.execute(text("DROP TABLE responses")))
    events = await stream(http, input="Hi")
    assert events[-1]["type"] == "response.failed"
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == "Echo: Hi"
    assert (await http.post("/v1/responses", json={"input": "Hi"})).status_code == 500


async def test_what_fails_before_the_first_byte_has_a_status(alice: AsyncOpenAI, ollama: FakeOllama) -> None:
    ollama.always(Reply(status=500))
    for streams in (True, False):
        with pytest.raises(openai.InternalServerError) as down:
            await alice.responses.create(model=MODEL, input="Hi", stream=streams)
        assert down.value.status_code == 503
    with pytest.raises(openai.NotFoundError) as unknown:
        await alice.responses.create(model="nobody", input="Hi")
    assert unknown.value.code == "model_not_found"


async def test_a_client_that_leaves_ends_the_call_and_finds_what_was_said(
    http: httpx.AsyncClient, ollama: FakeOllama
) -> None:
    ollama.always(Reply(text="word " * 200, pace_s=0.05))
    async with http.stream("POST", "/v1/responses", json={"input": "Hi", "stream": True}) as response:
        lines = response.aiter_lines()
        created = json.loads([await anext(lines), await anext(lines)][1].removeprefix("data: "))
        async for line in lines:
            if line.startswith("event: response.output_text.delta"):
                break
    await ollama.chats[-1].gone()
    address = f"/v1/responses/{created['response']['id']}"
    async with asyncio.timeout(5):
        while (kept := await http.get(address)).status_code == 404:
            await asyncio.sleep(0.02)
    assert kept.json()["status"] == "cancelled"
    assert kept.json()["output"][0]["content"][0]["text"].startswith("word")
    ollama.always(Reply())
    after = await http.post("/v1/responses", json={"input": "Go on", "previous_response_id": created["response"]["id"]})
    assert after.status_code == 200
    assert [role for role, _ in asked(ollama)] == ["user", "assistant", "user"]


async def test_a_conversation_that_is_too_long_fails_where_truncation_is_disabled(
    http: httpx.AsyncClient, tmp_path: Path
) -> None:
    first = await http.post("/v1/responses", json={"input": "one"})
    previous = first.json()["id"]
    for number in range(12):  # over MAX_CONVERSATION_HISTORY
        made = await http.post("/v1/responses", json={"input": str(number), "previous_response_id": previous})
        previous = made.json()["id"]
    assert made.headers["x-dropped-messages"] == str(made.json()["dropped_messages"])
    for streams in (True, False):
        refused = await http.post(
            "/v1/responses",
            json={"input": "x", "previous_response_id": previous, "truncation": "disabled", "stream": streams},
        )
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "context_length_exceeded")
        assert refused.json()["error"]["param"] == "input"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "input"),
        ({"input": []}, "input"),
        ({"input": 5}, "input"),
        ({"input": [{"type": "computer_call"}]}, "input.0"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input.0.role"),
        ({"input": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "input.0.content.0.type"),
        ({"input": [{"type": "reasoning", "summary": []}]}, "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input.0.content.0"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "ftp://x"}]}]}, "input"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "http://x"}]}]},
            "input.0.content.0",
        ),
        ({"input": "x", "background": True}, "background"),
        ({"input": "x", "max_tool_calls": 2}, "max_tool_calls"),
        ({"input": "x", "prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"input": "x", "temperature": 9}, "temperature"),
        ({"input": "x", "metadata": {"a": "b" * 513}}, "metadata.a"),
        ({"input": "x", "tools": [{"type": "computer_use_preview"}]}, "tools.0.type"),
        ({"input": "x", "tools": [{"type": "function"}]}, "tools.0.name"),
        ({"input": "x", "tools": [{"type": "web_search"}], "tool_choice": "required"}, "tool_choice"),
        (
            {"input": "x", "tools": [{"type": "web_search"}], "tool_choice": {"type": "web_search_preview"}},
            "tool_choice",
        ),
        ({"input": "x", "tools": [{"type": "web_search"}], "agent_type": "chat"}, "tools"),
        ({"input": "x", "tools": [WEATHER], "tool_choice": {"type": "function", "name": "other"}}, "tool_choice"),
        ({"input": "x", "tool_choice": "required"}, "tool_choice"),
        ({"input": "x", "text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
        ({"input": "x", "previous_response_id": "resp_1"}, "previous_response_id"),
        ({"input": "x", "previous_response_id": "resp_1", "conversation": "sess_1"}, "previous_response_id"),
        ({"input": "x", "reasoning": {"effort": "gigantic"}}, "reasoning.effort"),
        ({"input": "x", "agent_type": "spy"}, "agent_type"),
        ({"input": "x", "session_id": "sess_1"}, "session_id"),
    ],
)
async def test_what_cannot_be_done_is_an_error_that_names_it(
    http: httpx.AsyncClient, fields: dict[str, Any], param: str
) -> None:
    answer = await http.post("/v1/responses", json=fields)
    assert answer.status_code in {400, 404}, answer.text
    assert answer.json()["error"]["param"] == param, answer.json()
    assert "\n" not in answer.json()["error"]["message"]


async def test_nothing_is_told_to_strangers(server: RunningServer) -> None:
    assert (await server.client.post("/v1/responses", json={"input": "Hi"})).status_code == 401
    assert (await server.client.get("/v1/responses/resp_1")).status_code == 401


async def test_a_finished_response_cannot_be_cancelled(alice: AsyncOpenAI) -> None:
    made = await alice.responses.create(model=MODEL, input="Hi")
    with pytest.raises(openai.BadRequestError, match="background"):
        await alice.responses.cancel(made.id)


# --- Tools of the server -------------------------------------------------------------------------------------------


def call_toy_once(messages: list[dict[str, Any]]) -> Reply:
    if messages[-1]["role"] == "tool":
        return Reply(text="The toy said hello.")
    return Reply(text="", tool_calls=(("toy", {"text": "hello"}),))


@pytest.fixture
async def agents(tmp_path: Path) -> AsyncIterator[RunningAgents]:
    async with NativeModel() as model:
        model.choose = call_toy_once
        async with running_agents(tmp_path, model, DEFAULT_AGENT="chat") as running:
            yield running


@pytest.mark.parametrize("fields", [{"agent_type": "react"}, {"model": f"react/{MODEL}"}])
async def test_an_agents_calls_are_items_and_no_functions_for_the_client(
    agents: RunningAgents, fields: dict[str, Any]
) -> None:
    events = await stream(agents.alice, input="Ask the toy.", **fields)
    output = events[-1]["response"]["output"]
    assert [item["type"] for item in output] == ["mcp_call", "message"]
    assert (output[0]["name"], output[0]["status"], output[0]["output"]) == ("toy", "completed", "hello")
    assert output[1]["content"][0]["text"] == "The toy said hello."
    assert events[-1]["response"]["run_id"]
    whole = await agents.alice.post("/v1/responses", json={"input": "Ask the toy.", **fields})
    assert [item["type"] for item in check_response(whole.json()).model_dump()["output"]] == ["mcp_call", "message"]


async def test_a_tool_of_the_server_that_is_not_there_is_named(agents: RunningAgents) -> None:
    answer = await agents.alice.post("/v1/responses", json={"input": "x", "tools": [{"type": "web_search"}]})
    assert answer.status_code == 400
    assert "websearch" in answer.json()["error"]["message"]


async def test_a_client_that_leaves_ends_the_tool(tmp_path: Path) -> None:
    async with NativeModel() as model:
        arguments = {"text": "slow", "act": "sleep", "seconds": 15}
        model.choose = lambda _: Reply(text="", tool_calls=(("toy", arguments),))
        async with running_agents(tmp_path, model) as agents:
            body = {"input": "Ask the toy.", "stream": True}
            async with agents.alice.stream("POST", "/v1/responses", json=body) as response:
                async with asyncio.timeout(10):
                    while "ran slow" not in agents.toy.journal:
                        await asyncio.sleep(0.02)
                assert response.status_code == 200
            async with asyncio.timeout(5):
                while "cancelled slow" not in agents.toy.journal:
                    await asyncio.sleep(0.02)


async def test_a_repeated_request_gets_the_first_ones_response(http: httpx.AsyncClient, ollama: FakeOllama) -> None:
    once = {"Idempotency-Key": "key-1"}
    first, second = [await http.post("/v1/responses", json={"input": "Hi"}, headers=once) for _ in range(2)]
    assert first.json()["id"] == second.json()["id"]
    assert len(ollama.chats) == 1


async def test_a_file_is_described_to_the_model_and_not_kept_in_the_response(
    http: httpx.AsyncClient, ollama: FakeOllama
) -> None:
    data = "data:text/plain;base64,dGhlIHNlY3JldCBpcyA0Mg=="
    part = {"type": "input_file", "filename": "note.txt", "file_data": data}
    message = {"role": "user", "content": [{"type": "input_text", "text": "What is in it?"}, part]}
    first = await http.post("/v1/responses", json={"input": [message]})
    assert first.status_code == 200, first.text
    assert "the secret is 42" in asked(ollama)[-1][1]
    listed = await http.get(f"/v1/responses/{first.json()['id']}/input_items")
    check_item_list(listed.json())
    assert "dGhlIHNlY3JldCBpcyA0Mg" not in listed.text
    await http.post("/v1/responses", json={"input": "And now?", "previous_response_id": first.json()["id"]})
    assert "the secret is 42" in asked(ollama)[0][1]


PLACE = "tests.support.toy_tool.namesakes"
NAMESAKES = {"websearch": f"{PLACE}:WebSearch", "python_coder": f"{PLACE}:PythonCoder", "rag": f"{PLACE}:Rag"}


@pytest.mark.parametrize(
    ("tool", "asks", "kind", "include"),
    [
        (
            {"type": "web_search"},
            ("websearch", {"query": "Forth"}),
            "web_search_call",
            "web_search_call.action.sources",
        ),
        ({"type": "web_search_preview"}, ("websearch", {"query": "Forth"}), "web_search_call", None),
        (
            {"type": "code_interpreter", "container": {"type": "auto"}},
            ("python_coder", {"code": "6*7"}),
            "code_interpreter_call",
            "code_interpreter_call.outputs",
        ),
        (
            {"type": "file_search", "vector_store_ids": ["handbook"]},
            ("rag", {"query": "leave"}),
            "file_search_call",
            "file_search_call.results",
        ),
    ],
)
async def test_openais_own_tools_are_the_servers(
    tmp_path: Path, tool: dict[str, Any], asks: tuple[str, dict[str, Any]], kind: str, include: str | None
) -> None:
    def choose(messages: list[dict[str, Any]]) -> Reply:
        done = messages[-1]["role"] == "tool"
        return Reply(text="It is so [1].") if done else Reply(text="", tool_calls=(asks,))

    async with NativeModel() as model:
        model.choose = choose
        async with running_agents(tmp_path, model, tools=NAMESAKES, DEFAULT_AGENT="chat") as agents:
            fields = {"input": "Find out.", "tools": [tool], "include": [include] if include else []}
            events = await stream(agents.alice, **fields)
            final = events[-1]["response"]
            call, message = final["output"]
            assert (call["type"], call["status"]) == (kind, "completed")
            assert final["tools"] == [tool]
            assert {one["function"]["name"] for one in model.chats[-1].body["tools"]} == {asks[0]}
            if kind == "web_search_call":
                (note,) = message["content"][0]["annotations"]
                assert (note["type"], note["url"]) == ("url_citation", "https://bridges.example.org/")
                told = call["action"].get("sources")
                assert told == ([{"type": "url", "url": "https://bridges.example.org/"}] if include else None)
            elif kind == "file_search_call":
                assert [(result["filename"], result["text"]) for result in call["results"]] == [
                    ("handbook.pdf", "25 days")
                ]
            else:
                assert (call["code"], call["outputs"]) == ("6*7", [{"type": "logs", "logs": "42"}])
            whole = check_response((await agents.alice.post("/v1/responses", json=fields)).json())
            assert [item.type for item in whole.output] == [kind, "message"]
            echoed = [{"role": "user", "content": "Find out."}, *final["output"], {"role": "user", "content": "Sure?"}]
            assert (await agents.alice.post("/v1/responses", json={**fields, "input": echoed})).status_code == 200


async def test_tools_that_are_not_to_be_used_are_not_offered(tmp_path: Path) -> None:
    async with NativeModel() as model, running_agents(tmp_path, model, tools=NAMESAKES) as agents:
        fields = {"input": "Hi", "tools": [{"type": "web_search"}], "tool_choice": "none", "agent_type": "react"}
        response = await agents.alice.post("/v1/responses", json=fields)
        assert response.status_code == 200, response.text
        assert not model.chats[-1].body.get("tools")
