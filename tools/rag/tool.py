"""The `rag` tool: what the user's documents say, and on which page."""

import asyncio
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from backend.core.contracts import ToolContext, ToolFailure, ToolResult, ToolSpec, ToolStatus
from backend.core.documents.reading import DocumentReaders
from backend.core.documents.records import Passage, shown_model
from backend.core.errors import NotFound
from backend.core.prompts import load_prompt
from backend.core.untrusted import shorten
from config import Settings
from tools.cited_answers import Source, answer_from, list_all

from .args import RagArgs
from .collections import DEFAULT, Collections
from .embedder import Embedder, ModelMissing
from .reranker import Reranker

NAME = "rag"
DEFAULT_RESULTS = 5
NEIGHBOURS = 1  # chunks before and behind a passage that are read with it
ANSWER_SHARE = 0.9  # of the call's time: then the passages are returned without an answer
MAX_LISTED = 2_000  # characters
NOTHING = "Nothing in the collection {names} has to do with this. Ask in other words, or say that it does not tell."


class Rag:
    """`collections` and `embedder` are also what the routes for documents and embeddings work with."""

    def __init__(self, settings: Settings) -> None:
        self.spec = ToolSpec(
            name=NAME,
            description=load_prompt("tools/rag").text,
            args=RagArgs,
            timeout_s=settings.DEFAULT_TOOL_TIMEOUT,
            concurrency=16,
            queue=64,
        )
        self.embedder = Embedder(settings.RAG_EMBEDDING_MODEL)
        self._reranker = Reranker(settings.RAG_RERANK_MODEL) if settings.RAG_RERANK_MODEL else None
        self.collections = Collections(settings, self.embedder, DocumentReaders(), self._reranker)
        self._settings = settings
        self._answer_prompt = load_prompt("tools/rag_answer").text
        self._missing = ""  # what keeps the embedding model from being used

    async def start(self) -> None:
        await self.collections.start()
        try:
            await self.embedder.start()
        except ModelMissing as error:
            self._missing = str(error)
            return
        if self._reranker:
            await self._reranker.start()

    async def close(self) -> None:
        await self.collections.close()
        await self.embedder.close()
        if self._reranker:
            await self._reranker.close()

    def status(self) -> ToolStatus:
        model = shown_model(self._settings.RAG_EMBEDDING_MODEL)
        if self._missing:
            return ToolStatus(False, f"The embedding model {model} cannot be used.", self._missing)
        details = {"embedding_model": model, "index": self._settings.RAG_INDEX_TYPE}
        if self._reranker:
            details["rerank_model"] = shown_model(self._settings.RAG_RERANK_MODEL)
            details["reranking"] = self._reranker.state
        return ToolStatus(True, details=details)

    async def run(self, args: RagArgs, context: ToolContext) -> ToolResult:
        until = asyncio.get_running_loop().time() + self._settings.DEFAULT_TOOL_TIMEOUT * ANSWER_SHARE
        refs = _collections_of(args, context)
        await context.progress(f"Searching {', '.join(refs)}", {})
        passages = await self._search(args, refs, context)
        data: dict[str, Any] = {
            "collections": refs,
            "sources": [_describe(number, passage) for number, passage in enumerate(passages, 1)],
        }
        if not passages:
            return ToolResult(True, NOTHING.format(names=" and ".join(refs)), data)
        await context.progress(f"Found {len(passages)} passages", {"sources": data["sources"]})
        sources = [_as_source(passage) for passage in passages]
        if args.raw:
            return ToolResult(True, list_all(sources), data)
        within_s = max(0.0, until - asyncio.get_running_loop().time())
        return await answer_from(sources, args.query, self._answer_prompt, data, context, tool=NAME, within_s=within_s)

    async def _search(self, args: RagArgs, refs: Sequence[str], context: ToolContext) -> list[Passage]:
        """
        Raises:
            ToolFailure: the model can do something about it.
        """
        try:
            return await self.collections.search(
                context.username,
                refs,
                args.query,
                limit=args.max_results or DEFAULT_RESULTS,
                documents=args.documents or None,
                around=0 if args.raw else NEIGHBOURS,
            )
        except NotFound:
            known = [one.name for one in await self.collections.list_all(context.username)]
            listed = shorten(", ".join(known), MAX_LISTED) or "none yet"
            wanted = " or ".join(map(repr, refs))
            raise ToolFailure(f"There is no collection {wanted}. The user's collections: {listed}.") from None


def _collections_of(args: RagArgs, context: ToolContext) -> list[str]:
    """What the request names, each in a line, binds the model, which may otherwise choose among the user's."""
    named = [part.strip() for part in (context.rag_collection or "").splitlines()]
    return list(dict.fromkeys(filter(None, named))) or [args.collection or DEFAULT]


def _describe(number: int, passage: Passage) -> dict[str, Any]:
    return {
        "number": number,
        "id": passage.document_id,
        "document": passage.document,
        "page": passage.page,
        "last_page": passage.last_page,
        "section": passage.section,
        "score": round(passage.score, 4),
        "similarity": round(passage.similarity, 4),
        "text": passage.text,
        "title": _place(passage),
        "url": document_url(passage.collection_id, passage.document_id, passage.page),
        "collection_id": passage.collection_id,
        "also_in": list(passage.also_in),
    }


def document_url(collection_id: str, document_id: str, page: int | None = None) -> str:
    """Where the main API has the document itself; a browser opens a PDF at the page."""
    place = f"#page={page}" if page else ""
    return f"/api/documents/{quote(collection_id)}/{quote(document_id)}{place}"


def _as_source(passage: Passage) -> Source:
    heading = f"{_place(passage)}\n{passage.section}".strip()
    return Source(_place(passage), heading, passage.context)


def _place(passage: Passage) -> str:
    if passage.page is None:
        return passage.document
    if passage.last_page and passage.last_page != passage.page:
        return f"{passage.document}, pages {passage.page} to {passage.last_page}"
    return f"{passage.document}, page {passage.page}"
