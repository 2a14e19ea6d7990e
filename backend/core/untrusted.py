"""Text from outside (pages, files, the output of code) on its way into a prompt: marked as data.

The marks tell the model where data begins and ends. So that data cannot pretend to end, or to be somebody else who
speaks, what looks like a mark or like a control token of a chat template is made to look different.
"""

import re

from backend.utils.clean_text import clean_text

# Template tokens of the common model families, our own marks, and the tags that models put around calls and thoughts.
_CONTROL = re.compile(
    r"<(?=\s*\|)|"
    r"<(?=\s*/?\s*(?:data|think|tool\w*|function\w*|start_of_turn|end_of_turn|bos|eos|s|im_start|im_end|system)\b)|"
    r"\[(?=\s*/?\s*(?:INST|TOOL_CALLS|AVAILABLE_TOOLS|TOOL_RESULTS|SYSTEM_PROMPT)\b)",
    re.IGNORECASE,
)
_LOOK_ALIKES = {"<": "‹", "[": "⟦"}


def mark_as_data(text: str, source: str) -> str:
    """The text between marks that name where it comes from: strangers name files and pages, too."""
    place = " ".join(disarm(source).replace('"', "'").split())
    return f'<data from="{place}">\n{disarm(text)}\n</data>'


def disarm(text: str) -> str:
    """The text without anything that ends data or begins a message."""
    return _CONTROL.sub(lambda found: _LOOK_ALIKES[found.group()], clean_text(text))


def shorten(text: str, limit: int) -> str:
    """At most about `limit` characters: the beginning and the end, and how much is left out between them."""
    if len(text) <= limit:
        return text
    head = limit * 2 // 3
    tail = limit - head
    return f"{text[:head]}\n[... {len(text) - head - tail} characters left out ...]\n{text[len(text) - tail :]}"
