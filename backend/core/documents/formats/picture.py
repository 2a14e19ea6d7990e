"""Pictures: what their headers tell; their pixels are looked at only to read text in them."""

import itertools
from collections.abc import Iterator

from PIL import ExifTags, Image, UnidentifiedImageError

from backend.core.documents.document import Block, DocumentInfo, DocumentPart
from backend.core.documents.formats import ocr
from backend.core.documents.formats.source import Source, Unreadable
from backend.core.documents.formats.text import paragraphs

MAX_PIXELS = 100_000_000
ORIENTATIONS = {
    1: "upright",
    2: "mirrored",
    3: "turned by 180°",
    4: "mirrored and turned by 180°",
    5: "mirrored and turned by 270°",
    6: "to be turned by 90° clockwise",
    7: "mirrored and turned by 90°",
    8: "to be turned by 90° counter-clockwise",
}
TOLD = (ExifTags.Base.Make, ExifTags.Base.Model, ExifTags.Base.DateTime, ExifTags.Base.Software)
MAX_VALUE = 100


def read(source: Source) -> Iterator[DocumentPart]:
    yield DocumentInfo(source.name)
    if not ocr.find_program():
        raise Unreadable("It is a picture, and tesseract, which could read text in it, is not installed on the server.")
    with _open(source) as picture:
        for text in paragraphs(ocr.recognise(picture.convert("L")).splitlines()):
            yield Block("paragraph", text)


def describe(source: Source) -> Iterator[str]:
    with _open(source) as picture:
        yield f"A {picture.format} picture of {picture.width:,} x {picture.height:,} pixels, {picture.mode}."
        frames = getattr(picture, "n_frames", 1) if picture.format in {"GIF", "TIFF", "WEBP"} else 1
        if frames > 1:
            yield f"It has {frames:,} frames."
        exif = picture.getexif()
        if orientation := exif.get(ExifTags.Base.Orientation):
            yield f"Orientation (EXIF): {ORIENTATIONS.get(orientation, 'unknown')}"
        for tag in itertools.compress(TOLD, (exif.get(tag) for tag in TOLD)):
            yield f"{tag.name} (EXIF): {str(exif[tag])[:MAX_VALUE]}"


def _open(source: Source) -> Image.Image:
    Image.MAX_IMAGE_PIXELS = None  # the size is looked at here
    try:
        picture = Image.open(source.path)
    except UnidentifiedImageError:
        raise Unreadable("It is a broken picture, or of an unknown format.") from None
    if picture.width * picture.height > MAX_PIXELS:
        raise Unreadable(f"It is a picture of {picture.width:,} x {picture.height:,} pixels, which is too large.")
    return picture
