"""From the body of a chat request to a `Question`.

JSON, or multipart with the same fields as strings beside `files`. What OpenAI's API has and this server cannot do is
either harmless to leave out (then it is) or would change the answer (then it is an error that names the field).
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from pydantic import ValidationError
from starlette.requests import Request

from backend.api.bodies import arriving, read_json_object
from backend.api.errors import validation_error
from backend.api.neighbours import is_temporary, is_ui_task, read_chat_id
from backend.api.uploads import MAX_FIELDS, MAX_FILES, split_form
from backend.core.attachments import Attachment, FileReference, safe_name
from backend.core.errors import ApiError, BadRequest
from backend.core.llm.base import LLMRequest, NamedTool, ResponseFormat, Sampling, ToolChoice, ToolDefinition
from backend.core.llm.json_schema import SchemaError, check_schema
from backend.core.messages import Content, ImagePart, Message, TextPart, ToolCall
from backend.core.turns import AGENT_NAMES, Question
from backend.models.chat import (
    AllowedToolChoice,
    ChatCompletionRequest,
    ContentPart,
    FunctionDefinition,
    NamedFunction,
    NamedToolChoice,
    WireMessage,
)

UPLOAD_TIMEOUT_S = 600.0
OWN_SESSION_HEADER = "x-session-id"


@asynccontextmanager
async def read_chat_request(request: Request) -> AsyncIterator[tuple[ChatCompletionRequest, list[Attachment]]]:
    """The body, and the files that came with it, which are open as long as the context is.

    Raises:
        BadRequest: with the field at fault.
        ClientDisconnected: the body will not arrive any more.
    """
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        yield parse_fields(await read_json_object(request)), []
        return
    async with arriving(UPLOAD_TIMEOUT_S):
        form = await request.form(max_files=MAX_FILES, max_fields=MAX_FIELDS)
    try:
        fields, attachments = split_form(form)
        yield parse_fields(fields), attachments
    finally:
        await form.close()


def parse_fields(fields: dict[str, Any]) -> ChatCompletionRequest:
    try:
        return ChatCompletionRequest.model_validate(fields)
    except ValidationError as error:
        raise _as_bad_request(error) from None


def _as_bad_request(error: ValidationError) -> ApiError:
    ours = validation_error(error.errors(include_url=False, include_context=False, include_input=False))
    if ours.param == "agent_type":
        return BadRequest(f"Unknown agent_type. There are: {', '.join(AGENT_NAMES)}.", param="agent_type")
    if ours.param and ours.param.startswith("response_format."):  # what OpenAI names, and clients look for
        return BadRequest(ours.message, param="response_format")
    return ours


def to_question(
    wire: ChatCompletionRequest, headers: Mapping[str, str], attachments: Sequence[Attachment] = ()
) -> Question:
    """Raises: BadRequest for combinations that make no sense or that no backend can do."""
    if wire.modalities and set(wire.modalities) != {"text"}:
        raise BadRequest("Only text answers can be made here.", param="modalities")
    if wire.top_logprobs is not None and not wire.logprobs:
        raise BadRequest("top_logprobs needs logprobs to be true.", param="top_logprobs")
    chat_id = read_chat_id(headers)
    if chat_id and (wire.model or "").partition("/")[0] in AGENT_NAMES[1:]:
        # Open WebUI sends tools of its own with every question: who chose an agent there wants the agent's.
        wire = wire.model_copy(update={"tools": None, "functions": None, "tool_choice": None, "function_call": None})
    tools = _tools(wire)
    choice, tools = _tool_choice(wire, tools)
    request = LLMRequest(
        model=wire.model or "",
        messages=tuple(_message(message, f"messages.{index}") for index, message in enumerate(wire.messages)),
        sampling=_sampling(wire),
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=False if asks_for_functions(wire) else wire.parallel_tool_calls,
        response_format=_response_format(wire),
        reasoning_effort=wire.reasoning_effort,
        live=bool(wire.stream),
    )
    searches = wire.web_search_options is not None and not tools and wire.agent_type in {None, "chat"}
    is_task = is_ui_task(headers, request.messages[-1].text)
    collection = wire.rag_collection
    return Question(
        request,
        # The client's own tools are the client's business, as are its titles: a server-side agent stays out of it.
        agent="chat" if tools or is_task else "react" if searches else wire.agent_type,
        available_tools=("websearch",) if searches else _names(wire.available_tools),
        session_id=wire.session_id or headers.get(OWN_SESSION_HEADER),
        chat_id=chat_id,
        store=wire.store is not False and not is_task and not is_temporary(headers),
        choices=wire.n or 1,
        attachments=tuple(attachments),
        files=_files(wire),
        rag_collection="\n".join(collection) if isinstance(collection, list) else collection,
    )


def asks_for_functions(wire: ChatCompletionRequest) -> bool:
    """Whether the request has the old form of tools, so that the answer is to have the old form of calls."""
    return bool(wire.functions) and not wire.tools


def _names(given: list[str] | None) -> tuple[str, ...] | None:
    return None if given is None else tuple(given)


def _sampling(wire: ChatCompletionRequest) -> Sampling:
    limit = wire.max_tokens if wire.max_completion_tokens is None else wire.max_completion_tokens
    return Sampling(
        temperature=wire.temperature,
        top_p=wire.top_p,
        max_tokens=None if limit is None else max(1, limit),  # engines answer with one token at least
        stop=tuple(filter(None, [wire.stop] if isinstance(wire.stop, str) else wire.stop or ())),
        seed=wire.seed,
        presence_penalty=wire.presence_penalty,
        frequency_penalty=wire.frequency_penalty,
        logit_bias={token: bias for token, bias in (wire.logit_bias or {}).items() if bias} or None,
        logprobs=bool(wire.logprobs),
        top_logprobs=wire.top_logprobs,
    )


def _tools(wire: ChatCompletionRequest) -> tuple[ToolDefinition, ...]:
    if wire.tools:
        tools = tuple(_definition(tool.function, f"tools.{place}.function") for place, tool in enumerate(wire.tools))
    else:
        functions = enumerate(wire.functions or ())
        tools = tuple(_definition(function, f"functions.{place}") for place, function in functions)
    if len({tool.name for tool in tools}) < len(tools):
        raise BadRequest("Two tools have the same name.", param="tools" if wire.tools else "functions")
    return tools


def _definition(function: FunctionDefinition, where: str) -> ToolDefinition:
    parameters = function.parameters or {"type": "object", "properties": {}}
    _check(parameters, f"{where}.parameters", f"the function {function.name!r}")
    if parameters.get("type", "object") != "object":
        raise BadRequest(f"{where}.parameters: the type is to be object.", param=f"{where}.parameters")
    return ToolDefinition(function.name, function.description or "", parameters, function.strict)


def _check(schema: dict[str, Any], param: str, what: str) -> None:
    try:
        check_schema(schema)
    except SchemaError as error:
        raise BadRequest(f"The schema of {what} {error}", param=param) from None


def _tool_choice(
    wire: ChatCompletionRequest, tools: tuple[ToolDefinition, ...]
) -> tuple[ToolChoice | None, tuple[ToolDefinition, ...]]:
    """The choice, and the tools that it leaves to choose from."""
    field = "tool_choice" if wire.tool_choice is not None else "function_call"
    wanted = wire.tool_choice if wire.tool_choice is not None else wire.function_call
    offered = {tool.name for tool in tools}
    choice: ToolChoice | None
    if isinstance(wanted, AllowedToolChoice):
        choice, named = wanted.allowed_tools.mode, {tool.function.name for tool in wanted.allowed_tools.tools}
    elif isinstance(wanted, NamedToolChoice | NamedFunction):
        name = wanted.function.name if isinstance(wanted, NamedToolChoice) else wanted.name
        choice, named = NamedTool(name), {name}
    else:
        choice, named = wanted, offered
    if unknown := named - offered:
        raise BadRequest(f"{field} names {min(unknown)[:100]!r}, which is not among the tools.", param=field)
    if choice == "required" and not tools:
        raise BadRequest("tool_choice is required, but there are no tools.", param=field)
    return (choice if tools else None), tuple(tool for tool in tools if tool.name in named)


def _response_format(wire: ChatCompletionRequest) -> ResponseFormat | None:
    wanted = wire.response_format
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        schema, name = wanted.schema_, "answer"
    elif wanted.json_schema is None:
        raise BadRequest("A response_format of type json_schema needs json_schema.schema.", param="response_format")
    else:
        schema, name = wanted.json_schema.schema_, wanted.json_schema.name
    if schema is not None:
        _check(schema, "response_format", "response_format")
    return ResponseFormat(schema, name)


def _message(wire: WireMessage, where: str) -> Message:
    calls = tuple(
        ToolCall(call.id or f"call_{index}", call.function.name, call.function.arguments or "{}")
        for index, call in enumerate(wire.tool_calls or ())
    )
    if wire.function_call:
        calls = (*calls, ToolCall("call_function", wire.function_call.name, wire.function_call.arguments or "{}"))
    match wire.role:
        case "system" | "developer":
            return Message("system", _content(wire.content, where))
        case "user":
            return Message("user", _content(wire.content, where), name=wire.name)
        case "assistant":
            return Message("assistant", _content(wire.content, where), calls)
        case "tool":
            if not wire.tool_call_id:
                raise BadRequest(f"{where}.tool_call_id: a tool message names the call that it answers.", param=where)
            return Message("tool", _content(wire.content, where), tool_call_id=wire.tool_call_id, name=wire.name)
        case "function":
            return Message("tool", _content(wire.content, where), tool_call_id="call_function", name=wire.name)


def _files(wire: ChatCompletionRequest) -> tuple[FileReference, ...]:
    return tuple(
        FileReference(
            place,
            f"messages.{place}.content.{index}.file",
            part.named_file.filename,
            part.named_file.file_data,
            part.named_file.file_id,
        )
        for place, message in enumerate(wire.messages)
        if isinstance(message.content, list)
        for index, part in enumerate(message.content)
        if part.type in {"file", "input_file"}
    )


def _content(content: str | list[ContentPart] | None, where: str) -> Content:
    if content is None or isinstance(content, str):
        return content or ""
    parts = tuple(_part(part, f"{where}.content.{index}") for index, part in enumerate(content))
    if all(isinstance(part, TextPart) for part in parts):
        return "\n".join(part.text for part in parts if isinstance(part, TextPart))
    return parts


def _part(part: ContentPart, where: str) -> TextPart | ImagePart:
    match part.type:
        case "image_url" | "input_image":
            if part.image_url is None:
                raise BadRequest(f"{where}: an image part needs image_url.", param=where)
            return ImagePart(part.image_url.url, part.image_url.detail)
        case "file" | "input_file":
            file = part.named_file
            # Stands where the file was; what is in it is told at the end of the message.
            return TextPart(f"[File: {safe_name(file.filename or file.file_id or '')}]")
        case _:
            if part.text is None:
                raise BadRequest(f"{where}: a text part needs text.", param=where)
            return TextPart(part.text)
