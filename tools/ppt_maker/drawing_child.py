"""Runs on its own: draws a deck, as `backend.utils.children` has it. Fonts, pictures and templates come from strangers.

a `Drawing` -> {"page", "pages"}* ({"deck", "notices"} | {"failed"})
"""

import json
import logging
import resource
import sys
from pathlib import Path

MEMORY_BYTES = 2 * 2**30
CPU_S = 60
FILE_BYTES = 100 * 2**20


def main() -> None:
    from tools.ppt_maker.drawing import draw
    from tools.ppt_maker.drawing_wire import Drawing
    from tools.ppt_maker.pptx_stage import TemplateUnusable

    drawing = Drawing.model_validate_json(sys.stdin.buffer.read())
    try:
        drawn = draw(drawing, lambda page, pages: _say({"page": page, "pages": pages}))
        _say(drawn.model_dump(mode="json", exclude_defaults=True))
    except TemplateUnusable as unusable:
        _say({"failed": str(unusable)})


def _say(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    logging.disable()
    sys.path.insert(0, str(Path(__file__).parents[2]))
    limits = ((resource.RLIMIT_AS, MEMORY_BYTES), (resource.RLIMIT_CPU, CPU_S), (resource.RLIMIT_FSIZE, FILE_BYTES))
    for limit, most in limits:
        resource.setrlimit(limit, (most, most))
    main()
