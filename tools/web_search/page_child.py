"""Runs on its own: turns the HTML of a page, which a stranger wrote, into text, as `backend.utils.children` has it.

{"content": bytes as Latin-1, "charset"} -> {"title", "published", "text"}
"""

import json
import logging
import resource
import sys
from typing import Any

MEMORY_BYTES = 2**30
CPU_S = 20


def read(asked: dict[str, Any]) -> dict[str, Any]:
    import trafilatura
    from trafilatura.metadata import extract_metadata

    content = asked["content"].encode("latin-1")
    html = content.decode(asked["charset"], "replace") if asked["charset"] else content
    tree = trafilatura.load_html(html)
    if tree is None:
        return {"title": None, "published": None, "text": ""}
    metadata = extract_metadata(tree)
    text = trafilatura.extract(tree, output_format="markdown", include_comments=False, favor_recall=True)
    return {
        "title": metadata.title,
        "published": metadata.date,
        "text": text or trafilatura.html2txt(tree),  # all of it, where nothing looks like the main part
    }


if __name__ == "__main__":
    logging.disable()
    for limit, most in ((resource.RLIMIT_AS, MEMORY_BYTES), (resource.RLIMIT_CPU, CPU_S), (resource.RLIMIT_FSIZE, 0)):
        resource.setrlimit(limit, (most, most))
    json.dump(read(json.load(sys.stdin)), sys.stdout)
