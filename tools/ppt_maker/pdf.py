"""A deck as PDF, and pictures of its pages: made behind walls, in a folder that is gone when they are there.

    deck -> Markdown (kept) -> Marp: Node and a browser -> PDF        the look of the theme, the same as the PPTX's
    PPTX ------------------> LibreOffice ---------------> PDF         where there is no Marp, or a team's own template
    PDF -> pypdfium2 -> one PNG a page

Without an engine there is no PDF, and the reason says how to have one. Files go into the session's folder under names
that the caller has chosen. Cancelling ends every process at once.
"""

import asyncio
import contextlib
import json
import logging
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from backend.utils.atomic_files import write_atomically
from backend.utils.children import ChildFailed, Children
from backend.utils.paths import open_beneath, remove_tree
from config import Settings
from tools.sandbox.programs import Command, Ending, NoWalls, run_program, work_folder
from tools.sandbox.walls import Limits

from .deck import Deck
from .engines import HOW_TO_ENABLE, Engines, Places, find_engines
from .marp_css import BASE_THEME

log = logging.getLogger(__name__)

AT_ONCE = 2  # PDFs; a browser takes some 400 MiB and a core
MARKDOWN_TIMEOUT_S = 60.0
ENGINE_TIMEOUT_S = 75.0
PDF_TIMEOUT_S = 180.0
PREVIEW_TIMEOUT_S = 60.0
MAX_MARKDOWN = 150 << 20  # with its pictures
MAX_PDF = 100 << 20
PREVIEW_WIDTH = 1280  # pixels
MAX_PREVIEWS = 60
MAX_PREVIEW = 4 << 20
FILE_MODE = 0o644
_CHILD = Path(__file__).with_name("marp_child.py")
_ROOT = Path(__file__).parents[2]
_ENGINE_LIMITS = Limits(memory_mb=2048, processes=400, disk_mb=MAX_PDF >> 20, tmp_mb=512, open_files=4096, cpu_s=300)
_PREVIEW_LIMITS = Limits(memory_mb=1024, processes=32, disk_mb=MAX_PREVIEW >> 20)
_MARP_OPTIONS = {
    "html": False,
    "themeSet": ["theme.css"],
    "options": {
        "html": False,
        "math": "mathjax",
        "emoji": {"unicode": False, "shortcode": False},  # as text: pictures of them would come from the network
        "markdown": {"linkify": False},
    },
}
# LibreOffice ends with 81 once it has made its profile, and wants to be started again.
_AGAIN_AFTER_81 = '"$0" "$@" || { [ $? = 81 ] && exec "$0" "$@"; }'
_DRAW_PAGES = f"""
import sys
import pypdfium2
pdf = pypdfium2.PdfDocument("slides.pdf")
for number in range(min(len(pdf), {MAX_PREVIEWS})):
    page = pdf[number]
    scale = {PREVIEW_WIDTH} / max(page.get_size())
    page.render(scale=scale).to_pil().convert("RGB").save(f"{{number + 1}}.png", compress_level=6)
"""


class NotMade(Exception):
    """An engine did not do it: the reason."""


@dataclass(frozen=True, slots=True)
class Pdf:
    """What came of it. Without an engine there is no PDF, and the reason says why and what to do."""

    engine: str  # "marp", "libreoffice" or ""
    files: tuple[str, ...]  # names in the session's folder: the Markdown, the PDF
    markdown: str  # without its pictures and its style sheet
    reason: str = ""


class Press:
    """Prints decks. Made once; `start` finds out what there is to print with."""

    def __init__(self, settings: Settings, places: Places | None = None) -> None:
        data = settings.DATA_DIR.absolute()
        self._base = data / "slides"
        self._hidden: tuple[str, ...] = (str(data),)
        self._places = places
        self._children = Children(AT_ONCE)
        self._free = asyncio.Semaphore(AT_ONCE)
        self.engines = Engines()

    async def start(self) -> None:
        """Never raises for what is missing: `engines` tells."""
        with contextlib.suppress(OSError):
            await asyncio.to_thread(remove_tree, self._base)  # what a server that was killed has left
        self._hidden = (*self._hidden, str(await asyncio.to_thread(Path.cwd) / ".env"))
        self.engines = await find_engines(self._base, self._places, hidden=self._hidden)

    async def make_pdf(
        self, deck: Deck, workspace: Path, name: str, *, is_template: bool = False, timeout_s: float = PDF_TIMEOUT_S
    ) -> Pdf:
        """Make `name`.md and `name`.pdf from a deck whose `name`.pptx is in the workspace already.

        Args:
            is_template: the PPTX looks like a team's template, which Marp cannot.
            timeout_s: for all of it, and all engines together.
        """
        draft = Pdf("", (), "")
        try:
            async with asyncio.timeout(timeout_s), self._free:
                await asyncio.to_thread(_remove_earlier, workspace, name)
                draft = await self._write_markdown(deck, workspace, f"{name}.md")
                return await self._try_engines(draft, workspace, name, is_template=is_template)
        except TimeoutError:
            return replace(draft, reason="There is no PDF: the time for this call was over. Ask for fewer slides.")

    async def make_previews(self, workspace: Path, name: str, *, timeout_s: float = PREVIEW_TIMEOUT_S) -> list[str]:
        """Make a PNG of each page of `name`.pdf: their names, none where it cannot be done here, or not in time."""
        try:
            async with asyncio.timeout(timeout_s), self._free, work_folder(self._base) as folder:
                await _copy(workspace, f"{name}.pdf", folder / "slides.pdf", MAX_PDF)
                argv = (sys.executable, "-I", "-c", _DRAW_PAGES)
                ending = await self._run(argv, folder, _PREVIEW_LIMITS, PREVIEW_TIMEOUT_S, (), {})
                if ending.stopped or ending.exit_code:
                    raise NotMade(ending.stopped or ending.output[-300:])
                return await asyncio.to_thread(_take_previews, folder, workspace, name)
        except (NotMade, NoWalls, OSError) as error:  # TimeoutError is one of the last
            log.warning("ppt_maker: no pictures of the pages: %s", error or "no time was left")
            return []

    async def _try_engines(self, draft: Pdf, workspace: Path, name: str, *, is_template: bool) -> Pdf:
        """One after the other: what was made, or why nothing was."""
        ways = {"marp": self._by_marp, "libreoffice": self._by_office}
        reasons = [draft.reason] if draft.reason else []
        if draft.reason:
            del ways["marp"]
        for engine in reversed(ways) if is_template else ways:
            if missing := self.engines.reasons.get(engine):
                reasons.append(missing)
                continue
            try:
                content = await ways[engine](workspace, name)
                await asyncio.to_thread(write_atomically, workspace / f"{name}.pdf", content, mode=FILE_MODE)
            except (NotMade, NoWalls, OSError) as error:
                log.warning("ppt_maker: no PDF by %s: %s", engine, error)
                reasons.append(f"{engine} failed.")
                continue
            return replace(draft, engine=engine, files=(*draft.files, f"{name}.pdf"), reason="")
        return replace(draft, reason=f"There is no PDF. {' '.join(reasons)} {HOW_TO_ENABLE}")

    async def _write_markdown(self, deck: Deck, workspace: Path, file: str) -> Pdf:
        order = {"deck": deck.model_dump(mode="json"), "workspace": str(workspace), "file": file}
        try:
            await self._children.run(_CHILD, order, timeout_s=MARKDOWN_TIMEOUT_S)
            content = await asyncio.to_thread(_read, workspace, file, MAX_MARKDOWN)
        except (ChildFailed, OSError) as error:
            log.warning("ppt_maker: no Markdown: %s", error)
            return Pdf("", (), "", "The Markdown for Marp could not be written.")
        return Pdf("", (file,), _without_attachments(content.decode(errors="replace")))

    async def _by_marp(self, workspace: Path, name: str) -> bytes:
        """Raises: NotMade, NoWalls, OSError"""
        marp = self.engines.marp
        assert marp
        async with work_folder(self._base) as folder:
            await _copy(workspace, f"{name}.md", folder / "slides.md", MAX_MARKDOWN)
            await asyncio.to_thread(_put, folder / "theme.css", BASE_THEME.encode())
            await asyncio.to_thread(_put, folder / "marp.json", json.dumps(_MARP_OPTIONS).encode())
            options = ("--config-file", "marp.json", "--no-stdin", "--pdf", "--browser", "chrome")
            timeout = ("--browser-timeout", f"{ENGINE_TIMEOUT_S:g}")
            argv = (str(marp.node.path), str(marp.script.path), *options, *timeout, "slides.md", "-o", "slides.pdf")
            env = {"CHROME_PATH": str(marp.browser.path), "CHROME_NO_SANDBOX": "1"}  # the walls are ours
            return await self._print(argv, folder, marp.visible, env)

    async def _by_office(self, workspace: Path, name: str) -> bytes:
        """Raises: NotMade, NoWalls, OSError"""
        office = self.engines.office
        assert office
        async with work_folder(self._base) as folder:
            await _copy(workspace, f"{name}.pptx", folder / "slides.pptx", MAX_PDF)
            profile = "-env:UserInstallation=file:///tmp/office"
            options = ("--headless", "--norestore", "--nologo", profile, "--convert-to", "pdf", "slides.pptx")
            argv = ("/bin/sh", "-c", _AGAIN_AFTER_81, str(office.program.path), *options)
            return await self._print(argv, folder, office.visible, {})

    async def _print(self, argv: tuple[str, ...], folder: Path, visible: tuple[str, ...], env: dict[str, str]) -> bytes:
        ending = await self._run(argv, folder, _ENGINE_LIMITS, ENGINE_TIMEOUT_S, visible, env)
        if ending.stopped or ending.exit_code:
            raise NotMade(ending.stopped or ending.output[-300:] or f"it ended with {ending.exit_code}")
        content = await asyncio.to_thread(_read, folder, "slides.pdf", MAX_PDF)
        if not content.startswith(b"%PDF-"):
            raise NotMade("it made no PDF")
        return content

    async def _run(
        self,
        argv: tuple[str, ...],
        folder: Path,
        limits: Limits,
        timeout_s: float,
        visible: tuple[str, ...],
        env: dict[str, str],
    ) -> Ending:
        base = {"HOME": "/tmp", "TMPDIR": "/tmp", "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}  # noqa: S108
        command = Command(argv, folder, limits, timeout_s, env=base | env, visible=visible, hidden=self._hidden)
        return await run_program(command)


def _without_attachments(markdown: str) -> str:
    """What a person reads of it: without the definitions of pictures, and the style sheet, at its end."""
    for mark in ("\n[picture-1]: data:", "\n<style>\n"):
        markdown = markdown.rpartition(mark)[0] or markdown
    return markdown.strip() + "\n"


def _read(folder: Path, name: str, most: int) -> bytes:
    """Raises: OSError"""
    with open_beneath(folder, name) as file:
        content = bytearray()
        while data := file.read(1 << 20):
            content += data
            if len(content) > most:
                raise OSError(f"{name} is larger than {most >> 20} MiB")
        return bytes(content)


async def _copy(workspace: Path, name: str, target: Path, most: int) -> None:
    content = await asyncio.to_thread(_read, workspace, name, most)
    await asyncio.to_thread(_put, target, content)


def _put(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(FILE_MODE)  # for whom the program runs as, however careful the server is


def _remove_earlier(workspace: Path, name: str) -> None:
    """What a changed deck had before it was changed, and may not have now. Blocks."""
    for file in (f"{name}.pdf", *(_preview(name, number) for number in range(1, MAX_PREVIEWS + 1))):
        with contextlib.suppress(OSError):  # not there, most often
            (workspace / file).unlink()


def _preview(name: str, number: int) -> str:
    return f"{name}-{number:02}.png"


def _take_previews(folder: Path, workspace: Path, name: str) -> list[str]:
    """Move the pictures over, by the numbers of their pages. Blocks."""
    names: list[str] = []
    for number in range(1, MAX_PREVIEWS + 1):
        if not (folder / f"{number}.png").exists():
            break
        names.append(_preview(name, number))
        write_atomically(workspace / names[-1], _read(folder, f"{number}.png", MAX_PREVIEW), mode=FILE_MODE)
    return names
