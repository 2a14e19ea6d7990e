"""The little of OpenAI's chat API that nanocoder speaks: its request read into ours, our events written as its chunks.

Text, tool calls and their results; no pictures. Whatever model is asked for, the server's choice holds.
"""

import json
import time
from typing import Any, Literal

from pydantic import BaseModel, Field

from backend.core.events import BackendEvent, Completed, ReasoningDelta, TextDelta, ToolCallDelta
from backend.core.llm.base import CallContext, LLMRequest, Sampling, ToolDefinition
from backend.core.messages import Message, ToolCall

MAX_MESSAGES = 2000
DONE = b"data: [DONE]\n\n"


class _Function(BaseModel):
    name: str
    arguments: str = ""


class _Call(BaseModel):
    id: str
    function: _Function


class _Part(BaseModel):
    text: str = ""


class _Message(BaseModel):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[_Part] | None = None
    tool_calls: list[_Call] = []
    tool_call_id: str | None = None

    def read(self) -> Message:
        content = self.content or ""
        return Message(
            "system" if self.role == "developer" else self.role,
            content if isinstance(content, str) else "\n".join(part.text for part in content),
            tuple(ToolCall(call.id, call.function.name, call.function.arguments) for call in self.tool_calls),
            self.tool_call_id,
        )


class _ToolFunction(BaseModel):
    name: str
    description: str = ""
    parameters: dict[str, Any] = {}


class _Tool(BaseModel):
    function: _ToolFunction


class _Request(BaseModel):
    messages: list[_Message] = Field(min_length=1, max_length=MAX_MESSAGES)
    tools: list[_Tool] = []
    tool_choice: Literal["none", "auto", "required"] | None = None
    temperature: float | None = None
    max_tokens: int | None = None


def read_request(body: bytes, model: str, context: CallContext) -> LLMRequest:
    """The model call that a request's body asks for.

    Raises:
        ValueError: it is not one.
    """
    asked = _Request.model_validate_json(body)
    tools = [tool.function for tool in asked.tools]
    return LLMRequest(
        model=model,
        messages=tuple(message.read() for message in asked.messages),
        sampling=Sampling(temperature=asked.temperature, max_tokens=asked.max_tokens),
        tools=tuple(ToolDefinition(tool.name, tool.description, tool.parameters) for tool in tools),
        tool_choice=asked.tool_choice if tools else None,
        context=context,
    )


def write_chunk(event: BackendEvent, model: str) -> bytes:
    """The server-sent event for one of ours; empty where there is none."""
    finish, usage = None, None
    match event:
        case TextDelta():
            delta: dict[str, Any] = {"content": event.text}
        case ReasoningDelta():
            delta = {"reasoning_content": event.text}
        case ToolCallDelta():
            function = {"arguments": event.arguments} | ({"name": event.name} if event.name else {})
            call: dict[str, Any] = {"index": event.index, "function": function}
            delta = {"tool_calls": [call | ({"id": event.id, "type": "function"} if event.id else {})]}
        case Completed():
            delta, finish = {}, event.finish_reason
            prompt, completion = event.usage.prompt_tokens, event.usage.completion_tokens
            usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
        case _:
            return b""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    chunk = {"id": "chatcmpl-task", "object": "chat.completion.chunk", "created": int(time.time()), "model": model}
    return write_data(chunk | {"choices": [choice]} | ({"usage": usage} if usage else {}))


def write_data(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"
