"""From a request to `/v1/responses` to a `Question`: what items, tools and choices of this API mean."""

from typing import Any

import pytest

from backend.api.response_items import list_input
from backend.api.responses_requests import parse_response_request, to_response_question
from backend.core.errors import BadRequest
from backend.core.llm.base import NamedTool
from backend.core.storage.responses import StoredResponse
from backend.core.turns import Question

F, G = ({"type": "function", "name": name, "parameters": {"type": "object"}} for name in "fg")
WEB = {"type": "web_search"}
CODE = {"type": "code_interpreter", "container": {"type": "auto"}}


def question(previous: StoredResponse | None = None, **fields: Any) -> Question:
    wire = parse_response_request({"input": "Hi", **fields})
    return to_response_question(wire, list_input(wire.input), previous, {})


def call(name: str) -> dict[str, Any]:
    return {"type": "function_call", "call_id": f"call_{name}", "name": name, "arguments": "{}"}


def result(name: str) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": f"call_{name}", "output": "done"}


def test_calls_belong_to_the_answer_before_them() -> None:
    said = {"role": "assistant", "content": [{"type": "output_text", "text": "Let me see."}]}
    user = {"role": "user", "content": "Go"}
    made = question(input=[user, said, call("f"), call("g"), result("f"), result("g"), call("h"), result("h")])
    messages = made.request.messages
    assert [message.role for message in messages] == ["user", "assistant", "tool", "tool", "assistant", "tool"]
    assert [[one.name for one in message.tool_calls] for message in messages] == [[], ["f", "g"], [], [], ["h"], []]
    assert messages[1].text == "Let me see."


@pytest.mark.parametrize(
    ("choice", "names", "meant"),
    [
        ("auto", ["f", "g"], "auto"),
        ({"type": "function", "name": "g"}, ["g"], NamedTool("g")),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "g"}]},
            ["g"],
            "required",
        ),
    ],
)
def test_a_choice_of_functions_is_chats(choice: Any, names: list[str], meant: Any) -> None:
    made = question(tools=[F, G], tool_choice=choice)
    assert [tool.name for tool in made.request.tools] == names
    assert made.request.tool_choice == meant
    assert made.agent == "chat"


@pytest.mark.parametrize(
    ("fields", "agent", "tools"),
    [
        ({"tools": [WEB, CODE]}, "react", ("websearch", "python_coder")),
        ({"tools": [WEB], "agent_type": "plan_execute"}, "plan_execute", ("websearch",)),
        ({"tools": [WEB], "model": "plan_execute/m"}, "plan_execute", ("websearch",)),
        ({"tools": [WEB], "available_tools": ["ppt_maker"]}, "react", ("websearch", "ppt_maker")),
        ({"tools": [WEB, CODE], "tool_choice": {"type": "allowed_tools", "tools": [CODE]}}, "react", ("python_coder",)),
        ({"tools": [WEB], "tool_choice": "none"}, "chat", ()),
        ({}, None, None),
    ],
)
def test_tools_of_the_server_take_an_agent(fields: dict[str, Any], agent: str | None, tools: Any) -> None:
    made = question(**fields)
    assert (made.agent, made.available_tools) == (agent, tools)


def test_a_choice_that_allows_nothing_is_refused() -> None:
    with pytest.raises(BadRequest):
        question(tools=[F], tool_choice={"type": "allowed_tools", "mode": "auto", "tools": [WEB]})


def test_an_earlier_response_tells_the_session_and_the_way_through_it() -> None:
    stored = StoredResponse("resp_1", "alice", "sess_1", 1.0, ((1, 2),), {}, [])
    made = question(stored, instructions="Be brief.")
    assert (made.session_id, made.spans, made.instructions) == ("sess_1", ((1, 2),), "Be brief.")
    assert [message.role for message in made.request.messages] == ["user"]


def test_collections_are_the_vector_stores() -> None:
    made = question(tools=[{"type": "file_search", "vector_store_ids": ["a", "b"]}])
    assert (made.rag_collection, made.available_tools) == ("a\nb", ("rag",))
