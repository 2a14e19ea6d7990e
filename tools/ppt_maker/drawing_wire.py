"""What is asked of the process that draws, and what it answers."""

from pathlib import Path

from pydantic import BaseModel

from .deck import Deck

FILE_MODE = 0o644


class Drawing(BaseModel):
    """What is to be drawn, and where it goes.

    Args:
        template: a team's file, by its path, or by its name in the workspace.
        exact: no page may be added for what is too much.
    """

    deck: Deck
    workspace: Path
    file: str
    template: Path | None = None
    template_file: str = ""
    exact: bool = False
    cache: Path  # a folder that belongs to us, for what is found out about fonts


class Drawn(BaseModel):
    """The deck as it was drawn: pages split, texts cut, and what could not be shown named."""

    deck: Deck
    notices: list[str] = []
