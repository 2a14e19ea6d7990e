"""How much room text takes: widths from the real fonts, lines broken as a presentation program breaks them.

A font is found through fontconfig, which knows the free fonts that stand in for Microsoft's. What a font has no glyph
for is drawn with another one: East Asian characters are one em wide in all of them, the others are reckoned a little
too wide. Blocks: for threads and processes of their own.
"""

import re
import subprocess
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from fontTools.ttLib import TTFont, TTLibError

LINE_HEIGHT = 1.22  # of the size, in the fonts of the themes
TALL_LINE_HEIGHT = 1.45  # where East Asian or other scripts' fonts join in
FALLBACK_EM = 0.62  # of a character of another font
EMOJI_EM = 1.4
SAFETY = 1.02  # programs round widths of glyphs in ways of their own
FIND_TIMEOUT_S = 10.0


class Face:
    """One font: the widths of its characters, in ems."""

    def __init__(self, family: str, *, bold: bool) -> None:
        self._widths: dict[str, float] = {}
        self._bold = bold
        self._font = _open(family, bold=bold)
        if self._font:
            self._glyphs = self._font.getBestCmap() or {}
            self._advances = self._font["hmtx"].metrics
            self._units = self._font["head"].unitsPerEm

    def width(self, text: str) -> float:
        return sum(map(self._width, text)) * SAFETY

    def _width(self, character: str) -> float:
        if character not in self._widths:
            self._widths[character] = self._measure(character)
        return self._widths[character]

    def _measure(self, character: str) -> float:
        if self._font and (glyph := self._glyphs.get(ord(character))):
            return float(self._advances[glyph][0] / self._units)
        if unicodedata.category(character) in {"Mn", "Me", "Cf"}:
            return 0.0
        if 0x1F000 <= ord(character) <= 0x1FAFF:
            return EMOJI_EM
        if is_wide(character):
            return 1.0
        return FALLBACK_EM * (1.05 if self._bold else 1.0)


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Text of one look. `bold` is how many characters at its beginning are bold."""

    text: str
    bold: int = 0
    indent: float = 0.0  # of all its lines, in ems of its size
    space_after: float = 0.0  # in ems of its size
    scale: float = 1.0  # of the size of the box


def wrap(text: str, face: Face, size: float, width: float) -> list[str]:
    """The lines of a text in a box of that width. Line breaks in it are kept."""
    lines = []
    for part in text.split("\n"):
        line, used = "", 0.0
        for piece in _pieces(part):
            needs = face.width(piece) * size
            if line and used + face.width(piece.rstrip()) * size > width:
                lines.append(line)
                line, used = "", 0.0
                piece = piece.lstrip()
                needs = face.width(piece) * size
            while needs > width and len(piece) > 1:  # a word that is longer than a line is broken anywhere
                fits = max(1, _count_fitting(piece, face, size, width))
                lines.append(piece[:fits])
                piece = piece[fits:]
                needs = face.width(piece) * size
            line, used = line + piece, used + needs
        lines.append(line)
    return lines


def height_of(paragraphs: Sequence[Paragraph], family: str, size: float, width: float, *, bold: bool = False) -> float:
    """Of a text box without its margins, in points."""
    total = 0.0
    for index, paragraph in enumerate(paragraphs):
        own = size * paragraph.scale
        face = find_face(family, bold=bold or paragraph.bold > 0)
        lines = wrap(paragraph.text, face, own, width - paragraph.indent * own)
        total += len(lines) * own * line_height(paragraph.text)
        if index + 1 < len(paragraphs):
            total += paragraph.space_after * own
    return total


def fit_size(
    paragraphs: Sequence[Paragraph],
    family: str,
    width: float,
    height: float,
    sizes: Sequence[float],
    *,
    bold: bool = False,
) -> float | None:
    """The first of the sizes with which the text fits; None where it does with none."""
    return next((size for size in sizes if height_of(paragraphs, family, size, width, bold=bold) <= height), None)


def steps(largest: float, least: float) -> tuple[float, ...]:
    """Sizes to try, from the largest on."""
    sizes, size = [], largest
    while size > least:
        sizes.append(size)
        size -= 2 if size > 20 else 1
    return (*sizes, least)


def line_height(text: str) -> float:
    return TALL_LINE_HEIGHT if any(ord(c) > 0x2E7F or 0x0590 <= ord(c) < 0x1E00 for c in text) else LINE_HEIGHT


def is_wide(character: str) -> bool:
    return unicodedata.east_asian_width(character) in {"W", "F"}


def is_right_to_left(text: str) -> bool:
    """By the first letter that has a direction."""
    directions = (unicodedata.bidirectional(character) for character in text)
    return next((d in {"R", "AL"} for d in directions if d in {"L", "R", "AL"}), False)


@cache
def find_face(family: str, *, bold: bool = False) -> Face:
    return Face(family, bold=bold)


def _pieces(text: str) -> Iterator[str]:
    """What a line may be broken between: words with the space after them, and East Asian characters."""
    for word in re.findall(r"\S+\s*|^\s+", text):
        start = 0
        for at, character in enumerate(word):
            if is_wide(character) and at > start:
                yield word[start:at]
                start = at
            if is_wide(character):
                after = at + 1
                while after < len(word) and not is_wide(word[after]) and not word[after].isalnum():
                    after += 1  # punctuation and spaces stay with the character before them
                if after < len(word):
                    yield word[start:after]
                    start = after
        if start < len(word):
            yield word[start:]


def _count_fitting(word: str, face: Face, size: float, width: float) -> int:
    used = 0.0
    for count, character in enumerate(word):
        used += face.width(character) * size
        if used > width:
            return count
    return len(word)


def _open(family: str, *, bold: bool) -> TTFont | None:
    """The file that fontconfig names for a family; None where there is no fontconfig, or no font that can be read."""
    pattern = f"{family}:bold" if bold else family
    command = ["fc-match", "-f", "%{file}\n%{index}", pattern]
    try:
        found = subprocess.run(  # noqa: S603 - no shell, and one argument that fontconfig parses
            command, capture_output=True, text=True, timeout=FIND_TIMEOUT_S, check=True
        )
        file, index = found.stdout.split("\n")
        return TTFont(file, fontNumber=int(index or 0), lazy=True)
    except (OSError, ValueError, subprocess.SubprocessError, TTLibError):
        return None
