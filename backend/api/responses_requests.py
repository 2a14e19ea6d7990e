"""From the body of a request to `/v1/responses` to a `Question`, by way of the chat request that means the same.

What both APIs have is checked and translated by `chat_requests`; here is what only this one has: items instead of
messages, the server's tools by OpenAI's names, and conversations that go on from an earlier response.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from backend.api.bodies import parse_object
from backend.api.chat_requests import parse_fields, to_question
from backend.core.errors import ApiError, BadRequest
from backend.core.storage.responses import StoredResponse
from backend.core.turns import AGENT_NAMES, Question
from backend.models.responses import (
    AllowedTool,
    EchoedItem,
    InputFunctionCall,
    InputFunctionCallOutput,
    InputItem,
    InputMessage,
    InputPart,
    InputReference,
    ResponseRequest,
    ResponseTool,
    ToolChoiceObject,
)

# The server's tools by the beginning of OpenAI's names for them, which may end in `_preview` and a date.
SERVER_TOOLS = {"web_search": "websearch", "code_interpreter": "python_coder", "file_search": "rag"}
LOGPROBS = "message.output_text.logprobs"

# Fields of a chat request by what they are called here.
_PARAMS = {
    "messages": "input",
    "response_format": "text.format",
    "max_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
    "reasoning_effort": "reasoning.effort",
    "logprobs": "include",
}
_UNSUPPORTED = {
    "background": "Responses are made while you wait: leave background out, and set stream to see them grow.",
    "max_tool_calls": "The number of tool calls cannot be set for a request: leave max_tool_calls out.",
    "prompt": "There are no stored prompts here: send the text as instructions or input.",
}


def parse_response_request(fields: dict[str, Any]) -> ResponseRequest:
    """Raises: BadRequest, with the field at fault."""
    wire = parse_object(ResponseRequest, fields)
    for name, message in _UNSUPPORTED.items():
        if getattr(wire, name) is not None and getattr(wire, name) is not False:
            raise BadRequest(message, param=name)
    if wire.previous_response_id and (wire.conversation or wire.session_id):
        raise BadRequest(
            "previous_response_id already tells the conversation: leave conversation and session_id out.",
            param="previous_response_id",
        )
    return wire


@contextmanager
def named_as_here() -> Iterator[None]:
    """Give errors about fields of a chat request the names that these fields have here."""
    try:
        yield
    except ApiError as error:
        name, dot, rest = (error.param or "").partition(".")
        if name in _PARAMS:
            error.param = f"{_PARAMS[name]}{dot}{rest}" if name == "messages" else _PARAMS[name]
        raise


def to_response_question(
    wire: ResponseRequest,
    items: Sequence[InputItem],
    previous: StoredResponse | None,
    headers: Mapping[str, str],
) -> Question:
    """
    Args:
        items: the input, with its references resolved.
        previous: the response that this one goes on from.

    Raises:
        BadRequest: for combinations that make no sense or that cannot be done here.
    """
    tools = _allowed(wire)
    server_tools = tuple(dict.fromkeys(name for tool in tools if (name := _server_tool(tool.type))))
    if isinstance(wire.tool_choice, ToolChoiceObject) and wire.tool_choice.type == "function":
        server_tools = ()  # a call of that function is all that may come
    chat = parse_fields(_chat_fields(wire, items, tools))
    question = to_question(chat, headers)
    question = replace(question, instructions=wire.instructions)
    if previous:
        question = replace(question, session_id=previous.session_id, spans=previous.spans)
    return _offer(question, wire, server_tools) if server_tools else question


def _server_tool(kind: str) -> str | None:
    return next((ours for name, ours in SERVER_TOOLS.items() if kind.startswith(name)), None)


def _offer(question: Question, wire: ResponseRequest, names: tuple[str, ...]) -> Question:
    """The question with tools of the server, which takes an agent."""
    if wire.tool_choice == "none":
        return replace(question, agent=question.agent or "chat", available_tools=())
    if wire.tool_choice is not None and wire.tool_choice != "auto" and not _is_auto(wire.tool_choice):
        raise BadRequest("The server's tools cannot be forced: set tool_choice to auto or none.", param="tool_choice")
    prefix = (wire.model or "").partition("/")[0]
    agent = wire.agent_type or (prefix if prefix in AGENT_NAMES else "react")
    if agent == "chat":
        raise BadRequest("The chat agent uses no tools: choose another agent, or leave tools out.", param="tools")
    named = dict.fromkeys((*names, *(question.available_tools or ())))
    if functions := question.request.tools:
        if clash := named.keys() & {function.name for function in functions}:
            raise BadRequest(f"The server has a tool {min(clash)!r}: give your function another name.", param="tools")
        if agent not in {"react", "auto"}:
            raise BadRequest("Beside functions of yours, the server's tools work with the agent react.", param="tools")
        agent = "react"
    return replace(question, agent=agent, available_tools=tuple(named))


def _is_auto(choice: object) -> bool:
    return isinstance(choice, ToolChoiceObject) and choice.type == "allowed_tools" and choice.mode == "auto"


def _allowed(wire: ResponseRequest) -> list[ResponseTool]:
    """The tools that the model may use."""
    tools = wire.tools or []
    choice = wire.tool_choice
    if not isinstance(choice, ToolChoiceObject) or choice.type != "allowed_tools":
        return tools
    allowed = [tool for tool in tools if any(_is_meant(tool, one) for one in choice.tools or ())]
    if not allowed:
        raise BadRequest("tool_choice allows none of the tools.", param="tool_choice")
    return allowed


def _is_meant(tool: ResponseTool, allowed: AllowedTool) -> bool:
    return tool.type == allowed.type and (tool.type != "function" or tool.name == allowed.name)


def _chat_fields(wire: ResponseRequest, items: Sequence[InputItem], tools: Sequence[ResponseTool]) -> dict[str, Any]:
    collections = [name for tool in tools for name in tool.vector_store_ids or ()]
    logprobs = wire.top_logprobs is not None or LOGPROBS in (wire.include or ())
    return {
        "messages": _messages(items),
        "model": wire.model,
        "temperature": wire.temperature,
        "top_p": wire.top_p,
        "max_completion_tokens": wire.max_output_tokens,
        "logprobs": logprobs or None,
        "top_logprobs": wire.top_logprobs,
        "tools": [_function(tool, index) for index, tool in enumerate(tools) if tool.type == "function"] or None,
        "tool_choice": _tool_choice(wire),
        "parallel_tool_calls": wire.parallel_tool_calls,
        "response_format": _response_format(wire),
        "reasoning_effort": wire.reasoning.effort if wire.reasoning else None,
        "store": wire.store,
        "stream": wire.stream,
        "agent_type": wire.agent_type,
        "available_tools": wire.available_tools,
        "session_id": wire.session_id or (wire.conversation.id if wire.conversation else None),
        "rag_collection": wire.rag_collection or collections or None,
    }


def _function(tool: ResponseTool, index: int) -> dict[str, Any]:
    if not tool.name:
        raise BadRequest(f"tools.{index}: a function needs a name.", param=f"tools.{index}.name")
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function | {"strict": tool.strict}}


def _tool_choice(wire: ResponseRequest) -> Any:
    choice = wire.tool_choice
    if not isinstance(choice, ToolChoiceObject):
        return choice
    if choice.type == "allowed_tools":
        return choice.mode
    if choice.type == "function" and choice.name:
        return {"type": "function", "function": {"name": choice.name}}
    if _server_tool(choice.type):
        raise BadRequest("The server's tools cannot be forced: set tool_choice to auto or none.", param="tool_choice")
    raise BadRequest("This tool_choice is not known here.", param="tool_choice")


def _response_format(wire: ResponseRequest) -> dict[str, Any] | None:
    wanted = wire.text.format if wire.text else None
    if wanted is None or wanted.type != "json_schema":
        return None if wanted is None else {"type": wanted.type}
    if wanted.schema_ is None:
        raise BadRequest("A text.format of type json_schema needs a schema.", param="text.format.schema")
    schema = {"name": wanted.name, "schema": wanted.schema_, "strict": wanted.strict}
    return {"type": "json_schema", "json_schema": schema}


def _messages(items: Sequence[InputItem]) -> list[dict[str, Any]]:
    """Items as messages. Calls belong to the answer before them: one message holds both."""
    messages: list[dict[str, Any]] = []
    for index, item in enumerate(items):
        where = f"input.{index}"
        match item:
            case InputMessage(role=role, content=content):
                messages.append({"role": role, "content": _content(content, where)})
            case InputFunctionCall():
                if not messages or messages[-1]["role"] != "assistant":
                    messages.append({"role": "assistant", "content": None})
                function = {"name": item.name, "arguments": item.arguments}
                call = {"id": item.call_id, "type": "function", "function": function}
                messages[-1].setdefault("tool_calls", []).append(call)
            case InputFunctionCallOutput():
                output = _content(item.output, where)
                messages.append({"role": "tool", "tool_call_id": item.call_id, "content": output})
            case InputReference():
                raise BadRequest(f"{where}: there is no item with this id.", param=where)
            case EchoedItem():
                pass
    if not messages:
        raise BadRequest("The input has nothing for the model to read.", param="input")
    return messages


def _content(content: str | Sequence[InputPart], where: str) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        return content
    return [_part(part, f"{where}.content.{index}") for index, part in enumerate(content)]


def _part(part: InputPart, where: str) -> dict[str, Any]:
    match part.type:
        case "input_image" | "image_url":
            if part.image_url is None:
                raise BadRequest(f"{where}: an image needs image_url.", param=where)
            picture = {"url": part.image_url} if isinstance(part.image_url, str) else part.image_url
            return {"type": "image_url", "image_url": {"detail": part.detail, **picture}}
        case "input_file" | "file":
            if part.file_url is not None:
                raise BadRequest(f"{where}: files are not fetched. Send file_data or file_id.", param=where)
            file = {"file_data": part.file_data, "file_id": part.file_id, "filename": part.filename}
            return {"type": "file", "file": file}
        case _:
            return {"type": "text", "text": part.text}
