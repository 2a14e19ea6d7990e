"""What a conversation is made of: messages, their parts, and the calls that a model asks for.

Plain values without behaviour. The wire's shapes are parsed into these at the edge (`backend/models`), and each backend
writes them out in its own way (`backend/core/llm`). The `developer` role is `system` here.
"""

from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class TextPart:
    text: str


@dataclass(frozen=True, slots=True)
class ImagePart:
    """A picture as a `data:` URL. Remote addresses are fetched at the edge: a backend never sees one."""

    url: str
    detail: str | None = None


Content = str | tuple[TextPart | ImagePart, ...]


@dataclass(frozen=True, slots=True)
class ToolCall:
    id: str
    name: str
    arguments: str  # the JSON text as the model wrote it; it may be invalid


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    content: Content = ""
    tool_calls: tuple[ToolCall, ...] = ()  # assistant only
    tool_call_id: str | None = None  # tool only: the call that this answers
    name: str | None = None
    reasoning: str | None = None  # assistant only: what it thought before it answered

    @property
    def text(self) -> str:
        """The words of the message, its pictures left out."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content if isinstance(part, TextPart))
