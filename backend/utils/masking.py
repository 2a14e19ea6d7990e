"""Takes keys and tokens out of what goes to a log: our API keys (`sk-...`), JWTs, and whatever follows `Bearer`.

What looks like one is masked; a secret of another shape is not known here. All of it is linear in the text, whatever
the text is.
"""

import re
from typing import Any

MASK = "[masked]"

_SECRETS = (  # how it begins; the whole of it; what stands in its place
    ("sk-", re.compile(r"(?<![A-Za-z0-9])sk-[A-Za-z0-9_-]{16,}+"), MASK),
    ("eyJ", re.compile(r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]{8,}+"), MASK),
    ("earer ", re.compile(r"earer [A-Za-z0-9._~+/=-]{16,}+"), f"earer {MASK}"),
    ("EARER ", re.compile(r"EARER [A-Za-z0-9._~+/=-]{16,}+"), f"EARER {MASK}"),
)
_SIGNS = tuple(sign.encode() for sign, _, _ in _SECRETS)


def may_hold_secrets(text: bytes) -> bool:
    """Whether masking is worth the price; quick. Also works on JSON, which escapes none of the signs."""
    return any(sign in text for sign in _SIGNS)


def mask(text: str) -> str:
    for sign, secret, replacement in _SECRETS:
        pieces: list[str] = []
        end, at = 0, text.find(sign)
        while at >= 0:
            if found := secret.match(text, at):
                pieces += (text[end:at], replacement)
                at = end = found.end()
            else:
                at += len(sign)
            at = text.find(sign, at)
        if pieces:
            text = "".join((*pieces, text[end:]))
    return text


def mask_json(value: Any) -> Any:
    """A JSON value with every text in it masked, the names of its fields included."""
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, dict):
        return {mask(name): mask_json(item) for name, item in value.items()}
    if isinstance(value, list):
        return [mask_json(item) for item in value]
    return value
