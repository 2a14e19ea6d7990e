"""Prompts: one text file each under `prompts/`, with `$placeholders`.

Strict on both sides: a placeholder without a value is an error, and so is a value without a placeholder. Files are read
once in the life of the process, by whoever builds the agents and tools; reading blocks.
"""

import string
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "prompts"


@dataclass(frozen=True, slots=True)
class Prompt:
    name: str
    text: str

    @property
    def placeholders(self) -> frozenset[str]:
        return frozenset(string.Template(self.text).get_identifiers())

    def fill(self, **values: str) -> str:
        """
        Raises:
            ValueError: the values are not exactly those that the prompt asks for.
        """
        if wrong := self.placeholders ^ values.keys():
            raise ValueError(f"the prompt {self.name} and its caller differ in: {', '.join(sorted(wrong))}")
        return string.Template(self.text).substitute(values)


@cache
def load_prompt(name: str) -> Prompt:
    """
    Args:
        name: the file's path under `prompts/`, without its ending.

    Raises:
        ValueError: there is no such prompt, or it has a `$` that begins no placeholder.
    """
    try:
        text = (FOLDER / f"{name}.txt").read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ValueError(f"there is no prompt {name}") from error
    if not string.Template(text).is_valid():
        raise ValueError(f"the prompt {name} has a $ that begins no placeholder; write $$ for the sign itself")
    return Prompt(name, text)
