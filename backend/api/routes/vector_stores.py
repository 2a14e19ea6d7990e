"""`/v1/vector_stores`: collections of documents, in OpenAI's shapes. They are those of the tools API."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request

from backend.api.deps import Caller, Context
from backend.api.disconnects import stop_on_disconnect
from backend.api.model_route import LimitedRoute
from backend.core.errors import ApiError, BadRequest
from backend.models.vector_stores import (
    DeletedStore,
    FoundContent,
    NewStoreFile,
    NewVectorStore,
    SearchPage,
    StoreSearch,
    VectorStoreChange,
    VectorStoreObject,
    VectorStorePage,
)

router = APIRouter(prefix="/v1/vector_stores", tags=["vector stores"], route_class=LimitedRoute)


@router.post("")
async def create_vector_store(
    new: NewVectorStore, request: Request, caller: Caller, context: Context
) -> VectorStoreObject:
    """Make a store, and read files into it. Files that cannot be read are counted as `failed`."""
    _refuse_expiry(new.expires_after)
    stores = context.vector_stores
    store_id = await stores.create(caller.username, new.name, new.metadata or {})
    async with stop_on_disconnect(request.receive):
        failed = await add_files(context, caller, store_id, [NewStoreFile(file_id=one) for one in new.file_ids])
    return await stores.describe(caller.username, store_id, failed=failed)


@router.get("")
async def list_vector_stores(
    caller: Caller,
    context: Context,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Literal["asc", "desc"] = "desc",
    after: Annotated[str | None, Query(max_length=100)] = None,
    before: Annotated[str | None, Query(max_length=100)] = None,
) -> VectorStorePage:
    """Your stores and those that others share with you, by the time they were made."""
    ids = await context.vector_stores.all_ids(caller.username)
    if order == "desc":
        ids.reverse()
    if after is not None:
        ids = ids[_place(ids, after, "after") + 1 :]
    if before is not None:
        ids = ids[: _place(ids, before, "before")][-limit:]
    page = await context.vector_stores.describe_all(caller.username, ids[:limit])
    return VectorStorePage.of(page, has_more=len(ids) > limit)


@router.get("/{store_id}")
async def show_vector_store(store_id: str, caller: Caller, context: Context) -> VectorStoreObject:
    return await context.vector_stores.describe(caller.username, store_id)


@router.post("/{store_id}")
async def change_vector_store(
    store_id: str, change: VectorStoreChange, caller: Caller, context: Context
) -> VectorStoreObject:
    _refuse_expiry(change.expires_after)
    await context.vector_stores.change(caller.username, store_id, change.name, change.metadata)
    return await context.vector_stores.describe(caller.username, store_id)


@router.delete("/{store_id}")
async def delete_vector_store(store_id: str, caller: Caller, context: Context) -> DeletedStore:
    """Remove a store with what was read into it. The files in `/v1/files` stay."""
    await context.vector_stores.delete(caller.username, store_id)
    return DeletedStore(id=store_id)


@router.post("/{store_id}/search")
async def search_vector_store(
    store_id: str, wanted: StoreSearch, request: Request, caller: Caller, context: Context
) -> SearchPage:
    """The passages that fit best, each with the page it is on among its attributes."""
    async with stop_on_disconnect(request.receive):
        found = await context.vector_stores.search(caller.username, store_id, wanted)
    return SearchPage(
        search_query=wanted.queries, data=[FoundContent.of(passage, file_id) for passage, file_id in found]
    )


async def add_files(context: Context, caller: Caller, store_id: str, files: list[NewStoreFile]) -> int:
    """Read several files; return how many of them could not be read.

    Raises:
        ApiError: it is no matter of a file.
    """
    failed = 0
    for file in files:
        try:
            await context.vector_stores.add(caller.username, store_id, file)
        except ApiError as error:
            if error.status not in {400, 404, 413}:
                raise
            failed += 1
    return failed


def _refuse_expiry(expires_after: object) -> None:
    if expires_after is not None:
        raise BadRequest("Vector stores do not expire here. Delete them when they are done.", param="expires_after")


def _place(ids: list[str], one: str, param: str) -> int:
    try:
        return ids.index(one)
    except ValueError:
        raise BadRequest(f"{param} names no vector store of yours.", param=param) from None
