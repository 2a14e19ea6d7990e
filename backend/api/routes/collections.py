"""Collections of documents, on the tools API: made, shared, filled, searched and removed by their users.

A collection is named by its id or its name. What a user may not read answers like what never was: 404.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response, StreamingResponse

from backend.api.downloads import send_file
from backend.api.tools_deps import AnyCaller, LimitedToolsRoute, Tools
from backend.core.documents.collections import DocumentCollections, DocumentsTool
from backend.core.documents.filters import parse_filter
from backend.core.documents.records import Collection
from backend.core.errors import Forbidden, NotFound, Unavailable
from backend.core.identity import ToolCaller
from backend.core.storage.user_data import rag_folder
from backend.models.collections import (
    CollectionChange,
    CollectionDetails,
    CollectionInfo,
    CollectionList,
    Deleted,
    DocumentChange,
    DocumentInfo,
    DocumentList,
    DocumentText,
    FoundPassage,
    NewCollection,
    SearchRequest,
    SearchResult,
)
from backend.utils.paths import remove_tree

TOOL = "rag"
START_TIMEOUT_S = 60.0

router = APIRouter(prefix="/api/tools/rag", tags=["documents"], route_class=LimitedToolsRoute)


async def find_documents_tool(context: Tools) -> DocumentsTool:
    """
    Raises:
        NotFound: this server has no such tool.
        Unavailable: it is off, or it takes long to start.
    """
    tool = context.toolbox.find(TOOL)
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            await tool.wait_until_usable()
    except TimeoutError:
        raise Unavailable("The documents are still being opened. Try again shortly.", retry_after_s=5) from None
    if not isinstance(tool.tool, DocumentsTool):
        raise NotFound("This server keeps no documents.")
    return tool.tool


async def find_collections(caller: AnyCaller, context: Tools) -> AsyncIterator[DocumentCollections]:
    collections = (await find_documents_tool(context)).collections
    username, began_at = caller.principal.username, time.time()
    try:
        yield collections
    finally:  # what was made for a user who has been deleted meanwhile, nobody else would remove
        if not await context.authenticator.has_user(username):
            own = [one for one in await collections.list_all(username) if one.owner == username]
            if all(one.created_at >= began_at for one in own):  # older ones: of a database that was put back
                await asyncio.to_thread(remove_tree, rag_folder(context.settings.DATA_DIR, username))


Collections = Annotated[DocumentCollections, Depends(find_collections, scope="function")]  # until the answer begins


@router.get("/collections")
async def list_collections(caller: AnyCaller, collections: Collections) -> CollectionList:
    """Your own collections, then those that others share with you."""
    found = await collections.list_all(caller.principal.username)
    return CollectionList(collections=[CollectionInfo.of(collection) for collection in found])


@router.post("/collections", status_code=201)
async def create_collection(new: NewCollection, caller: AnyCaller, collections: Collections) -> CollectionInfo:
    return CollectionInfo.of(await collections.create(caller.principal.username, new.name))


@router.get("/collections/{ref}")
async def show_collection(ref: str, caller: AnyCaller, collections: Collections) -> CollectionDetails:
    collection = await collections.get(caller.principal.username, ref)
    return CollectionDetails.with_stats(collection, await collections.stats(caller.principal.username, collection.id))


@router.patch("/collections/{ref}")
async def change_collection(
    ref: str, change: CollectionChange, caller: AnyCaller, collections: Collections
) -> CollectionInfo:
    """Rename it, or say who may read it. Only its owner may."""
    collection = await own_collection(collections, caller, ref)
    if change.name is not None:
        collection = await collections.rename(caller.principal.username, collection.id, change.name)
    if change.share_with is not None or change.share_with_all is not None:
        readers = collection.shared_with if change.share_with is None else change.share_with
        everyone = collection.shared_with_all if change.share_with_all is None else change.share_with_all
        collection = await collections.share(caller.principal.username, collection.id, readers, everyone=everyone)
    return CollectionInfo.of(collection)


@router.delete("/collections/{ref}")
async def delete_collection(ref: str, caller: AnyCaller, collections: Collections) -> Deleted:
    """Remove a collection with its documents, for good."""
    return Deleted(id=(await collections.delete(caller.principal.username, ref)).id)


@router.post("/collections/{ref}/search")
async def search_collection(
    ref: str, wanted: SearchRequest, caller: AnyCaller, collections: Collections
) -> SearchResult:
    """The passages alone; for an answer, call the tool."""
    where = None if wanted.filters is None else parse_filter(wanted.filters)
    passages = await collections.search(
        caller.principal.username, [ref], wanted.query, limit=wanted.max_results, where=where
    )
    return SearchResult(passages=[FoundPassage.of(passage) for passage in passages])


@router.get("/collections/{ref}/documents")
async def list_documents(
    ref: str,
    caller: AnyCaller,
    collections: Collections,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[str | None, Query(max_length=100, description="the id of the last document of a page")] = None,
) -> DocumentList:
    """The documents by name, a page at a time."""
    found = await collections.list_documents(caller.principal.username, ref, limit=limit + 1, after=after)
    return DocumentList(documents=[DocumentInfo.of(one) for one in found[:limit]], has_more=len(found) > limit)


@router.get("/collections/{ref}/documents/{document}")
async def show_document(ref: str, document: str, caller: AnyCaller, collections: Collections) -> DocumentInfo:
    return DocumentInfo.of(await collections.document(caller.principal.username, ref, document))


@router.patch("/collections/{ref}/documents/{document}")
async def change_document(
    ref: str, document: str, change: DocumentChange, caller: AnyCaller, collections: Collections
) -> DocumentInfo:
    """Set the attributes, by which a search can be filtered."""
    return DocumentInfo.of(
        await collections.set_attributes(caller.principal.username, ref, document, change.attributes)
    )


@router.get("/collections/{ref}/documents/{document}/text")
async def read_document(ref: str, document: str, caller: AnyCaller, collections: Collections) -> DocumentText:
    """What was read of a document."""
    found = await collections.document(caller.principal.username, ref, document)
    return DocumentText(
        document=DocumentInfo.of(found), text=await collections.text(caller.principal.username, ref, found.id)
    )


@router.get("/collections/{ref}/documents/{document}/file", response_class=StreamingResponse)
async def download_document(
    ref: str, document: str, request: Request, caller: AnyCaller, collections: Collections
) -> Response:
    """The file that was handed in."""
    found, path = await collections.original(caller.principal.username, ref, document)
    try:
        file = await asyncio.to_thread(path.open, "rb")
    except FileNotFoundError:
        raise NotFound("The document was removed meanwhile.") from None
    return await send_file(file, found.name, request)


@router.delete("/collections/{ref}/documents/{document}")
async def delete_document(ref: str, document: str, caller: AnyCaller, collections: Collections) -> Deleted:
    """Remove a document: its text, its vectors and its file."""
    return Deleted(id=(await collections.delete_document(caller.principal.username, ref, document)).id)


async def own_collection(collections: DocumentCollections, caller: ToolCaller, ref: str) -> Collection:
    """
    Raises:
        Forbidden: somebody else shares it with the caller.
    """
    collection = await collections.get(caller.principal.username, ref)
    if collection.owner != caller.principal.username:
        raise Forbidden(f"The collection belongs to {collection.owner}, who shares it with you for reading.")
    return collection
