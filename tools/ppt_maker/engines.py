"""What can make a PDF of a deck on this machine: Marp (Node and a browser) and LibreOffice, both behind walls.

python -m tools.ppt_maker.engines      names the Debian packages that are missing, a line each
"""

import asyncio
import logging
import re
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.node_programs import LIBRARY, NotInstalled, Program, find_node, find_script
from tools.sandbox.programs import Command, NoWalls, run_program, work_folder
from tools.sandbox.walls import Limits

from .fonts import Fonts, find_fonts

log = logging.getLogger(__name__)

OLDEST_NODE = 20
HOW_TO_ENABLE = "Run `bash start_servers.sh --with-slides` once."
TRIAL_TIMEOUT_S = 30.0
_PATHS = re.compile(r"/[^\s'\":,]+")
TRIAL_LIMITS = Limits(memory_mb=1024, processes=256, disk_mb=16)


@dataclass(frozen=True, slots=True)
class Places:
    """Where the parts are looked for, in this order."""

    marp: Path = LIBRARY / "marp" / "node_modules" / "@marp-team" / "marp-cli"
    # The programs themselves: the scripts that Debian puts before them read files that the sandbox does not show.
    browsers: tuple[str, ...] = (
        "/usr/lib/chromium/chromium",
        "/usr/lib/chromium-browser/chromium-browser",
        "/usr/lib64/chromium-browser/chromium-browser",
        "/opt/google/chrome/chrome",
        "/opt/chromium.org/chromium/chrome",
    )
    offices: tuple[str, ...] = (
        "/usr/lib/libreoffice/program/soffice.bin",
        "/usr/lib64/libreoffice/program/soffice.bin",
        "/opt/libreoffice*/program/soffice.bin",
    )


@dataclass(frozen=True, slots=True)
class Marp:
    node: Program
    script: Program
    browser: Program

    @property
    def visible(self) -> tuple[str, ...]:
        return (str(self.script.path.parents[2]), str(self.node.path.parent), str(self.browser.path.parent))


@dataclass(frozen=True, slots=True)
class Office:
    program: Program

    @property
    def visible(self) -> tuple[str, ...]:
        return (str(self.program.path.parents[1]), "/etc/libreoffice")


@dataclass(frozen=True, slots=True)
class Engines:
    marp: Marp | None = None
    office: Office | None = None
    reasons: dict[str, str] = field(default_factory=dict)  # engine -> why it is not there
    fonts: Fonts = field(default_factory=Fonts)

    def details(self) -> dict[str, Any]:
        """For the tool's status: what makes PDFs here, and what is missing."""
        found: dict[str, Any] = {"pdf": [name for name in ("marp", "libreoffice") if name not in self.reasons]}
        if self.marp:
            parts = {"marp": self.marp.script, "node": self.marp.node, "browser": self.marp.browser}
            found |= {name: part.version for name, part in parts.items()}
        if self.office:
            found["libreoffice"] = self.office.program.version
        if self.reasons:
            found["pdf_missing"] = self.reasons
        if not self.marp:
            found["how_to_make_pdf"] = HOW_TO_ENABLE
        found["scripts"] = list(self.fonts.covered)
        if self.fonts.missing:
            found["fonts_missing"] = list(self.fonts.missing)
            found["font_packages"] = list(self.fonts.packages)
        return found


async def find_engines(base: Path, places: Places | None = None, *, hidden: tuple[str, ...] = ()) -> Engines:
    """Look for the engines, and try that their programs start behind the walls. `base`: for folders to work in."""
    places = places or Places()
    reasons: dict[str, str] = {}
    marp, office = None, None
    fonts = await find_fonts()
    try:
        marp = await _find_marp(places, base, hidden)
    except (NotInstalled, NoWalls, OSError) as error:
        reasons["marp"] = _explain("Marp", error)
    try:
        office = await _find_office(places, base, hidden)
    except (NotInstalled, NoWalls, OSError) as error:
        reasons["libreoffice"] = _explain("LibreOffice", error)
    for name, reason in reasons.items():
        log.info("ppt_maker: no PDFs by %s: %s", name, reason)
    return Engines(marp, office, reasons, fonts)


async def _find_marp(places: Places, base: Path, hidden: tuple[str, ...]) -> Marp:
    node = await asyncio.to_thread(find_node, OLDEST_NODE)
    script = await asyncio.to_thread(find_script, places.marp, "marp-cli.js", "Marp")
    browser = await asyncio.to_thread(_find_first, places.browsers)
    if browser is None:
        raise NotInstalled("Chromium is not installed here.")
    version = await _ask_version(browser, (str(browser.parent),), base, hidden)
    return Marp(node, script, Program(browser, version))


async def _find_office(places: Places, base: Path, hidden: tuple[str, ...]) -> Office:
    program = await asyncio.to_thread(_find_first, places.offices)
    if program is None:
        raise NotInstalled("LibreOffice is not installed here.")
    found = Office(Program(program, ""))
    return Office(Program(program, await _ask_version(program, found.visible, base, hidden)))


async def _ask_version(program: Path, visible: tuple[str, ...], base: Path, hidden: tuple[str, ...]) -> str:
    """Raises: NotInstalled, NoWalls"""
    async with work_folder(base) as folder:
        command = Command(
            (str(program), "--version"),
            folder,
            TRIAL_LIMITS,
            TRIAL_TIMEOUT_S,
            env={"HOME": "/tmp", "LANG": "C.UTF-8"},  # noqa: S108 (in there it is nobody else's)
            visible=visible,
            hidden=hidden,
        )
        ending = await run_program(command)
    words = [word for word in ending.output.split() if word[:1].isdigit()]
    if ending.exit_code or not words:
        raise NotInstalled(
            f"{program.name} does not start here: {ending.stopped or _PATHS.sub('…', ending.output[-200:])}"
        )
    return words[0]


def _explain(name: str, error: NotInstalled | NoWalls | OSError) -> str:
    """Everybody may read it: without paths."""
    if isinstance(error, NotInstalled):
        return str(error)
    reason = error.strerror if isinstance(error, OSError) else _PATHS.sub("…", str(error))
    return f"{name} cannot be shut in on this machine ({reason})."


def _find_first(paths: tuple[str, ...]) -> Path | None:
    found = (path for pattern in paths for path in sorted(Path("/").glob(pattern.lstrip("/"))) if path.is_file())
    return next(found, None)


def main() -> None:
    """For the start script."""
    fonts = asyncio.run(find_fonts())
    packages = list(fonts.packages)
    if _find_first(Places().browsers) is None:
        packages.insert(0, "chromium")
    if shutil.which("fc-match") is None and "fontconfig" not in packages:
        packages.append("fontconfig")
    sys.stdout.write("".join(f"{package}\n" for package in packages))


if __name__ == "__main__":
    main()
