"""Public search engines without a key, through `ddgs`. They owe us nothing: they may be slow, or refuse to answer."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

from backend.utils.children import ChildFailed, Children

from .search import SearchFailed, SearchRequest, SearchResult, make_result, pick

ENGINE_TIMEOUT_S = 4  # for one engine; several are asked one after the other
TIMEOUT_S = 12.0
CHILD = Path(__file__).with_name("keyless_child.py")


class _Item(BaseModel):
    url: str
    title: str | None = None
    snippet: str | None = None
    published: str | None = None


class _Answer(BaseModel):
    results: list[_Item] = []
    failed: Literal["rate", "network"] | None = None
    message: str = ""


class Keyless:
    name = "ddgs"

    def __init__(self, children: Children) -> None:
        self._children = children

    async def search(self, request: SearchRequest) -> list[SearchResult]:
        asked = {
            "query": request.query_with_domains,
            "max_results": request.max_results,
            "topic": request.topic,
            "time_range": request.time_range,
            "timeout_s": ENGINE_TIMEOUT_S,
        }
        try:
            answer = _Answer.model_validate(await self._children.run(CHILD, asked, timeout_s=TIMEOUT_S))
        except (ChildFailed, ValidationError):
            raise SearchFailed("network", "The public search engines did not answer in time.") from None
        if answer.failed:
            raise SearchFailed(answer.failed, answer.message)
        results = [
            make_result(title=item.title, url=item.url, snippet=item.snippet, published=item.published)
            for item in answer.results
        ]
        return pick(results, request)

    async def close(self) -> None:
        """Nothing is kept open."""
