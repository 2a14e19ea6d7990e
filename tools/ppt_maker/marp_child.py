"""Runs on its own: writes a deck as Markdown, as `backend.utils.children` has it. It measures text and reads pictures.

{deck, workspace, file} -> {"bytes"}
"""

import json
import logging
import resource
import sys
from pathlib import Path

MEMORY_BYTES = 2 * 2**30
CPU_S = 60
FILE_BYTES = 200 * 2**20
FILE_MODE = 0o644


def main() -> None:
    from backend.utils.atomic_files import write_atomically
    from backend.utils.clean_text import clean_text
    from backend.utils.paths import UnsafePath
    from tools.ppt_maker.deck import Deck
    from tools.ppt_maker.drawing import read_picture
    from tools.ppt_maker.marp_markdown import write_markdown
    from tools.ppt_maker.themes import find_theme

    order = json.load(sys.stdin)
    deck, workspace = Deck.model_validate(order["deck"]), Path(order["workspace"])
    pictures: dict[str, bytes] = {}
    for slide in deck.slides:
        if slide.layout == "picture" and slide.picture and slide.picture.file not in pictures:
            try:
                pictures[slide.picture.file] = read_picture(workspace, slide.picture.file)
            except (UnsafePath, OSError, ValueError):  # whoever draws the PPTX says so
                continue
    content = clean_text(write_markdown(deck, find_theme(deck.theme), pictures)).encode()
    write_atomically(workspace / order["file"], content, mode=FILE_MODE)
    sys.stdout.write(json.dumps({"bytes": len(content)}))


if __name__ == "__main__":
    logging.disable()
    sys.path.insert(0, str(Path(__file__).parents[2]))
    limits = ((resource.RLIMIT_AS, MEMORY_BYTES), (resource.RLIMIT_CPU, CPU_S), (resource.RLIMIT_FSIZE, FILE_BYTES))
    for limit, most in limits:
        resource.setrlimit(limit, (most, most))
    main()
