"""Which scripts this machine has fonts for: what has none becomes boxes, in PDFs and in previews.

fontconfig is asked, as browsers and LibreOffice ask it. The packages are those of Debian and Ubuntu.
"""

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

LIST_TIMEOUT_S = 20.0

SCRIPTS = {  # a character of it, and the package that has its fonts
    "Latin": ("ä", "fonts-noto-core"),
    "Greek": ("λ", "fonts-noto-core"),
    "Cyrillic": ("ж", "fonts-noto-core"),
    "Arabic": ("ع", "fonts-noto-core"),
    "Hebrew": ("א", "fonts-noto-core"),
    "Devanagari": ("ह", "fonts-noto-core"),
    "Thai": ("ก", "fonts-noto-core"),
    "Korean": ("한", "fonts-noto-cjk"),
    "Japanese": ("の", "fonts-noto-cjk"),
    "Chinese": ("语", "fonts-noto-cjk"),
    "emoji": ("😀", "fonts-noto-color-emoji"),
}
FAMILIES = {  # that the themes are drawn and measured with
    "Carlito": "fonts-crosextra-carlito",
    "Caladea": "fonts-crosextra-caladea",
    "Liberation Sans": "fonts-liberation",
    "Liberation Mono": "fonts-liberation",
}


@dataclass(frozen=True, slots=True)
class Fonts:
    covered: tuple[str, ...] = ()  # scripts
    missing: tuple[str, ...] = ()  # scripts and families
    packages: tuple[str, ...] = ()  # that would bring them


async def find_fonts() -> Fonts:
    try:
        listing = await _list_fonts()
    except OSError:  # there is no fontconfig
        return Fonts(missing=(*SCRIPTS, *FAMILIES), packages=("fontconfig", *_packages(SCRIPTS, FAMILIES)))
    return await asyncio.to_thread(read_listing, listing)


def read_listing(listing: str) -> Fonts:
    """From lines of families, a tab and a set of characters: hexadecimal numbers and ranges of them."""
    fonts = [(families.split(","), _ranges(charset)) for families, charset in _lines(listing)]
    families = {family for names, _ in fonts for family in names}
    covered = [name for name, (mark, _) in SCRIPTS.items() if any(_has(ranges, ord(mark)) for _, ranges in fonts)]
    scripts = [name for name in SCRIPTS if name not in covered]
    absent = [family for family in FAMILIES if family not in families]
    return Fonts(tuple(covered), (*scripts, *absent), _packages(scripts, absent))


def _packages(scripts: Iterable[str], families: Iterable[str]) -> tuple[str, ...]:
    packages = [SCRIPTS[name][1] for name in scripts] + [FAMILIES[name] for name in families]
    return tuple(dict.fromkeys(packages))


def _lines(listing: str) -> Iterator[tuple[str, str]]:
    for line in listing.splitlines():
        families, tab, charset = line.partition("\t")
        if tab:
            yield families, charset


def _ranges(charset: str) -> list[tuple[int, int]]:
    ranges = (word.partition("-") for word in charset.split())
    return [(int(first, 16), int(last or first, 16)) for first, _, last in ranges]


def _has(ranges: list[tuple[int, int]], code: int) -> bool:
    return any(first <= code <= last for first, last in ranges)


async def _list_fonts() -> str:
    """Raises: OSError"""
    process = await asyncio.create_subprocess_exec(
        *("fc-list", "--format", "%{family}\t%{charset}\n"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(LIST_TIMEOUT_S):
            output, _ = await process.communicate()
    except TimeoutError as error:
        raise OSError("fontconfig does not answer") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return output.decode(errors="replace")
