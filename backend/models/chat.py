"""The request body of `/v1/chat/completions`, as OpenAI's clients send it.

Lenient where clients differ: unknown fields are ignored, `null` means "not given", both spellings of a limit count, and
messages that an SDK echoes with all their empty fields are taken as they are. Strict where a value would change the
answer silently: a wrong type, an unknown role or a value out of range is an error that names the field.
"""

from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field

from config import AgentType

Temperature = Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Penalty = Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)]
Bias = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]
TokenLimit = Annotated[int, Field(ge=0)]

MAX_MESSAGES = 10_000
MAX_CHOICES = 8
MAX_TOOLS = 128


class _Wire(BaseModel):
    model_config = ConfigDict(extra="ignore")


class ImageURL(_Wire):
    url: str
    detail: str | None = None


def _image_url(value: object) -> object:
    return {"url": value} if isinstance(value, str) else value


class FileData(_Wire):
    file_data: str | None = None  # a data URL or bare base64
    file_id: str | None = None
    filename: str | None = None


class ContentPart(_Wire):
    """One part of a message. The spellings of the Responses API (`input_text`, ...) are understood as well."""

    type: Literal["text", "input_text", "output_text", "refusal", "image_url", "input_image", "file", "input_file"]
    text: str | None = Field(None, validation_alias=AliasChoices("text", "refusal"))
    image_url: Annotated[ImageURL | None, BeforeValidator(_image_url)] = None
    file: FileData | None = None
    file_data: str | None = None  # these three: a file in the spelling of the Responses API
    file_id: str | None = None
    filename: str | None = None

    @property
    def named_file(self) -> FileData:
        return self.file or FileData(file_data=self.file_data, file_id=self.file_id, filename=self.filename)


class FunctionCall(_Wire):
    name: Annotated[str, Field(min_length=1, max_length=256)]
    arguments: str | None = ""


class WireToolCall(_Wire):
    id: str | None = None
    type: Literal["function"] | None = "function"
    function: FunctionCall


class WireMessage(_Wire):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[WireToolCall] | None = None
    tool_call_id: str | None = None
    function_call: FunctionCall | None = None  # the old form of tool_calls


class FunctionDefinition(_Wire):
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.:-]{1,128}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class WireTool(_Wire):
    type: Literal["function"]
    function: FunctionDefinition


class NamedFunction(_Wire):
    name: str


class NamedToolChoice(_Wire):
    type: Literal["function"] = "function"
    function: NamedFunction


class ToolReference(_Wire):
    type: Literal["function"] = "function"
    function: NamedFunction


class AllowedTools(_Wire):
    mode: Literal["auto", "required"]
    tools: Annotated[list[ToolReference], Field(min_length=1, max_length=MAX_TOOLS)]


class AllowedToolChoice(_Wire):
    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


class JSONSchemaFormat(_Wire):
    name: str = "answer"
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class WireResponseFormat(_Wire):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JSONSchemaFormat | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")  # beside json_object, as llama.cpp has it


class StreamOptions(_Wire):
    include_usage: bool | None = None


class ChatCompletionRequest(_Wire):
    """OpenAI's fields, and our own extensions below them."""

    messages: Annotated[list[WireMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    model: Annotated[str | None, Field(max_length=256)] = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    max_tokens: TokenLimit | None = None
    max_completion_tokens: TokenLimit | None = None
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    seed: int | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[str, Bias] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int | None, Field(ge=0, le=20)] = None
    n: Annotated[int | None, Field(ge=1, le=MAX_CHOICES)] = None
    tools: Annotated[list[WireTool] | None, Field(max_length=MAX_TOOLS)] = None
    tool_choice: Literal["none", "auto", "required"] | NamedToolChoice | AllowedToolChoice | None = None
    parallel_tool_calls: bool | None = None
    functions: Annotated[list[FunctionDefinition] | None, Field(max_length=MAX_TOOLS)] = None  # the old form of tools
    function_call: Literal["none", "auto"] | NamedFunction | None = None
    response_format: WireResponseFormat | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    modalities: list[str] | None = None
    web_search_options: dict[str, Any] | None = None
    store: bool | None = None

    agent_type: AgentType | None = None
    available_tools: list[str] | None = None
    session_id: Annotated[str | None, Field(max_length=256)] = None
    rag_collection: str | list[str] | None = None
