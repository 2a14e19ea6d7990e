"""Continuing an answer that was cut inside a word, on an engine that knows grammars.

A model that is given half a word goes on badly ("Fra" with "kakos"), because it has never seen the word parted there.
So it is given the text before the word, and a grammar that lets it start with the piece and no other way; the piece is
then taken off what it says.
"""

import re
from dataclasses import dataclass

from backend.core.llm.base import LLMRequest
from backend.core.llm.grammar import literal

# The word that the text ends in, with the space before it: in most vocabularies the two are one token. Scripts without
# spaces have no such word; what is longer than a word is left alone.
_CUT_WORD = re.compile(r"(?: |(?<!\S))\S{0,63}\w\Z")


@dataclass(frozen=True, slots=True)
class Healing:
    """An answer to be continued, parted before the word that it was cut in."""

    text: str
    piece: str

    @property
    def grammar(self) -> str:
        """GBNF: the piece, then anything."""
        return f"root ::= {literal(self.piece)} [^\\x00]*"


def find_healing(request: LLMRequest) -> Healing | None:
    """How to continue the request's last message, or None where nothing was cut or the grammar is not ours to set."""
    last = request.messages[-1]
    if last.role != "assistant" or last.tool_calls or request.response_format or request.tools:
        return None
    cut = _CUT_WORD.search(last.text)
    return Healing(last.text[: cut.start()], cut.group()) if cut else None
