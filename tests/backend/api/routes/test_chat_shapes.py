"""Answers of every kind over the wires of both backends, held against what OpenAI publishes."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.fake_llamacpp import FakeLlamaCpp
from tests.support.fake_ollama import FakeModel, FakeOllama
from tests.support.llm_script import Reply
from tests.support.llm_server import FakeModelServer
from tests.support.openai_shapes import Choice, check_completion, check_stream
from tests.support.server import make_settings, running_server

CHAT = "/v1/chat/completions"
TOOL = {
    "type": "function",
    "function": {
        "name": "f",
        "description": "Adds one.",
        "parameters": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
    },
}
CALL = (("f", {"n": 1}),)
TWO_CALLS = (*CALL, ("f", {"n": 2}))
FORM = {"type": "json_schema", "json_schema": {"name": "x", "schema": TOOL["function"]["parameters"]}}
STEP = '{"tool": "f", "arguments": {"n": 1}}'


@pytest.fixture(params=["ollama", "llamacpp"])
async def fake(request: pytest.FixtureRequest) -> AsyncIterator[FakeModelServer]:
    able = FakeModel("m", capabilities=("completion", "tools", "thinking"))
    async with FakeOllama([able]) if request.param == "ollama" else FakeLlamaCpp("m") as running:
        yield running


@pytest.fixture
async def client(tmp_path: Path, fake: FakeModelServer) -> AsyncIterator[httpx.AsyncClient]:
    kind = "ollama" if isinstance(fake, FakeOllama) else "llamacpp"
    settings = {"LLM_BACKEND": kind, "OLLAMA_MODEL": "m", f"{kind.upper()}_BASE_URL": fake.url}
    async with running_server(make_settings(tmp_path, **settings)) as server, await server.signed_in() as client:
        yield client


async def answers(client: httpx.AsyncClient, fake: FakeModelServer, *script: Reply, **fields: Any) -> list[Choice]:
    """Ask for the whole answer and for the stream of it; both have their shape, and say the same."""
    body = {"model": "m", "messages": [{"role": "user", "content": "Count from 1 to 3"}], "store": False, **fields}
    fake.script(*script)
    whole = await client.post(CHAT, json=body)
    assert whole.status_code == 200, whole.text
    check_completion(whole.json())
    fake.script(*script)
    streamed = await client.post(CHAT, json=body | {"stream": True, "stream_options": {"include_usage": True}})
    choices = check_stream(streamed.text, include_usage=True)
    for choice, given in zip(choices, whole.json()["choices"], strict=True):
        message = given["message"]
        assert choice.finish_reason == given["finish_reason"]
        assert choice.text == (message["content"] or "")
        assert choice.reasoning == message.get("reasoning_content", "")
        assert choice.function == message.get("function_call", {})
        made = [call["function"] for call in message.get("tool_calls", ())]
        assert [{"name": c["name"], "arguments": c["arguments"]} for c in choice.calls] == made
    return choices


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"n": 2},
        {"logprobs": True, "top_logprobs": 2},
        {"max_tokens": 1},
        {"stop": None, "tools": None, "temperature": None, "n": None, "seed": None, "response_format": None},
        {"response_format": {"type": "text"}, "tool_choice": "none", "tools": [TOOL]},
        {"messages": [{"role": "developer", "content": "Be kind."}, {"role": "user", "content": "Count from 1 to 3"}]},
    ],
)
async def test_words(client: httpx.AsyncClient, fake: FakeModelServer, fields: dict[str, Any]) -> None:
    for choice in await answers(client, fake, **fields):
        assert choice.text == ("1," if "max_tokens" in fields else "1, 2, 3")


async def test_thoughts(client: httpx.AsyncClient, fake: FakeModelServer) -> None:
    (choice,) = await answers(client, fake, Reply(text="4", thinking="Hm, two."), reasoning_effort="low")
    assert (choice.text, choice.reasoning) == ("4", "Hm, two.")


async def test_an_empty_answer(client: httpx.AsyncClient, fake: FakeModelServer) -> None:
    (choice,) = await answers(client, fake, Reply(text=""))
    assert (choice.text, choice.finish_reason) == ("", "stop")


@pytest.mark.parametrize("calls", [CALL, TWO_CALLS])
@pytest.mark.parametrize("choice", [None, "auto", "required"])
async def test_calls(client: httpx.AsyncClient, fake: FakeModelServer, calls: Any, choice: str | None) -> None:
    (said,) = await answers(client, fake, Reply(tool_calls=calls), tools=[TOOL], tool_choice=choice)
    assert [(call["name"], json.loads(call["arguments"])) for call in said.calls] == list(calls)
    assert said.finish_reason == "tool_calls"


async def test_one_call_at_a_time(client: httpx.AsyncClient, fake: FakeModelServer) -> None:
    (said,) = await answers(client, fake, Reply(tool_calls=TWO_CALLS), tools=[TOOL], parallel_tool_calls=False)
    assert len(said.calls) == 1


async def test_a_call_by_name(client: httpx.AsyncClient, fake: FakeModelServer) -> None:
    choice = {"type": "function", "function": {"name": "f"}}
    (said,) = await answers(client, fake, Reply(text=STEP), tools=[TOOL], tool_choice=choice)
    assert json.loads(said.calls[0]["arguments"]) == {"n": 1}


async def test_only_allowed_tools_are_shown(client: httpx.AsyncClient, fake: FakeModelServer) -> None:
    other = {"type": "function", "function": {"name": "g"}}
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "f"}}]}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    await answers(client, fake, Reply(tool_calls=CALL), tools=[other, TOOL], tool_choice=choice)
    assert [tool["function"]["name"] for tool in fake.chats[-1].body["tools"]] == ["f"]


async def test_a_call_of_the_old_form(client: httpx.AsyncClient, fake: FakeModelServer) -> None:
    (said,) = await answers(client, fake, Reply(tool_calls=CALL), functions=[TOOL["function"]])
    assert (said.function["name"], json.loads(said.function["arguments"])) == ("f", {"n": 1})
    assert said.finish_reason == "function_call"


async def test_words_in_the_old_form(client: httpx.AsyncClient, fake: FakeModelServer) -> None:
    (said,) = await answers(client, fake, functions=[TOOL["function"]], function_call="none")
    assert (said.text, said.finish_reason) == ("1, 2, 3", "stop")


async def test_a_call_that_the_model_wrote_as_text(client: httpx.AsyncClient, fake: FakeModelServer) -> None:
    written = '<tool_call>{"name": "f", "arguments": {"n": 1}}</tool_call>'
    (said,) = await answers(client, fake, Reply(text=written, chunk_chars=3), tools=[TOOL])
    assert json.loads(said.calls[0]["arguments"]) == {"n": 1}
    assert said.text == ""


async def test_a_call_that_has_to_be_made_and_was_not(client: httpx.AsyncClient, fake: FakeModelServer) -> None:
    script = (Reply(text="I would rather not."), Reply(text=STEP))
    (said,) = await answers(client, fake, *script, tools=[TOOL], tool_choice="required")
    assert (said.text, said.finish_reason, len(said.calls)) == ("", "tool_calls", 1)


async def test_a_form(client: httpx.AsyncClient, fake: FakeModelServer) -> None:
    (said,) = await answers(client, fake, Reply(text='{"n": 3}'), response_format=FORM)
    assert said.text == '{"n": 3}'


async def test_a_form_after_tools(client: httpx.AsyncClient, fake: FakeModelServer) -> None:
    script = (Reply(text="Three, I think."), Reply(text='{"n": 3}'))
    (said,) = await answers(client, fake, *script, response_format=FORM, tools=[TOOL])
    assert said.text == '{"n": 3}'


async def test_a_form_that_was_cut(client: httpx.AsyncClient, fake: FakeModelServer) -> None:
    (said,) = await answers(client, fake, Reply(text='{"n": 3 }'), response_format=FORM, max_tokens=1)
    assert said.finish_reason == "length"


async def test_a_stream_out_of_form_ends_with_one_error_frame(client: httpx.AsyncClient, fake: FakeModelServer) -> None:
    fake.script(Reply(text='{"m": 3}'))
    body = {"messages": [{"role": "user", "content": "Hi"}], "response_format": FORM, "stream": True}
    response = await client.post(CHAT, json=body)
    assert response.status_code == 200
    *_, last, _ = response.text.split("\n\n")
    error = json.loads(last.removeprefix("data: "))["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert (error["code"], "[DONE]" in response.text) == ("invalid_model_output", False)


async def test_a_model_that_never_keeps_the_form_is_an_error(client: httpx.AsyncClient, fake: FakeModelServer) -> None:
    fake.script(Reply(text="no"), Reply(text="no"))
    body = {"messages": [{"role": "user", "content": "Hi"}], "response_format": FORM}
    response = await client.post(CHAT, json=body)
    assert response.status_code == 500
    assert response.headers["x-should-retry"] == "false"
    assert response.json()["error"]["code"] == "invalid_model_output"
