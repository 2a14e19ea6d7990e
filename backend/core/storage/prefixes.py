"""Knowing a conversation again whose client sends the whole of it each time and no session id, as chat UIs do.

What the client has seen is reduced to a digest, a chain over the messages up to the last answer. After each answer the
session stores the digest that the client's next request will have. What UIs change on the way does not count: outer
whitespace, system messages, the thoughts that they fold into the answer, empty messages, how JSON is spaced.

A client that leaves old messages out, or that edits more than the last turn, is not recognised: it gets a new session.
"""

import hashlib
from collections.abc import Sequence

import orjson

from backend.core.messages import ImagePart, Message

DIGEST_BYTES = 16

# How chat UIs echo what a model thought.
_FOLDED = (("<think>", "</think>"), ('<details type="reasoning"', "</details>"))


def digest(messages: Sequence[Message]) -> str:
    """The digest of a conversation up to its last answer; empty if there is none yet."""
    end = max((index for index, message in enumerate(messages, 1) if message.role == "assistant"), default=0)
    chain = ""
    for message in messages[:end]:
        chain = extend(chain, message)
    return chain


def chat_digest(chat_id: str) -> str:
    """Stands in for the digest where a client names its conversations itself."""
    state = hashlib.blake2b(chat_id.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES, person=b"chat id")
    return state.hexdigest()


def extend(chain: str, message: Message) -> str:
    """The digest of a conversation with one message more."""
    said = _normalise(message)
    if said is None:
        return chain
    state = hashlib.blake2b(chain.encode(), digest_size=DIGEST_BYTES)
    state.update(said)
    return state.hexdigest()


def _normalise(message: Message) -> bytes | None:
    """What counts of a message; None if nothing does."""
    if message.role == "system":
        return None
    text = message.text
    if message.role == "assistant" and "<" in text:
        for opening, closing in _FOLDED:
            text = _without(text, opening, closing)
    said = [message.role, text.strip()]
    if not isinstance(message.content, str):
        said += [_hash(part.url) for part in message.content if isinstance(part, ImagePart)]
    for call in message.tool_calls:
        said += [call.name, _canonical(call.arguments)]
    # Unit separators, so that no two lists of strings are the same bytes by accident.
    return "\x1f".join(said).encode("utf-8", "surrogatepass") if any(said[1:]) else None


def _without(text: str, opening: str, closing: str) -> str:
    """The text without what stands between the two, and without them. Linear, whatever a client sends."""
    kept = []
    position = 0
    while (start := text.find(opening, position)) >= 0:
        end = text.find(closing, start)
        if end < 0:
            break
        kept.append(text[position:start])
        position = end + len(closing)
    return "".join(kept) + text[position:]


def _canonical(arguments: str) -> str:
    try:
        return orjson.dumps(orjson.loads(arguments), option=orjson.OPT_SORT_KEYS).decode()
    except orjson.JSONDecodeError:
        return arguments.strip()


def _hash(url: str) -> str:
    return hashlib.blake2b(url.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).hexdigest()
