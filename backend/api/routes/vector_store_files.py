"""The files of a vector store, in OpenAI's shapes. What reads a file answers when it is read.

A batch is over when it is answered, so there is nothing to keep of it: its id holds what is asked of it later.

    batch id = "vsfb_" TIME "_" COMPLETED "_" FAILED      numbers in hexadecimal digits
"""

import re
import time
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request

from backend.api.deps import Caller, Context
from backend.api.disconnects import stop_on_disconnect
from backend.api.model_route import LimitedRoute
from backend.api.routes.vector_stores import add_files
from backend.core.errors import BadRequest, NotFound
from backend.models.vector_stores import (
    ContentPage,
    DeletedStoreFile,
    FileBatchObject,
    FileCounts,
    NewFileBatch,
    NewStoreFile,
    StoreFileChange,
    StoreFileObject,
    StoreFilePage,
    TextPart,
)

BATCH_ID = re.compile(r"vsfb_([0-9a-f]{8})_([0-9a-f]{1,4})_([0-9a-f]{1,4})")

router = APIRouter(prefix="/v1/vector_stores/{store_id}", tags=["vector stores"], route_class=LimitedRoute)


@router.post("/files")
async def add_file(
    store_id: str, new: NewStoreFile, request: Request, caller: Caller, context: Context
) -> StoreFileObject:
    """Read a file of `/v1/files` into the store, in place of the one of its name."""
    async with stop_on_disconnect(request.receive):
        return await context.vector_stores.add(caller.username, store_id, new)


@router.get("/files")
async def list_files(
    store_id: str,
    caller: Caller,
    context: Context,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[str | None, Query(max_length=100)] = None,
    status: Annotated[Literal["in_progress", "completed", "failed", "cancelled"], Query(alias="filter")] = "completed",
) -> StoreFilePage:
    """The files by name, a page at a time."""
    files, has_more = await context.vector_stores.list_files(caller.username, store_id, limit=limit, after=after)
    if status != "completed":  # they all are
        files, has_more = [], False
    return StoreFilePage.of(files, has_more=has_more)


@router.get("/files/{file_id}")
async def show_file(store_id: str, file_id: str, caller: Caller, context: Context) -> StoreFileObject:
    return await context.vector_stores.get(caller.username, store_id, file_id)


@router.post("/files/{file_id}")
async def change_file(
    store_id: str, file_id: str, change: StoreFileChange, caller: Caller, context: Context
) -> StoreFileObject:
    """Set the attributes, by which a search can be filtered."""
    return await context.vector_stores.set_attributes(caller.username, store_id, file_id, change.attributes or {})


@router.get("/files/{file_id}/content")
async def read_file(store_id: str, file_id: str, caller: Caller, context: Context) -> ContentPage:
    """What was read of a file, piece by piece."""
    text = await context.vector_stores.text(caller.username, store_id, file_id)
    return ContentPage(data=[TextPart(text=piece) for piece in text])


@router.delete("/files/{file_id}")
async def remove_file(store_id: str, file_id: str, caller: Caller, context: Context) -> DeletedStoreFile:
    """Take a file out of the store. In `/v1/files` it stays."""
    await context.vector_stores.remove(caller.username, store_id, file_id)
    return DeletedStoreFile(id=file_id)


@router.post("/file_batches")
async def add_batch(
    store_id: str, batch: NewFileBatch, request: Request, caller: Caller, context: Context
) -> FileBatchObject:
    """Read several files. Those that cannot be read are counted as `failed`."""
    wanted = batch.wanted()
    if not wanted:
        raise BadRequest("Name the files in file_ids or in files.", param="file_ids")
    await context.vector_stores.describe(caller.username, store_id)  # for its 404, before files are counted as failed
    async with stop_on_disconnect(request.receive):
        failed = await add_files(context, caller, store_id, wanted)
    completed = len(wanted) - failed
    return _batch(store_id, f"vsfb_{int(time.time()):08x}_{completed:x}_{failed:x}")


@router.get("/file_batches/{batch_id}")
async def show_batch(store_id: str, batch_id: str, caller: Caller, context: Context) -> FileBatchObject:
    await context.vector_stores.describe(caller.username, store_id)
    return _batch(store_id, batch_id)


def _batch(store_id: str, batch_id: str) -> FileBatchObject:
    if not (parts := BATCH_ID.fullmatch(batch_id)):
        raise NotFound("There is no such batch of files.", param="batch_id")
    created_at, completed, failed = (int(part, 16) for part in parts.groups())
    return FileBatchObject(
        id=batch_id, created_at=created_at, vector_store_id=store_id, file_counts=FileCounts.of(completed, failed)
    )
