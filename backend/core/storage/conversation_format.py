"""What a conversation's file looks like, as bytes. Touches no disk; `conversations` does.

A header, then one message per line, and the closing brackets on a line of their own:

    {"session_id":"sess_…","username":"alice","created_at":"2025-11-22T19:11:00Z","messages":[
    {"seq":1,"role":"user","content":"Hello","created_at":"2025-11-22T19:11:00.5Z"},
    {"seq":2,"role":"assistant","content":"Hi","created_at":"2025-11-22T19:11:01.9Z","model":"qwen2.5:14b"}
    ]}

The whole is valid JSON. A message never holds a bare line break, so lines can be found from either end, and each begins
with its number: the last line tells how many there are. Keys that are unknown here are ignored, and kept in repairs.
"""

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, get_args

import orjson

from backend.core.events import Citation, Usage
from backend.core.messages import Content, ImagePart, Message, Role, TextPart, ToolCall
from backend.utils.clean_text import clean_value

BETWEEN = b",\n"
CLOSING = b"\n]}\n"
SEQ = re.compile(rb'\{"seq": ?(\d{1,15}),')

_DECODER = json.JSONDecoder()  # slow, and stops after the first value
_ROLES = frozenset(get_args(Role))
_TEXTS = ("tool_call_id", "name", "reasoning", "model", "backend", "agent", "run_id", "run_note", "finish_reason")


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message with what is known of how it came about."""

    role: Role
    content: Content = ""
    seq: int = 0  # its place in the conversation, from 1; 0: not stored yet
    created_at: float = field(default_factory=time.time)  # Unix seconds
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    reasoning: str | None = None
    model: str | None = None
    backend: str | None = None
    agent: str | None = None
    run_id: str | None = None
    run_note: str | None = None  # what the agent did for this answer, in short; see `runs.describe_run`
    finish_reason: str | None = None
    interrupted: bool = False  # the answer broke off
    usage: Usage | None = None
    files: tuple[str, ...] = ()  # names in the session's scratch folder
    citations: tuple[Citation, ...] = ()  # the sources of an answer

    @classmethod
    def from_message(cls, message: Message, **extra: Any) -> "StoredMessage":
        return cls(
            message.role,
            message.content,
            tool_calls=message.tool_calls,
            tool_call_id=message.tool_call_id,
            name=message.name,
            reasoning=message.reasoning,
            **extra,
        )

    def to_message(self) -> Message:
        return Message(self.role, self.content, self.tool_calls, self.tool_call_id, self.name, self.reasoning)

    @classmethod
    def from_json(cls, entry: Any) -> "StoredMessage":
        """
        Raises:
            ValueError: this is no message. Optional fields of a wrong type are ignored.
        """
        if not isinstance(entry, dict) or entry.get("role") not in _ROLES:
            raise ValueError("not a message")
        known: dict[str, Any] = {name: entry[name] for name in _TEXTS if isinstance(entry.get(name), str)}
        if calls := entry.get("tool_calls"):
            known["tool_calls"] = tuple(_read_call(call) for call in _list(calls))
        if isinstance(usage := entry.get("usage"), dict):
            known["usage"] = Usage(**{part.name: _int(usage.get(part.name)) for part in fields(Usage)})
        if files := entry.get("files"):
            known["files"] = tuple(name for name in _list(files) if isinstance(name, str))
        if isinstance(citations := entry.get("citations"), list):
            known["citations"] = tuple(filter(None, map(_read_citation, citations)))
        return cls(
            entry["role"],
            _read_content(entry.get("content")),
            _int(entry.get("seq")),
            from_iso(entry.get("created_at")),
            interrupted=entry.get("interrupted") is True,
            **known,
        )

    def to_json(self, seq: int | None = None) -> bytes:
        """One line of the file, without its end."""
        entry: dict[str, Any] = {
            "seq": self.seq if seq is None else seq,
            "role": self.role,
            "content": self.content if isinstance(self.content, str) else [_write_part(part) for part in self.content],
            "created_at": datetime.fromtimestamp(self.created_at, UTC),
        }
        if self.tool_calls:
            entry["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in self.tool_calls
            ]
        for name in (*_TEXTS, "interrupted", "usage", "files", "citations"):
            if value := getattr(self, name):
                entry[name] = value
        return dump(entry)


@dataclass(frozen=True, slots=True)
class Salvaged:
    """What can be saved of a file that is not as it should be, and what kind of repair it needs.

    It gets that way when a process is killed or the machine stops in mid-write (then its end is torn), or by hands and
    tools that edit it (then it may even be valid JSON, laid out otherwise).
    """

    header: Mapping[str, Any]  # what is readable of it, without the messages
    messages: Sequence[dict[str, Any]]  # the whole ones, in their order
    torn_at: int | None  # when only the end is torn: the bytes before this are whole
    lossless: bool  # valid JSON, and nothing but messages in it


def salvage(data: bytes) -> Salvaged:
    document = _parse(data)
    if isinstance(document, dict) and isinstance(document.get("messages"), list):
        entries = document.pop("messages")
        messages = [entry for entry in entries if _is_message(entry)]
        return Salvaged(document, messages, None, lossless=len(messages) == len(entries))
    first, _, rest = data.partition(b"\n")
    header = _parse(first.rstrip() + b"]}")
    messages = []
    whole_to, position = len(first), len(first) + 1
    for line in rest.split(b"\n"):
        for entry, end in _values(line):
            if _is_message(entry):
                messages.append(entry)
                whole_to = position + end
        position += len(line) + 1
    torn_at = None if _parse(data[:whole_to] + CLOSING) is None else whole_to
    header = {key: value for key, value in header.items() if key != "messages"} if isinstance(header, dict) else {}
    return Salvaged(header, messages, torn_at, lossless=False)


def make_header(session_id: str, username: str, created_at: float) -> dict[str, Any]:
    return {"session_id": session_id, "username": username, "created_at": datetime.fromtimestamp(created_at, UTC)}


def lay_out(header: Mapping[str, Any], lines: Sequence[bytes]) -> bytes:
    """A whole file."""
    opening = dump({**header, "messages": []}).removesuffix(b"]}")
    return opening + b"\n" * bool(lines) + BETWEEN.join(lines) + CLOSING


def renumber(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"seq": seq} | message | {"seq": seq} for seq, message in enumerate(messages, 1)]


def dump(value: Any) -> bytes:
    """JSON on one line. Halves of surrogate pairs, which are no text, become U+FFFD."""
    try:
        return orjson.dumps(value, option=orjson.OPT_UTC_Z)
    except orjson.JSONEncodeError:
        return orjson.dumps(clean_value(value), option=orjson.OPT_UTC_Z)


def from_iso(moment: Any) -> float:
    """Unix seconds; 0 for what is no moment."""
    if isinstance(moment, str):
        try:
            return datetime.fromisoformat(moment).timestamp()
        except (ValueError, OverflowError):
            return 0.0
    return float(moment) if isinstance(moment, int | float) else 0.0


def _parse(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None


def _values(line: bytes) -> Iterator[tuple[Any, int]]:
    """The JSON values on a line and where they end, whatever stands after or between them."""
    entry = line.rstrip(b" \r,")
    if (value := _parse(entry)) is not None:
        yield value, len(entry)
        return
    text = line.decode(errors="surrogateescape")  # keeps the number of bytes
    start = text.find("{")
    while start >= 0:
        try:
            value, end = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            return
        yield value, len(text[:end].encode(errors="surrogateescape"))
        start = text.find("{", end)


def _is_message(entry: Any) -> bool:
    try:
        StoredMessage.from_json(entry)
    except ValueError:
        return False
    return True


def _read_content(content: Any) -> Content:
    if content is None or isinstance(content, str):
        return content or ""
    return tuple(_read_part(part) for part in _list(content))


def _read_part(part: Any) -> TextPart | ImagePart:
    match part:
        case {"type": "text", "text": str(text)}:
            return TextPart(text)
        case {"type": "image_url", "image_url": {"url": str(url), **rest}}:
            detail = rest.get("detail")
            return ImagePart(url, detail if isinstance(detail, str) else None)
        case _:
            raise ValueError("not a part of a message")


def _write_part(part: TextPart | ImagePart) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    picture = {"url": part.url} if part.detail is None else {"url": part.url, "detail": part.detail}
    return {"type": "image_url", "image_url": picture}


def _read_call(call: Any) -> ToolCall:
    match call:
        case {"id": str(call_id), "function": {"name": str(name), "arguments": str(arguments)}}:
            return ToolCall(call_id, name, arguments)
        case _:
            raise ValueError("not a tool call")


def _read_citation(entry: Any) -> Citation | None:
    match entry:
        case {"url": str(url), "title": str(title), "start": int(start), "end": int(end)}:
            return Citation(url, title, start, end)
        case _:
            return None


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("not a list")
    return value


def _int(value: Any) -> int:
    return value if isinstance(value, int) else 0
