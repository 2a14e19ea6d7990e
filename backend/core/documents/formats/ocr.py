"""Text in pictures, by tesseract, where that is installed."""

import functools
import io
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from backend.core.documents.formats.source import Unreadable

if TYPE_CHECKING:
    from PIL import Image

TIMEOUT_S = 30
MAX_LANGUAGES = 4


@functools.cache
def find_program() -> str | None:
    return shutil.which("tesseract")


def recognise(picture: "Image.Image") -> str:
    """
    Raises:
        Unreadable: it took too long, or broke.
    """
    file = io.BytesIO()
    picture.save(file, "PPM")
    try:
        return _run("stdin", "stdout", "-l", _languages(), given=file.getvalue())
    except (subprocess.SubprocessError, OSError):
        raise Unreadable("Its text could not be recognised.") from None


@functools.cache
def _languages() -> str:
    """All that are installed, in tesseract's spelling."""
    names = [name for name in _run("--list-langs").splitlines()[1:] if name != "osd"]
    return "+".join(sorted(names, key=lambda name: name != "eng")[:MAX_LANGUAGES]) or "eng"


def _run(*arguments: str, given: bytes = b"") -> str:
    program = find_program()
    assert program
    environment = {**os.environ, "OMP_THREAD_LIMIT": "1"}
    done = subprocess.run(  # noqa: S603  the program is the server's own, and no argument comes from outside
        (program, *arguments), input=given, capture_output=True, timeout=TIMEOUT_S, check=True, env=environment
    )
    return done.stdout.decode("utf-8", "replace")
