"""What two rankings say together, and passages made of what they found.

Each ranking gives a chunk points by its place in it (reciprocal rank), so that scores that mean different things need
not be compared. Chunks that follow each other become one passage, and what says nearly the same is told once.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .dense import Scored
from .store import StoredChunk

RANK_CONSTANT = 20  # a first place counts for more than with the usual 60, and measures better
LEXICAL_WEIGHT = 1.0  # of the word ranking, beside the 1 of the vectors
SAME_WORDS = 0.9  # of two passages, from which on they say the same

_WORD = re.compile(r"\w+")
_NUMBER = re.compile(r"\d+")

Key = tuple[int, int]  # which collection, and the id of a chunk in it


@dataclass(frozen=True, slots=True)
class Hit:
    key: Key
    score: float
    similarity: float


def fuse(dense: Sequence[tuple[Key, float]], lexical: Sequence[tuple[Key, float]]) -> list[Hit]:
    """All that is in either ranking, best first. Both are ordered, best first."""
    points: dict[Key, float] = {}
    for ranking, weight in ((dense, 1.0), (lexical, LEXICAL_WEIGHT)):
        for rank, (key, _) in enumerate(ranking, 1):
            points[key] = points.get(key, 0.0) + weight / (RANK_CONSTANT + rank)
    most = (1 + LEXICAL_WEIGHT) / (RANK_CONSTANT + 1)
    similarity = dict(dense)
    hits = [Hit(key, score / most, similarity.get(key, 0.0)) for key, score in points.items()]
    return sorted(hits, key=lambda hit: (-hit.score, -hit.similarity, hit.key))


def merge(rankings: Mapping[int, Sequence[Scored]], limit: int) -> list[tuple[Key, float]]:
    """One ranking of those of several collections, by their scores."""
    merged = [((place, number), score) for place, ranking in rankings.items() for number, score in ranking]
    return sorted(merged, key=lambda scored: -scored[1])[:limit]


def join_chunks(chunks: Sequence[StoredChunk]) -> str:
    """The text of chunks that follow each other, without what is repeated."""
    parts: list[str] = []
    for number, chunk in enumerate(chunks):
        text = chunk.text if number == 0 else chunk.text[chunk.overlap :]
        if number:
            parts.append("\n" if chunks[number - 1].section == chunk.section else "\n\n")
        parts.append(text)
    return "".join(parts)


def runs(chunks: Iterable[StoredChunk]) -> list[list[StoredChunk]]:
    """Chunks of one document and section that follow each other, together."""
    found: list[list[StoredChunk]] = []
    for chunk in sorted(chunks, key=lambda chunk: (chunk.document, chunk.position)):
        last = found[-1][-1] if found else None
        if last and (last.document, last.position + 1, last.section) == (chunk.document, chunk.position, chunk.section):
            found[-1].append(chunk)
        else:
            found.append([chunk])
    return found


class Fingerprint:
    """What a text says, for a comparison that overlooks punctuation and case, and never a number."""

    __slots__ = ("numbers", "words")

    def __init__(self, text: str) -> None:
        self.words = frozenset(_WORD.findall(text.casefold()))
        self.numbers = frozenset(_NUMBER.findall(text))

    def says_the_same_as(self, other: "Fingerprint") -> bool:
        if self.numbers != other.numbers:
            return False
        return len(self.words & other.words) >= SAME_WORDS * len(self.words | other.words)
