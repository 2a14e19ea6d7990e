"""Plain texts as Marp Markdown that shows them as they are: no HTML, no Markdown, no directive of theirs has effect."""

import json
import re

WORD_JOINER = "\u2060"  # has no width
# Everything that Markdown, its extensions or Marp give a meaning to; a backslash takes it away.
_SPECIAL = re.compile(r"[\\`*_{}\[\]<>#+\-!|~&$:^=@]")
_ORDINAL = re.compile(r"^(\d{1,9})([.)])")
_COMMENT_END = re.compile(r"-(?=[-!]*>)")
_UNSAFE_TEX = re.compile(r"\\(?:href|url|require|style|class|cssId|html\w*|def|newcommand|let|unicode)\b|[$<>]{2}|\$")


def escape(text: str) -> str:
    """A line of text, wherever a line of Markdown may begin or go on."""
    return _ORDINAL.sub(r"\1\\\2", _SPECIAL.sub(r"\\\g<0>", text))


def escape_alt(text: str) -> str:
    """The description of a picture. Marp takes words such as `bg` in it for orders, so none is left whole."""
    return " ".join(WORD_JOINER + escape(word) for word in text.split())


def comment(text: str) -> str:
    """Notes of the speaker. Marp takes `name: value` in a comment for an order, unless it knows no such name."""
    lines = (WORD_JOINER + _COMMENT_END.sub(f"-{WORD_JOINER}", line) for line in text.split("\n"))
    return "<!--\n" + "\n".join(lines) + "\n-->"


def fence(text: str, language: str) -> str:
    """Code, between fences that it does not hold itself."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}{language}\n{text}\n{ticks}"


def math(latex: str) -> str | None:
    """A formula of its own; None for one with commands that do more than set mathematics."""
    text = latex.strip().strip("$").strip()
    return None if not text or _UNSAFE_TEX.search(text) else f"$$\n{text}\n$$"


def quote_yaml(text: str) -> str:
    """A value in the front matter."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "").replace("\u2028", " ").replace("\u2029", " ")


def quote_css(text: str) -> str:
    """A string in a style sheet."""
    safe = "".join(c if c.isalnum() or c in " .,;" else f"\\{ord(c):x} " for c in text)
    return f'"{safe}"'
