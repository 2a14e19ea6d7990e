"""A file as the modules of formats see it, and what they say when it is none of theirs."""

import codecs
import re
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TextIO

SAMPLE_BYTES = 2**18
MIN_GUESSED = 12  # runs of letters that are not ASCII

_NOT_ASCII = re.compile(rb"[\x80-\xff]+")


class Unreadable(Exception):
    """The file cannot be read, or not any further: one sentence that says why."""


@dataclass(frozen=True)
class Source:
    path: Path
    name: str  # what its owner calls it
    first_page: int = 1  # where to begin, in a format that has pages
    deadline: float = float("inf")  # of `time.monotonic()`: what counts stops counting then

    @cached_property
    def size(self) -> int:
        return self.path.stat().st_size

    @cached_property
    def sample(self) -> bytes:
        with self.path.open("rb") as file:
            return file.read(SAMPLE_BYTES)

    @cached_property
    def suffix(self) -> str:
        return Path(self.name).suffix.lower()

    @cached_property
    def encoding(self) -> str | None:
        """Of a text; None for what is none."""
        return find_encoding(self.sample, whole=self.size <= SAMPLE_BYTES)

    @property
    def is_late(self) -> bool:
        return time.monotonic() > self.deadline

    def open_text(self, *, newline: str | None = None) -> TextIO:
        """
        Raises:
            Unreadable: it is no text.
        """
        if self.encoding is None:
            raise Unreadable("It is no text.")
        return self.path.open(encoding=self.encoding, errors="replace", newline=newline)

    def read_text(self, max_characters: int) -> str:
        with self.open_text() as file:
            return file.read(max_characters)

    def read_whole_text(self, max_bytes: int) -> str:
        """
        Raises:
            Unreadable: it is no text, or larger than that.
        """
        if self.size > max_bytes:
            raise Unreadable(f"It has more than {max_bytes // 2**20} MiB, the most that can be read of this format.")
        return self.read_text(max_bytes)


def find_encoding(sample: bytes, *, whole: bool) -> str | None:
    """The encoding of the text that begins with the sample; None for what is no text."""
    for mark, encoding in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF32_LE, "utf-32"),
        (codecs.BOM_UTF32_BE, "utf-32"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if sample.startswith(mark):
            return encoding
    if b"\0" in sample:
        return _find_utf16(sample, whole=whole)
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample, final=whole)
    except UnicodeDecodeError:
        return _guess_legacy(sample)
    return "utf-8"


def _find_utf16(sample: bytes, *, whole: bool) -> str | None:
    """Without a mark, UTF-16 shows by the zeros in one half of its bytes, which Latin text has."""
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    for encoding, zeros, others in (("utf-16-le", odd, even), ("utf-16-be", even, odd)):
        if zeros * 2 > len(sample) * 0.4 and others * 20 < zeros:
            try:
                codecs.getincrementaldecoder(encoding)().decode(sample, final=whole)
            except UnicodeDecodeError:
                return None
            return encoding
    return None


def _guess_legacy(sample: bytes) -> str | None:
    control = sum(sample.count(byte) for byte in (*range(1, 8), *range(14, 27), *range(28, 32), 127))
    if control * 50 > len(sample):
        return None
    if len(_NOT_ASCII.findall(sample)) < MIN_GUESSED:  # too little to guess from; this is the likeliest
        return "cp1252"
    try:
        import charset_normalizer
    except ImportError:
        return "cp1252"
    best = charset_normalizer.from_bytes(sample[: 2**14]).best()
    return best.encoding if best else "cp1252"
