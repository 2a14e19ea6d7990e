"""Tools with the names and arguments of the real ones that OpenAI has types for; what they bring is made up."""

from typing import Any

from pydantic import BaseModel

from backend.core.contracts import ToolContext, ToolResult, ToolSpec, ToolStatus
from config import Settings


class QueryArgs(BaseModel):
    query: str


class CodeArgs(BaseModel):
    code: str


class _Namesake:
    spec: ToolSpec

    def __init__(self, settings: Settings) -> None:
        """Needs none."""

    async def start(self) -> None:
        """Nothing to prepare."""

    async def close(self) -> None:
        """Nothing to close."""

    def status(self) -> ToolStatus:
        return ToolStatus(True)


class WebSearch(_Namesake):
    spec = ToolSpec("websearch", "Searches the web.", QueryArgs)

    async def run(self, args: QueryArgs, context: ToolContext) -> ToolResult:
        source = {"number": 1, "title": "Bridges", "url": "https://bridges.example.org/"}
        data: dict[str, Any] = {"results": [{**source, "content": "long"}], "sources": [source]}
        return ToolResult(True, f"{args.query}: it is long [1].", data)


class PythonCoder(_Namesake):
    spec = ToolSpec("python_coder", "Runs code.", CodeArgs)

    async def run(self, args: CodeArgs, context: ToolContext) -> ToolResult:
        return ToolResult(True, "42", {"stdout": "42\n", "files": []})


class Rag(_Namesake):
    spec = ToolSpec("rag", "Searches documents.", QueryArgs)

    async def run(self, args: QueryArgs, context: ToolContext) -> ToolResult:
        source = {"number": 1, "document": f"{context.rag_collection}.pdf", "page": 3, "score": 0.9, "text": "25 days"}
        return ToolResult(True, "25 days [1].", {"sources": [source]})
