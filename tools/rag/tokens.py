"""The tokens of the embedding model: how long a text is for it, and where it may be cut."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from tokenizers import Tokenizer

Span = tuple[int, int]  # of characters

MAX_SPAN = 32  # characters; some tokenizers make one token of a word of any length, and none of invisible characters


def load_tokenizer(path: Path) -> Tokenizer:
    """A tokenizer that neither cuts nor pads, whatever its file says. Blocks."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


class TokenCounter:
    """Blocks; the library works outside of Python's lock."""

    def __init__(self, path: Path) -> None:
        self._tokenizer = load_tokenizer(path)
        self.marks = int(self._tokenizer.num_special_tokens_to_add(is_pair=False))  # that each text gets

    def spans(self, texts: Sequence[str]) -> list[list[Span]]:
        """Where the tokens of each text are. What is longer than any token ought to be counts as several."""
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [
            list(_fill(encoding.offsets, len(text))) if _has_gaps(encoding.offsets, len(text)) else encoding.offsets
            for text, encoding in zip(texts, encodings, strict=True)
        ]

    def count(self, texts: Sequence[str]) -> list[int]:
        """What each text costs, without the marks."""
        return [len(spans) for spans in self.spans(texts)]


def _has_gaps(spans: Sequence[Span], size: int) -> bool:
    begins = [0, *(span[0] for span in spans), size]
    return any(behind - begin > MAX_SPAN for begin, behind in pairwise(begins))


def _fill(spans: Sequence[Span], size: int) -> Iterator[Span]:
    """The spans, with more of them where the next one begins too far behind."""
    begins = [span[0] for span in spans]
    if not begins or begins[0] > MAX_SPAN:
        begins.insert(0, 0)
    for begin, behind in pairwise([*begins, size]):
        for place in range(begin, max(behind, begin + 1), MAX_SPAN):
            yield place, min(place + MAX_SPAN, behind)
