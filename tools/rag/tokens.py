"""The tokens of the embedding model: how long a text is for it, and where it may be cut."""

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

Span = tuple[int, int]  # of characters

MIN_CHARACTERS_A_TOKEN = 8  # what costs a token: some tokenizers make one token of a word of any length


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
        """Where the tokens of each text are; no piece between two beginnings is longer than a few words."""
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [
            _split_long(encoding.offsets)
            if len(text) > MIN_CHARACTERS_A_TOKEN * len(encoding.offsets)
            else encoding.offsets
            for text, encoding in zip(texts, encodings, strict=True)
        ]

    def count(self, texts: Sequence[str]) -> list[int]:
        """What each text costs, without the marks."""
        return [len(spans) for spans in self.spans(texts)]


def _split_long(spans: Sequence[Span]) -> list[Span]:
    pieces: list[Span] = []
    for begin, end in spans:
        for place in range(begin, max(end, begin + 1), 4 * MIN_CHARACTERS_A_TOKEN):
            pieces.append((place, min(end, place + 4 * MIN_CHARACTERS_A_TOKEN)))
    return pieces
