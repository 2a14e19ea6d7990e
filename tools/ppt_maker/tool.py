"""The `ppt_maker` tool: presentations that can be edited, from an instruction and what the session holds."""

import asyncio
import re
from contextlib import aclosing
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
from pydantic import ValidationError

from backend.core.contracts import ToolContext, ToolFailure, ToolResult, ToolSpec, ToolStatus
from backend.core.prompts import load_prompt
from backend.utils.atomic_files import write_atomically
from backend.utils.children import ChildFailed, Children
from backend.utils.paths import UnsafePath, open_beneath
from config import Settings

from .args import MAX_DECK, PptMakerArgs
from .deck import Deck
from .drawing_wire import FILE_MODE, Drawing, Drawn
from .engines import Places
from .material import Material, read_material
from .model_calls import ModelCalls
from .pdf import Pdf, Press
from .revision import DeckReviser
from .themes import CLEAR, THEMES
from .wishes import count_slides, find_language
from .writing import DEFAULT_PAGES, DeckWriter, Order

NAME = "ppt_maker"
WRITING_SHARE = 0.7  # of the call's time; the rest is for drawing
SPARE_S = 5.0  # of it, for keeping files
DRAWING_TIMEOUT_S = 90.0
PAGE_TIMEOUT_S = 60.0  # the first one brings the fonts
MAX_DRAWN_BYTES = 8 * 2**20  # what the child says, the deck among it
CHILDREN_AT_ONCE = 2
CHILD = Path(__file__).with_name("drawing_child.py")
DECK_ENDING = ".deck.json"
NEEDED = {"pptx": "python-pptx", "fontTools": "fonttools", "PIL": "pillow"}


class PptMaker:
    """
    Args:
        places: where what makes PDFs is looked for; None: where it usually is.
    """

    def __init__(self, settings: Settings, places: Places | None = None) -> None:
        self.spec = ToolSpec(
            name=NAME,
            description=load_prompt("tools/ppt_maker").text,
            args=PptMakerArgs,
            timeout_s=settings.PPT_TIMEOUT,
            concurrency=4,
            queue=16,
        )
        self._timeout_s = settings.PPT_TIMEOUT
        self._template = Path(settings.PPT_TEMPLATE).absolute() if settings.PPT_TEMPLATE else None
        self._cache = settings.DATA_DIR.absolute() / "cache" / "matplotlib"
        self._prompts = {name: load_prompt(f"tools/ppt_maker_{name}") for name in ("outline", "page", "changes")}
        self._children = Children(CHILDREN_AT_ONCE)
        self._press = Press(settings, places)
        self._missing: list[str] = []

    async def start(self) -> None:
        self._missing = [package for name, package in NEEDED.items() if not await asyncio.to_thread(find_spec, name)]
        if self._template and not await asyncio.to_thread(self._template.is_file):
            self._missing.append("PPT_TEMPLATE")
        await asyncio.to_thread(self._cache.mkdir, parents=True, exist_ok=True)
        await self._press.start()

    async def close(self) -> None:
        """Nothing to close: children end with their calls."""

    def status(self) -> ToolStatus:
        if "PPT_TEMPLATE" in self._missing:
            return ToolStatus(False, "There is no file at PPT_TEMPLATE.", "Set PPT_TEMPLATE to a .pptx, or to nothing.")
        if self._missing:
            reason = f"These Python packages are missing: {', '.join(self._missing)}."
            return ToolStatus(False, reason, "pip install -r requirements-tools.txt, and start the tools API again.")
        return ToolStatus(True, details={"themes": list(THEMES), **self._press.engines.details()})

    async def run(self, args: PptMakerArgs, context: ToolContext) -> ToolResult:
        began = _now()
        until = began + self._timeout_s * WRITING_SHARE
        material = await asyncio.to_thread(read_material, context.workspace, args.files, args.sources, args.instruction)
        old = await self._read_deck(args.deck, context.workspace) if args.deck else None
        wanted = args.slides or count_slides(args.instruction)
        order = Order(
            instruction=args.instruction,
            pages=wanted or DEFAULT_PAGES,
            language=old.language if old else find_language(args.instruction),
            material=material,
        )
        calls = ModelCalls(context, NAME, until)
        writer = DeckWriter(calls, self._prompts["outline"], self._prompts["page"], context.progress)
        try:
            deck, notices = await self._write(old, order, calls, writer, context)
        except TimeoutError:
            raise ToolFailure(
                "The model is too slow for a deck. Ask for fewer slides, or use a smaller model."
            ) from None
        deck = deck.model_copy(update={"theme": args.theme or deck.theme or CLEAR.name})
        name = await asyncio.to_thread(_free_name, context.workspace, deck.title, args.deck)
        drawn = await self._draw(deck, name, args, context, exact=bool(wanted) and not old)
        await context.progress("Making the PDF", {"phase": "pdf"})
        is_template = bool(args.template or self._template)
        end = began + self._timeout_s - SPARE_S  # what is there by then is better than nothing at all
        pdf = await self._press.make_pdf(
            drawn.deck, context.workspace, name, is_template=is_template, timeout_s=end - _now()
        )
        left_s = end - _now()
        previews = await self._press.make_previews(context.workspace, name, timeout_s=left_s) if pdf.engine else []
        files = await self._keep(drawn.deck, name, [*pdf.files, *previews], context)
        notices += [*drawn.notices, *([pdf.reason] if pdf.reason else [])]
        return _result(drawn.deck, pdf, files, notices, material, calls)

    async def _write(
        self, old: Deck | None, order: Order, calls: ModelCalls, writer: DeckWriter, context: ToolContext
    ) -> tuple[Deck, list[str]]:
        if old is None:
            written = await writer.write(order)
            return written.deck, written.notices
        reviser = DeckReviser(calls, writer, self._prompts["changes"], context.progress)
        deck, done = await reviser.revise(old, order)
        return deck, [f"Done: {', '.join(done)}."]

    async def _read_deck(self, given: str, workspace: Path) -> Deck:
        """Raises: ToolFailure"""
        try:
            content = given if given.lstrip().startswith("{") else await asyncio.to_thread(_read_file, workspace, given)
            return Deck.model_validate_json(content)
        except (UnsafePath, FileNotFoundError):
            raise ToolFailure(f"There is no deck {given[:200]} in this session: name its {DECK_ENDING} file.") from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "it"
            raise ToolFailure(f"The deck cannot be read: {where}: {first['msg']}.") from None

    async def _draw(self, deck: Deck, name: str, args: PptMakerArgs, context: ToolContext, *, exact: bool) -> Drawn:
        """Raises: ToolFailure"""
        drawing = Drawing(
            deck=deck,
            workspace=context.workspace,
            file=f"{name}.pptx",
            template=self._template,
            template_file=args.template,
            exact=exact,
            cache=self._cache,
        )
        said = self._children.stream(
            CHILD,
            drawing.model_dump(mode="json"),
            timeout_s=DRAWING_TIMEOUT_S,
            value_timeout_s=PAGE_TIMEOUT_S,
            max_bytes=MAX_DRAWN_BYTES,
        )
        try:
            async with aclosing(said):
                async for value in said:
                    if "page" in value:
                        words = f"Drawing slide {value['page']} of {value['pages']}"
                        await context.progress(words, {"phase": "drawing", **value})
                    elif "failed" in value:
                        raise ToolFailure(f"The template cannot be used: {value['failed']}.")
                    else:
                        return Drawn.model_validate(value)
        except ChildFailed as failed:
            raise ToolFailure(f"The slides could not be drawn: {failed}. Ask for fewer, or for less on each.") from None
        raise ToolFailure("The slides could not be drawn. Ask for fewer, or for less on each.")

    async def _keep(self, deck: Deck, name: str, others: list[str], context: ToolContext) -> list[dict[str, Any]]:
        """Write the deck itself beside the PPTX, and list all files."""
        path = context.workspace / f"{name}{DECK_ENDING}"
        content = orjson.dumps(deck.as_data(), option=orjson.OPT_INDENT_2)
        await asyncio.to_thread(write_atomically, path, content, mode=FILE_MODE)
        names = [f"{name}.pptx", path.name, *others]
        return [await asyncio.to_thread(_describe_file, context, file) for file in names]


def _result(
    deck: Deck,
    pdf: Pdf,
    files: list[dict[str, Any]],
    notices: list[str],
    material: Material,
    calls: ModelCalls,
) -> ToolResult:
    pages = [f"{number}. {slide.headline}" for number, slide in enumerate(deck.slides, 1)]
    pictures = [file["name"] for file in files if file["name"].endswith(".png")]
    listed = [f"- {file['name']} ({file['size']} bytes): {file['url']}" for file in files]
    listed = listed[: len(files) - len(pictures)]
    if pictures:
        listed.append(f"- pictures of the pages: {pictures[0]} to {pictures[-1]}")
    parts = [
        f'Made "{deck.title}": {len(deck.slides)} slides, theme {deck.theme}.',
        "\n".join(pages),
        "\n".join(["Files:", *listed]),
        f"To change it, call {NAME} again with deck: {files[1]['name']}",
        *(f"Note: {notice}" for notice in notices),
    ]
    data = {
        "deck": deck.as_data(),
        "markdown": pdf.markdown,
        "pages": len(deck.slides),
        "pdf_engine": pdf.engine,
        "files": files,
        "sources": [
            {"number": number, "title": source.title or f"passage {number}", "url": source.url}
            for number, source in enumerate(material.sources, 1)
        ],
        "notices": notices,
    }
    return ToolResult(True, "\n\n".join(parts), data, {"model": calls.model, "usage": asdict(calls.usage)})


def _now() -> float:
    return asyncio.get_running_loop().time()


def _read_file(workspace: Path, name: str) -> bytes:
    with open_beneath(workspace, name) as file:
        return file.read(MAX_DECK)


def _free_name(workspace: Path, title: str, deck: str) -> str:
    """A name for a deck's files, without an ending, that nothing in the folder has; a changed deck keeps its own."""
    if deck.endswith(DECK_ENDING):
        return Path(deck).name.removesuffix(DECK_ENDING)
    stem = re.sub(r"[^\w]+", "-", title.lower()).strip("-_")[:50].strip("-") or "slides"
    number = 1
    name = stem
    while (workspace / f"{name}.pptx").exists() or (workspace / f"{name}{DECK_ENDING}").exists():
        number += 1
        name = f"{stem}-{number}"
    return name


def _describe_file(context: ToolContext, name: str) -> dict[str, Any]:
    url = f"/api/chat/sessions/{quote(context.session_id, safe='')}/files/{quote(name)}"
    return {"name": name, "size": (context.workspace / name).lstat().st_size, "url": url}
