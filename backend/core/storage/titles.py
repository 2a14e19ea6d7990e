"""What a session is called: the beginning of what its user says first, until somebody gives it another name."""

from collections.abc import Sequence

from backend.core.storage.conversation_format import StoredMessage
from backend.utils.clean_text import clean_text

TITLE_LENGTH = 80
MAX_TITLE_LENGTH = 200


def make_title(messages: Sequence[StoredMessage]) -> str:
    """One line, cut between two words; empty if the user has said nothing in words."""
    for message in messages:
        if message.role == "user" and (title := shorten_title(message.to_message().text, TITLE_LENGTH)):
            return title
    return ""


def shorten_title(title: str, length: int = MAX_TITLE_LENGTH) -> str:
    line = " ".join(title[: 20 * length].split())[: length + 1]  # enough, however much of it is whitespace
    if not line.isprintable():
        line = " ".join("".join(c if c.isprintable() else " " for c in clean_text(line)).split())
    if len(line) <= length:
        return line
    head, _, cut_word = line[:length].rpartition(" ")
    return (head if len(cut_word) < length // 2 else line[: length - 1]) + "…"
