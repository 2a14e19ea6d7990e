"""What answers look like, for the description of the API alone: they are written without models (`backend/api`).

OpenAI's required fields, and ours beside them; more may come, as with OpenAI.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class _Described(BaseModel):
    model_config = ConfigDict(extra="allow")


class Usage(_Described):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class FunctionCall(_Described):
    name: str
    arguments: str


class ToolCall(_Described):
    id: str
    type: Literal["function"]
    function: FunctionCall


class AnswerMessage(_Described):
    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    reasoning_content: str = ""
    tool_calls: list[ToolCall] = []
    annotations: list[dict[str, Any]] = []


class AnswerChoice(_Described):
    index: int
    message: AnswerMessage
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter", "function_call"]


class ChatCompletion(_Described):
    """With `stream`, chunks of it as Server-Sent Events, and `[DONE]`."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[AnswerChoice]
    usage: Usage
    session_id: str = ""


class TextChoice(_Described):
    index: int
    text: str
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length", "content_filter"]


class TextCompletion(_Described):
    """With `stream`, chunks of it as Server-Sent Events, and `[DONE]`."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage


class ResponseObject(_Described):
    """With `stream`, named events as Server-Sent Events, the last of which holds it whole."""

    id: str
    object: Literal["response"]
    created_at: float
    status: Literal["completed", "failed", "in_progress", "cancelled", "queued", "incomplete"]
    error: dict[str, Any] | None
    incomplete_details: dict[str, Any] | None
    model: str
    output: list[dict[str, Any]]
    usage: dict[str, Any] | None
    instructions: str | list[Any] | None
    metadata: dict[str, Any] | None
    tools: list[dict[str, Any]]
    tool_choice: str | dict[str, Any]
    parallel_tool_calls: bool
    temperature: float | None
    top_p: float | None


class DeletedResponse(_Described):
    id: str
    object: Literal["response"]
    deleted: Literal[True]


class InputItems(_Described):
    object: Literal["list"]
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool


class EmbeddingObject(_Described):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str  # base64 where that was asked for


class EmbeddingUsage(_Described):
    prompt_tokens: int
    total_tokens: int


class EmbeddingList(_Described):
    object: Literal["list"]
    data: list[EmbeddingObject]
    model: str
    usage: EmbeddingUsage
    truncated: list[int] = []


class ModelObject(_Described):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    context_length: int | None
    capabilities: list[str]


class ModelList(_Described):
    object: Literal["list"]
    data: list[ModelObject]
