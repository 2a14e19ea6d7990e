"""What a fake model says: scripts and faults, the same for every wire. `tests.support.llm_server` serves them.

Left to itself a fake model echoes the last question; it counts when asked to ("Count from 1 to 30"), answers in JSON
when a format asks for it, and goes on with an answer that was begun, if it is one that does. A token is a word with the
space before it.
"""

import json
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Fault(StrEnum):
    """How an answer goes wrong, after `Reply.after` deltas."""

    HANG = "hang"  # nothing more is sent, and nothing closed; with `after` 0 not even a header
    ERROR = "error"  # the wire's own error inside a 200 stream
    CUT = "cut"  # half a frame, then the socket is closed
    HALF_LINE = "half_line"  # half a frame, then a proper end of the body
    END = "end"  # a proper end of the body without the last frame
    HTML = "html"
    GARBAGE = "garbage"


@dataclass(frozen=True, slots=True)
class Reply:
    text: str | None = None  # None: what the model says by itself
    thinking: str = ""
    tool_calls: tuple[tuple[str, dict[str, Any]], ...] = ()
    finish: str | None = None  # None: "length" when the token limit cut the answer, otherwise "stop"
    chunk_chars: int | None = None  # size of a delta; None: a word
    burst: bool = False  # all of it in one write
    delay_s: float = 0.0  # before the headers
    pace_s: float = 0.0  # before each delta
    fault: Fault | None = None
    after: int = 0  # deltas before the fault
    status: int = 200
    error: Any = "scripted error"  # the message of another status
    body: bytes | None = None  # the whole answer, as it is


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model says to one request."""

    thinking: list[str]
    text: list[str]
    tool_calls: tuple[tuple[str, dict[str, Any]], ...]
    finish: str
    prompt_tokens: int

    @property
    def tokens(self) -> int:
        return max(1, len(self.thinking) + len(self.text) + 8 * len(self.tool_calls))


def split_tokens(text: str, chunk_chars: int | None = None) -> list[str]:
    if chunk_chars:
        return [text[at : at + chunk_chars] for at in range(0, len(text), chunk_chars)]
    return re.findall(r"\s*\S+|\s+\Z", text)


def message_text(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)


def count_tokens(messages: list[dict[str, Any]]) -> int:
    return sum(4 + len(split_tokens(message_text(message))) for message in messages)


def by_itself(messages: list[dict[str, Any]], schema: dict[str, Any] | None = None) -> str:
    """The whole answer of a model that was given no script."""
    question = next((message_text(m) for m in reversed(messages) if m["role"] in {"user", "tool"}), "")
    if schema is not None:
        return json.dumps(instance_of(schema, question) if schema else {"echo": question})
    if numbers := re.search(r"Count from (\d+) to (\d+)", question):
        return ", ".join(map(str, range(int(numbers[1]), int(numbers[2]) + 1)))
    return f"Echo: {question}"


def go_on(prompt: str) -> str:
    """What follows a text that is not a question: the rest of a count, or an echo."""
    if counting := re.search(r"Count from (\d+) to (\d+):(.*)", prompt, re.DOTALL):
        numbers = " " + ", ".join(map(str, range(int(counting[1]), int(counting[2]) + 1)))
        return numbers.removeprefix(counting[3])
    return f" after {prompt}"


def instance_of(schema: dict[str, Any], text: str = "text") -> Any:
    """Something small that fits the schema."""
    if "enum" in schema:
        return schema["enum"][0]
    if "const" in schema:
        return schema["const"]
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return instance_of(options[0], text)
    kind = schema.get("type", "object")
    if kind == "object":
        return {name: instance_of(part, text) for name, part in schema.get("properties", {}).items()}
    if kind == "array":
        return [instance_of(schema.get("items", {"type": "string"}), text) for _ in range(schema.get("minItems", 0))]
    return {"string": text[: schema.get("maxLength", 200)], "boolean": True, "null": None}.get(kind, 1)


def answer(
    reply: Reply,
    messages: list[dict[str, Any]],
    *,
    max_tokens: int | None = None,
    schema: dict[str, Any] | None = None,
    continues: bool = True,
) -> Answer:
    text = reply.text
    if text is None:
        text = "" if reply.tool_calls else by_itself(messages, schema)
    if continues and messages and messages[-1]["role"] == "assistant":
        begun = message_text(messages[-1])
        text = text[len(begun) :] if text.startswith(begun) else " and so on."
    tokens = split_tokens(text, reply.chunk_chars)
    cut = max_tokens is not None and len(tokens) > max_tokens
    return Answer(
        thinking=split_tokens(reply.thinking, reply.chunk_chars),
        text=tokens[:max_tokens] if cut else tokens,
        tool_calls=reply.tool_calls,
        finish=reply.finish or ("length" if cut else "stop"),
        prompt_tokens=count_tokens(messages),
    )
