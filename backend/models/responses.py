"""The request body of `/v1/responses`, as OpenAI's clients send it.

As lenient and as strict as `backend.models.chat`: unknown fields are ignored, `null` means "not given", and items that
a client echoes from an earlier `output` are taken as they are. Items and tools that this server does not know are
errors that name them, since leaving them out would change the answer silently.
"""

from typing import Annotated, Any, Literal, get_args

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from backend.models.chat import MAX_MESSAGES, MAX_TOOLS, Probability, Temperature, TokenLimit
from config import AgentType

MAX_METADATA = 16


class _Wire(BaseModel):
    model_config = ConfigDict(extra="ignore")


class InputPart(_Wire):
    """One part of a message. Chat's own spellings (`text`, `image_url`) are understood as well."""

    type: Literal["input_text", "output_text", "text", "refusal", "input_image", "image_url", "input_file", "file"]
    text: str | None = Field(None, validation_alias=AliasChoices("text", "refusal"))
    image_url: str | dict[str, Any] | None = None
    detail: str | None = None
    file_data: str | None = None
    file_id: str | None = None
    file_url: str | None = None
    filename: str | None = None


class InputMessage(_Wire):
    type: Literal["message"] | None = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: str | Annotated[list[InputPart], Field(max_length=MAX_MESSAGES)]


class InputFunctionCall(_Wire):
    type: Literal["function_call"]
    call_id: Annotated[str, Field(min_length=1)]
    name: Annotated[str, Field(min_length=1, max_length=256)]
    arguments: str = ""


class InputFunctionCallOutput(_Wire):
    type: Literal["function_call_output"]
    call_id: Annotated[str, Field(min_length=1)]
    output: str | list[InputPart]


class InputReference(_Wire):
    type: Literal["item_reference"] | None = "item_reference"
    id: str


EchoedType = Literal["reasoning", "web_search_call", "code_interpreter_call", "file_search_call", "mcp_call"]


class EchoedItem(_Wire):
    """What the server itself did or thought for an earlier answer: the answer tells the model enough of it."""

    model_config = ConfigDict(extra="allow")

    type: EchoedType


# Upper case, by which `validation_error` knows that these are names of types and no parts of a path.
_TAGS = {
    "message": "Message",
    "function_call": "FunctionCall",
    "function_call_output": "FunctionCallOutput",
    "item_reference": "Reference",
    **dict.fromkeys(get_args(EchoedType), "Echoed"),
}


def _tag_of(item: Any) -> str | None:
    if not isinstance(item, dict):
        return None
    kind = item.get("type") or ("item_reference" if "id" in item and "role" not in item else "message")
    return _TAGS.get(kind) if isinstance(kind, str) else None


InputItem = Annotated[
    Annotated[InputMessage, Tag("Message")]
    | Annotated[InputFunctionCall, Tag("FunctionCall")]
    | Annotated[InputFunctionCallOutput, Tag("FunctionCallOutput")]
    | Annotated[InputReference, Tag("Reference")]
    | Annotated[EchoedItem, Tag("Echoed")],
    Discriminator(
        _tag_of,
        custom_error_type="unknown_item",
        custom_error_message=f"This server has no items of this type. It has: {', '.join(_TAGS)}",
    ),
]


class ResponseTool(_Wire):
    """A function of the client's, or a tool of the server's."""

    type: Literal[
        "function",
        "web_search",
        "web_search_2025_08_26",
        "web_search_preview",
        "web_search_preview_2025_03_11",
        "code_interpreter",
        "file_search",
    ]
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    vector_store_ids: list[str] | None = None


class AllowedTool(_Wire):
    type: str
    name: str | None = None


class ToolChoiceObject(_Wire):
    type: str
    name: str | None = None
    mode: Literal["auto", "required"] = "auto"
    tools: list[AllowedTool] | None = None


class TextFormat(_Wire):
    type: Literal["text", "json_object", "json_schema"]
    name: str = "answer"
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class TextConfig(_Wire):
    format: TextFormat | None = None
    verbosity: str | None = None


class Reasoning(_Wire):
    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: str | None = None


class ConversationReference(_Wire):
    id: str


def _as_reference(value: object) -> object:
    return {"id": value} if isinstance(value, str) else value


Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=MAX_METADATA)
]


class ResponseRequest(_Wire):
    """OpenAI's fields, and our own extensions below them."""

    input: str | Annotated[list[InputItem], Field(min_length=1, max_length=MAX_MESSAGES)]
    model: Annotated[str | None, Field(max_length=256)] = None
    instructions: str | None = None
    previous_response_id: Annotated[str | None, Field(max_length=256)] = None
    conversation: Annotated[ConversationReference | None, BeforeValidator(_as_reference)] = None
    tools: Annotated[list[ResponseTool] | None, Field(max_length=MAX_TOOLS)] = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoiceObject | None = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    reasoning: Reasoning | None = None
    max_output_tokens: TokenLimit | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    top_logprobs: Annotated[int | None, Field(ge=0, le=20)] = None
    include: list[str] | None = None
    metadata: Metadata | None = None
    store: bool | None = None
    stream: bool | None = None
    truncation: Literal["auto", "disabled"] | None = None
    user: str | None = None
    # What this server cannot do, and what would change the answer if it were left out.
    background: bool | None = None
    max_tool_calls: int | None = None
    prompt: dict[str, Any] | None = None

    agent_type: AgentType | None = None
    available_tools: list[str] | None = None
    session_id: Annotated[str | None, Field(max_length=256)] = None
    rag_collection: str | list[str] | None = None
