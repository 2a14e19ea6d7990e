"""The client's tools for a model whose template knows none: told in words, called in JSON, checked like any other call.

    step = {"tool": NAME, "arguments": {...}} | {"tool": null}      the second where an answer in words is allowed

A grammar lets each step be one of these objects and nothing else. Earlier calls and their results are written out in
the same form, so that the model reads its own language.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from backend.core.llm.base import LLMRequest, ResponseFormat, ToolDefinition
from backend.core.llm.json_schema import GrammarSchema
from backend.core.llm.prompting import add_to_system, join
from backend.core.llm.toolset import parse_json
from backend.core.messages import Message, ToolCall
from backend.core.prompts import load_prompt
from backend.core.untrusted import mark_as_data

MAX_TEMPERATURE = 0.2  # a step is a decision
MIN_TOKENS, MAX_TOKENS = 64, 4_096  # of a step: a decision has to fit, and a model that writes without end is stopped
_CUT = re.compile(r'\s*\{\s*"tool"\s*:\s*"((?:[^"\\]|\\.)*)"\s*,\s*"arguments"\s*:\s*(.*)', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Step:
    """What a model decided. `name` None: to answer in words."""

    name: str | None
    arguments: Any = None


class ToolPrompts:
    """Reads the prompts: blocks."""

    def __init__(self) -> None:
        self._tools = load_prompt("chat/tools")
        self._or_words = load_prompt("chat/tools_or_words").text
        self._required = load_prompt("chat/tools_required").text
        self._answer = load_prompt("chat/answer_in_words").text
        self._invalid = load_prompt("chat/invalid_call")

    def ask_for_step(self, request: LLMRequest, tools: Sequence[ToolDefinition], *, must_call: bool) -> LLMRequest:
        """The request, its history already written out, for one step."""
        told = self._tools.fill(tools="\n".join(map(_describe, tools)))
        told += "\n" + (self._required if must_call else self._or_words)
        sampling = request.sampling
        limit = MAX_TOKENS if sampling.max_tokens is None else min(max(sampling.max_tokens, MIN_TOKENS), MAX_TOKENS)
        return replace(
            request,
            messages=add_to_system(request.messages, told),
            sampling=replace(
                sampling,
                max_tokens=limit,
                temperature=min(sampling.temperature or 0.0, MAX_TEMPERATURE),
                stop=(),
                logprobs=False,
                top_logprobs=None,
            ),
            response_format=ResponseFormat(_step_schema(tools, must_call=must_call), "step"),
        )

    def ask_again(self, step: LLMRequest, said: str, problem: str) -> LLMRequest:
        nudge = Message("user", self._invalid.fill(problem=problem))
        if not said.strip():
            return replace(step, messages=(*step.messages, nudge))
        return replace(step, messages=(*step.messages, Message("assistant", said), nudge))

    def ask_for_words(self, request: LLMRequest, step: LLMRequest, said: str) -> LLMRequest:
        """The request for the answer that a step decided on. It begins with what the engine has in its cache."""
        messages = (*step.messages, Message("assistant", said), Message("user", self._answer))
        return replace(request, messages=messages)


def read_step(text: str) -> Step | None:
    """None: it is no step."""
    step = parse_json(text) if text.lstrip().startswith("{") else None
    if not isinstance(step, dict) or "tool" not in step:
        return None
    name = step["tool"]
    return Step(name, step.get("arguments", {})) if isinstance(name, str | None) else None


def read_cut_step(text: str) -> ToolCall | None:
    """What there is of a call that was cut off; its arguments are not whole."""
    cut = _CUT.match(text)
    return ToolCall("", cut[1], cut[2]) if cut else None


def mentions_calls(messages: Sequence[Message]) -> bool:
    return any(message.tool_calls or message.role == "tool" for message in messages)


def write_out(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The conversation without calls and results: they become words of the assistant and of the user."""
    if not mentions_calls(messages):
        return tuple(messages)
    names = {call.id: call.name for message in messages for call in message.tool_calls}
    written: list[Message] = []
    for message in messages:
        if message.tool_calls:
            steps = "\n".join(map(write_call, message.tool_calls))
            message = replace(message, content=join(message.content, steps), tool_calls=())
        elif message.role == "tool":
            source = message.name or names.get(message.tool_call_id or "") or "a tool"
            message = Message("user", mark_as_data(message.text or "(nothing)", source.replace('"', "'")))
        if written and written[-1].role == message.role == "user":  # many templates want the two to take turns
            written[-1] = replace(written[-1], content=join(written[-1].content, message.content))
        else:
            written.append(message)
    return tuple(written)


def write_call(call: ToolCall) -> str:
    """An earlier call as a step."""
    arguments = parse_json(call.arguments)
    return json.dumps({"tool": call.name, "arguments": call.arguments if arguments is None else arguments})


def _describe(tool: ToolDefinition) -> str:
    parameters = json.dumps(tool.parameters or {"type": "object", "properties": {}}, ensure_ascii=False)
    return f"- {tool.name}: {tool.description or 'no description'}\n  arguments: {parameters}"


def _step_schema(tools: Sequence[ToolDefinition], *, must_call: bool) -> dict[str, Any]:
    grammar = GrammarSchema()
    empty = {"type": "object", "properties": {}}
    steps = [
        _closed({"tool": {"const": tool.name}, "arguments": grammar.add(tool.parameters or empty)}) for tool in tools
    ]
    if not must_call:
        steps.append(_closed({"tool": {"type": "null"}}))
    return grammar.root(steps[0] if len(steps) == 1 else {"anyOf": steps})


def _closed(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
