"""A deck made into a PPTX file, in one go. Blocks; `drawing_child.py` runs it in a process of its own."""

import io
import os
from collections.abc import Callable
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from backend.utils.atomic_files import write_atomically
from backend.utils.paths import UnsafePath, open_beneath

from .deck import Slide
from .drawing_wire import FILE_MODE, Drawing, Drawn
from .fitting import add_to_notes, fit_deck
from .formulas import draw_formula
from .pptx_pages import Material, Painter
from .pptx_stage import TemplateUnusable, own_stage, template_stage
from .themes import find_theme

MAX_PICTURE_BYTES = 30 * 2**20
MAX_PIXELS = 60_000_000
LONGEST_SIDE = 2_400  # pixels; more than a page can show only makes files large


def draw(drawing: Drawing, on_page: Callable[[int, int], None]) -> Drawn:
    """
    Args:
        on_page: is told of each page that is drawn, and of how many.

    Raises:
        TemplateUnusable
    """
    os.environ["MPLCONFIGDIR"] = str(drawing.cache)
    notices: list[str] = []
    stage = own_stage(find_theme(drawing.deck.theme), drawing.deck.language)
    if drawing.template_file:
        stage = template_stage(io.BytesIO(_read(drawing.workspace, drawing.template_file)))
    elif drawing.template:
        stage = template_stage(io.BytesIO(drawing.template.read_bytes()))
    pictures: dict[str, bytes] = {}
    slides = tuple(_with_picture(slide, drawing.workspace, pictures, notices) for slide in drawing.deck.slides)
    deck = fit_deck(drawing.deck.model_copy(update={"slides": slides}), stage.look, exact=drawing.exact)
    painter = Painter(stage, deck, Material(pictures, draw_formula))
    drawn = []
    for number, slide in enumerate(deck.slides, 1):
        on_page(number, len(deck.slides))
        cut = painter.draw(slide)
        if cut:
            notices.append(f"Page {number} holds more text than fits; all of it is in the notes.")
        drawn.append(add_to_notes(slide, cut))
    output = io.BytesIO()
    stage.pptx.core_properties.title = deck.title
    stage.pptx.core_properties.author = deck.author
    stage.pptx.core_properties.language = deck.language
    stage.pptx.save(output)
    write_atomically(drawing.workspace / drawing.file, output.getvalue(), mode=FILE_MODE)
    return Drawn(deck=deck.model_copy(update={"slides": tuple(drawn)}), notices=notices)


def _read(workspace: Path, name: str) -> bytes:
    try:
        with open_beneath(workspace, name) as file:
            return file.read(MAX_PICTURE_BYTES)
    except (UnsafePath, FileNotFoundError):
        raise TemplateUnusable("there is no such file in this session") from None


def _with_picture(slide: Slide, workspace: Path, pictures: dict[str, bytes], notices: list[str]) -> Slide:
    """The page with its picture read, or without it where it cannot be."""
    if slide.layout != "picture" or not slide.picture:
        return slide
    name = slide.picture.file
    try:
        if name not in pictures:
            pictures[name] = read_picture(workspace, name)
        return slide
    except (UnsafePath, OSError, ValueError, Image.DecompressionBombError, UnidentifiedImageError):
        notices.append(f"The picture {name} is missing, or cannot be read.")
        texts = slide.bullets or tuple(filter(None, (slide.picture.caption, slide.picture.alt)))
        return slide.model_copy(update={"layout": "bullets", "bullets": texts})


def read_picture(workspace: Path, name: str) -> bytes:
    """As PNG or JPEG, no larger than a page needs it.

    Raises:
        UnsafePath, OSError, ValueError: it is not there, or no picture.
    """
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    with open_beneath(workspace, name) as file:
        if os.fstat(file.fileno()).st_size > MAX_PICTURE_BYTES:
            raise ValueError("the picture is too large")
        content = file.read()
    with Image.open(io.BytesIO(content)) as image:
        if image.format in {"PNG", "JPEG"} and max(image.size) <= LONGEST_SIDE:
            image.verify()
            return content
        image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
        output = io.BytesIO()
        image.convert("RGBA").save(output, "PNG")
        return output.getvalue()
