"""Instructions of the server's own, put into a conversation that is the client's."""

from dataclasses import replace

from backend.core.messages import Content, ImagePart, Message, TextPart


def add_to_system(messages: tuple[Message, ...], instruction: str) -> tuple[Message, ...]:
    """The conversation with an instruction at the end of its first system message, or one made for it."""
    if messages and messages[0].role == "system":
        return (replace(messages[0], content=join(messages[0].content, instruction)), *messages[1:])
    return (Message("system", instruction), *messages)


def join(one: Content, other: Content) -> Content:
    """Two contents as one, each text a paragraph of its own."""
    if isinstance(one, str) and isinstance(other, str):
        return f"{one}\n\n{other}" if one.strip() and other.strip() else one + other
    return (*_parts(one), *_parts(other))


def _parts(content: Content) -> tuple[TextPart | ImagePart, ...]:
    return ((TextPart(content),) if content else ()) if isinstance(content, str) else content
