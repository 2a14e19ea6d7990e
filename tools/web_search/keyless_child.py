"""Runs on its own: searches through public search engines, as `backend.utils.children` has it.

{"query", "max_results", "topic", "time_range", "timeout_s"} -> {"results": [...]} | {"failed": kind, "message"}
"""

import json
import logging
import sys
from typing import Any


def search(asked: dict[str, Any]) -> dict[str, Any]:
    from ddgs import DDGS
    from ddgs.exceptions import DDGSException, RatelimitException, TimeoutException

    engine = DDGS(timeout=asked["timeout_s"])
    find = engine.news if asked["topic"] == "news" else engine.text
    limit = asked["time_range"][:1] if asked["time_range"] else None  # d, w, m, y
    try:
        found = find(asked["query"], max_results=asked["max_results"], timelimit=limit)
    except RatelimitException:
        return {"failed": "rate", "message": "The public search engines were asked too often in a short time."}
    except TimeoutException:
        return {"failed": "network", "message": "The public search engines did not answer in time."}
    except DDGSException as error:
        if "No results" in str(error):
            return {"results": []}
        return {"failed": "network", "message": "The public search engines cannot be reached, or refuse to answer."}
    return {
        "results": [
            {
                "title": item.get("title"),
                "url": item.get("href") or item.get("url") or "",
                "snippet": item.get("body"),
                "published": item.get("date"),
            }
            for item in found
        ]
    }


if __name__ == "__main__":
    logging.disable()  # it would write queries
    json.dump(search(json.load(sys.stdin)), sys.stdout)
