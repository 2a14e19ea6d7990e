"""Halves of surrogate pairs, which models and tools may send, made into what UTF-8 can carry."""

from typing import Any


def clean_text(text: str) -> str:
    """Halves become U+FFFD; two that belong together become the character that they are."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def clean_value(value: Any) -> Any:
    """The same for every text in a JSON value, keys included."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, dict):
        return {clean_value(key): clean_value(item) for key, item in value.items()}
    return [clean_value(item) for item in value] if isinstance(value, list | tuple) else value
