"""From the body of a chat request to a question: what is taken, what is ignored, what is refused."""

from typing import Any

import pytest

from backend.api.chat_requests import parse_fields, to_question
from backend.core.errors import BadRequest
from backend.core.llm.base import NamedTool, ResponseFormat
from backend.core.messages import ImagePart, TextPart, ToolCall
from backend.core.turns import Question

USER = {"role": "user", "content": "Hi"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}

FUNCTION = {"name": "f", "parameters": {"type": "object", "properties": {}}}


def tool(parameters: dict[str, Any], name: str = "f") -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def schema(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


def question(headers: dict[str, str] | None = None, **fields: Any) -> Question:
    return to_question(parse_fields({"messages": [USER], **fields}), headers or {})


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": [{"role": "wizard", "content": "Hi"}]}, "messages.0.role"),
        ({"messages": [{"content": "Hi"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"type": "hologram"}]}]}, "messages.0.content.0.type"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content.0"),
        ({"messages": [{"role": "tool", "content": "4"}]}, "messages.0"),
        ({"model": 7}, "model"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"n": 9}, "n"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"stop": 7}, "stop"),
        ({"agent_type": "wizard"}, "agent_type"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, "response_format"),
        ({"response_format": schema({"type": "objekt"})}, "response_format"),
        ({"response_format": schema({"$ref": "#/$defs/nothing"})}, "response_format"),
        ({"response_format": schema({"$ref": "https://example.org/schema.json"})}, "response_format"),
        ({"response_format": schema({"type": "string", "pattern": "("})}, "response_format"),
        ({"logit_bias": {"5": 101}}, "logit_bias.5"),
        ({"tools": [TOOL, TOOL]}, "tools"),
        ({"tools": [tool({"type": "array"})]}, "tools.0.function.parameters"),
        ({"tools": [TOOL, tool({"properties": 1}, "g")]}, "tools.1.function.parameters"),
        ({"functions": [FUNCTION], "function_call": {"name": "g"}}, "function_call"),
        ({"tools": [{"type": "function"}]}, "tools.0.function"),
        ({"tools": [TOOL], "tool_choice": "sometimes"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"reasoning_effort": "huge"}, "reasoning_effort"),
    ],
)
def test_what_would_change_the_answer_silently_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        question(**fields)
    assert refusal.value.param == param
    assert "pydantic" not in refusal.value.message


@pytest.mark.parametrize(
    "fields",
    [
        {"unheard_of": {"a": 1}, "user": "u", "metadata": {"k": "v"}, "service_tier": "auto", "prediction": None},
        {"stream": None, "temperature": None, "tools": None, "stop": None, "n": None, "response_format": None},
        {"max_tokens": 0, "max_completion_tokens": 0, "seed": -9007199254740991, "logit_bias": {"foo": 0}},
        {"stream": False, "stream_options": {"include_usage": True}},
        {"modalities": ["text"]},
        {"response_format": {"type": "text"}},
    ],
)
def test_what_clients_send_without_harm_is_accepted(fields: dict[str, Any]) -> None:
    assert question(**fields).request.messages[0].content == "Hi"


def test_an_unknown_agent_is_answered_with_the_four_there_are() -> None:
    with pytest.raises(BadRequest, match="chat, react, plan_execute, auto"):
        question(agent_type="wizard")


def test_an_assistant_message_is_accepted_back_as_an_sdk_echoes_it() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}, "index": 0}
    echoed = {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "audio": None,
        "annotations": [],
        "function_call": None,
        "tool_calls": [call],
        "reasoning_content": "hm",
    }
    result = {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "4"}]}
    messages = question(messages=[USER, echoed, result]).request.messages
    assert messages[1].tool_calls == (ToolCall("call_1", "f", "{}"),)
    assert (messages[2].content, messages[2].tool_call_id) == ("4", "call_1")


def test_text_parts_are_joined_and_pictures_are_kept_in_their_place() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}]
    assert question(messages=[{"role": "user", "content": parts}]).request.messages[0].content == "a\nb"
    parts = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": "data:image/png;base64,AA=="}]
    content = question(messages=[{"role": "user", "content": parts}]).request.messages[0].content
    assert content == (TextPart("a"), ImagePart("data:image/png;base64,AA=="))


def test_the_old_names_of_fields_mean_the_new_ones() -> None:
    asked = question(functions=[TOOL["function"]], function_call={"name": "f"}, max_tokens=5).request
    assert [tool.name for tool in asked.tools] == ["f"]
    assert asked.tool_choice == NamedTool("f")
    assert asked.sampling.max_tokens == 5
    assert question(max_tokens=5, max_completion_tokens=9).request.sampling.max_tokens == 9
    assert question(messages=[{"role": "developer", "content": "Be brief."}, USER]).request.messages[0].role == "system"


def test_a_json_schema_reaches_the_request() -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "point", "schema": {"type": "object"}, "strict": True}}
    assert question(response_format=wanted).request.response_format == ResponseFormat({"type": "object"}, "point")
    assert question(response_format={"type": "json_object"}).request.response_format == ResponseFormat()


def test_the_clients_own_tools_keep_server_side_agents_out() -> None:
    assert question(tools=[TOOL], agent_type="react").agent == "chat"


def test_what_a_chat_ui_asks_for_itself_is_not_kept() -> None:
    assert question({"x-openwebui-task": "title_generation"}).store is False
    assert question(messages=[{"role": "user", "content": "### Task:\nGenerate a title"}]).store is False
    assert question(store=False).store is False
    assert question().store is True


def test_the_session_may_be_named_in_a_header() -> None:
    assert question({"x-session-id": "sess_1"}).session_id == "sess_1"
    assert question({"x-session-id": "sess_1"}, session_id="sess_2").session_id == "sess_2"


def test_web_search_options_ask_the_agent_that_can_search() -> None:
    asked = question(web_search_options={"search_context_size": "low"})
    assert (asked.agent, asked.available_tools) == ("react", ("websearch",))
    assert question(web_search_options={}, agent_type="plan_execute").agent == "plan_execute"
    assert question(web_search_options={}, tools=[TOOL]).agent == "chat"


def test_allowed_tools_hide_the_others() -> None:
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "g"}}]}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    asked = question(tools=[TOOL, tool({}, "g")], tool_choice=choice).request
    assert ([tool.name for tool in asked.tools], asked.tool_choice) == (["g"], "required")
    with pytest.raises(BadRequest) as refusal:
        question(tools=[TOOL], tool_choice=choice)
    assert refusal.value.param == "tool_choice"


def test_functions_of_the_old_form_are_tools_one_call_at_a_time() -> None:
    asked = question(functions=[FUNCTION], function_call={"name": "f"}).request
    assert ([tool.name for tool in asked.tools], asked.tool_choice) == (["f"], NamedTool("f"))
    assert asked.parallel_tool_calls is False


def test_an_answer_that_does_not_stream_may_be_begun_anew() -> None:
    assert question().request.live is False
    assert question(stream=True).request.live is True


def test_what_says_nothing_is_left_out() -> None:
    sampling = question(stop=["", "END"], logit_bias={"5": 0, "6": 1}).request.sampling
    assert (sampling.stop, sampling.logit_bias) == (("END",), {"6": 1})
