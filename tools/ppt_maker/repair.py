"""What a model wrote, made into what a page can carry: cut JSON closed, texts cleaned and shortened, nothing twice."""

import json
import re
from collections.abc import Sequence
from typing import Any

from backend.utils.clean_text import clean_text, clean_value

_MARKUP = re.compile(r"\*\*|__|`+|^\s*#+\s*|^\s*>\s*|<[^<>]{1,60}>", re.MULTILINE)
_LIST_MARK = re.compile(r"^\s*(?:[-*•·–]\s+|\(?\d{1,2}[.)]\s+)")
_FENCE = re.compile(r"^\s*```\w*\s*|\s*```\s*$")
_BRACKETS = re.compile(r"[{}\[\]\s]{4,}$")  # of models that lose their way at the end of JSON
_END = re.compile(r"[.!?。！？]\s+")
MAX_DEPTH = 60


def read_json(text: str) -> Any:
    """The JSON object in a text, also where it is fenced, or was cut; None where there is none."""
    text = _FENCE.sub("", text.strip())
    start = text.find("{")
    if start < 0:
        return None
    text = text[start:]
    for candidate in (text, text[: text.rfind("}") + 1], _close(text)):
        try:
            value = json.loads(candidate, strict=False)
        except (ValueError, RecursionError):
            continue
        return clean_value(value) if isinstance(value, dict) else None
    return None


def tidy(text: object, limit: int) -> str:
    """One line without Markdown, no longer than `limit`: cut behind a sentence, or a word."""
    unmarked = _BRACKETS.sub("", _MARKUP.sub("", clean_text(str(text or ""))))
    plain = " ".join(_LIST_MARK.sub("", unmarked).split())
    plain = plain.strip(" \"“”'")
    if len(plain) <= limit:
        return plain
    sentences = [end.end() for end in _END.finditer(plain, 0, limit)]
    if sentences and sentences[-1] > limit // 2:
        return plain[: sentences[-1]].strip()
    cut = plain[: limit - 1]
    space = cut.rfind(" ")
    return (cut[:space] if space > limit // 2 else cut).rstrip(" ,;:-–") + "…"


def tidy_list(texts: object, most: int, limit: int) -> tuple[str, ...]:
    """Texts that say something, none of them twice."""
    found: dict[str, str] = {}
    for text in texts if isinstance(texts, list) else []:
        plain = tidy(text, limit).rstrip(".;") if isinstance(text, str | int | float) else ""
        if _says_something(plain):
            found.setdefault(_key(plain), plain)
    return tuple(found.values())[:most]


def tidy_headline(text: object, limit: int = 110) -> str:
    """Without a number before it or a full stop behind it."""
    line = re.sub(r"^(?:slide|page|folie)\s*\d+\s*[:.-]\s*", "", tidy(text, limit), flags=re.IGNORECASE).rstrip(".")
    return line if _says_something(line) else ""


def make_distinct(headlines: Sequence[str]) -> list[str]:
    """Each with a number behind it, where another one before it is the same."""
    seen: dict[str, int] = {}
    distinct = []
    for headline in headlines:
        count = seen[_key(headline)] = seen.get(_key(headline), 0) + 1
        distinct.append(headline if count == 1 else f"{headline} ({count})")
    return distinct


def is_same(one: str, other: str) -> bool:
    return _key(one) == _key(other)


def _says_something(text: str) -> bool:
    """A number alone does not."""
    return any(character.isalpha() for character in text)


def _key(text: str) -> str:
    return re.sub(r"\W+", "", text.casefold())


def _close(text: str) -> str:
    """Cut JSON with what is missing at its end; what was begun and says nothing yet is dropped."""
    for end in _ends(text):
        closing, in_string, escaped = [], False, False
        for character in text[:end]:
            if in_string:
                in_string = escaped or character != '"'
                escaped = character == "\\" and not escaped
            elif character == '"':
                in_string = True
            elif character in "{[":
                closing.append("}" if character == "{" else "]")
            elif character in "}]" and closing:
                closing.pop()
        if len(closing) > MAX_DEPTH:
            return ""
        closed = text[:end] + ('"' if in_string and not escaped else "") + "".join(reversed(closing))
        try:
            json.loads(closed, strict=False)
        except (ValueError, RecursionError):
            continue
        return closed
    return ""


def _ends(text: str) -> list[int]:
    """Where the text may have been whole: at its end, and before its last separators."""
    separators = [found.start() for found in re.finditer(r'[,\[{]|(?<=["}\]])', text)]
    return [len(text), *reversed(separators[-40:])]
