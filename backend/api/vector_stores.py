"""The collections of the tools API as OpenAI's vector stores.

A vector store is a collection, under the same id; a file of it is a document. Files that came from `/v1/files` keep the
id that they have there, others have the document's. Reading a file is over when its request is: it is whole in the
store, or not at all, and the error says why.
"""

import asyncio
import re
from collections.abc import Sequence
from typing import Any

import aiohttp
import orjson

from backend.core.errors import ApiError, BadRequest, NotFound
from backend.core.storage.files import Files
from backend.core.storage.vector_stores import VectorStoreNotes
from backend.core.tools_api import RelayedError, ToolsApi
from backend.models.collections import (
    CollectionDetails,
    CollectionInfo,
    CollectionList,
    DocumentInfo,
    DocumentList,
    DocumentText,
    FoundPassage,
    SearchResult,
    UploadResult,
)
from backend.models.vector_stores import NewStoreFile, StoreFileObject, StoreSearch, VectorStoreObject
from backend.utils.unique_ids import unique_hex

TIMEOUT_S = 120.0
READING_TIMEOUT_S = 3600.0  # of one file
COLLECTIONS = "/api/tools/rag/collections"
UPLOAD = "/api/tools/rag/upload"
STORE_ID = re.compile(r"vs_[0-9a-f]{24}")
DOCUMENT_ID = re.compile(r"doc_[0-9a-f]{24}")


class VectorStores:
    """
    Raises (from everything here):
        NotFound: there is no such store or file for this user.
        RelayedError: the tools API refused.
        Unavailable: the tools API cannot be reached, or takes too long.
    """

    def __init__(self, tools: ToolsApi, files: Files, notes: VectorStoreNotes) -> None:
        self._tools = tools
        self._files = files
        self._notes = notes

    async def create(self, username: str, name: str | None, metadata: dict[str, str]) -> str:
        """Return the new store's id."""
        body = {"name": name or f"vector store {unique_hex(4)}"}
        made = CollectionInfo.model_validate(await self._send(username, "POST", COLLECTIONS, body))
        if metadata:
            await self._notes.set_metadata(username, made.id, metadata)
        return made.id

    async def all_ids(self, username: str) -> list[str]:
        """The stores that the user may read, the newest last."""
        found = CollectionList.model_validate(await self._send(username, "GET", COLLECTIONS)).collections
        return [one.id for one in sorted(found, key=lambda one: (one.created_at, one.id))]

    async def describe(self, username: str, store_id: str, *, failed: int = 0) -> VectorStoreObject:
        """
        Args:
            failed: files that could just now not be read into it.
        """
        collection = CollectionDetails.model_validate(await self._send(username, "GET", collection_path(store_id)))
        metadata = await self._notes.metadata(store_id)
        return VectorStoreObject.of(collection, metadata, failed=failed)

    async def describe_all(self, username: str, store_ids: Sequence[str]) -> list[VectorStoreObject]:
        """Those of the stores that are still there."""

        async def describe(store_id: str) -> VectorStoreObject | None:
            try:
                return await self.describe(username, store_id)
            except NotFound:  # deleted since it was listed
                return None

        return [one for one in await asyncio.gather(*map(describe, store_ids)) if one]

    async def change(self, username: str, store_id: str, name: str | None, metadata: dict[str, str] | None) -> None:
        change = {} if name is None else {"name": name}
        # Asked also where the metadata alone changes: it knows who may.
        await self._send(username, "PATCH", collection_path(store_id), change)
        if metadata is not None:
            await self._notes.set_metadata(username, store_id, metadata)

    async def delete(self, username: str, store_id: str) -> None:
        await self._send(username, "DELETE", collection_path(store_id))
        await self._notes.forget_store(store_id)

    async def search(self, username: str, store_id: str, wanted: StoreSearch) -> list[tuple[FoundPassage, str | None]]:
        """The passages for all of the queries, best first, each with the id of its file."""
        best: dict[tuple[str, str], FoundPassage] = {}
        for query in wanted.queries:
            body = {"query": query, "max_results": wanted.max_num_results, "filters": wanted.filters}
            answer = await self._send(username, "POST", f"{collection_path(store_id)}/search", body)
            for passage in SearchResult.model_validate(answer).passages:
                place = (passage.document_id, passage.text)
                if place not in best or best[place].score < passage.score:
                    best[place] = passage
        threshold = wanted.ranking_options.score_threshold
        found = sorted((one for one in best.values() if one.score >= threshold), key=lambda one: -one.score)
        found = found[: wanted.max_num_results]
        files = await self._notes.files_of(store_id, [one.document_id for one in found])
        return [(one, files.get(one.document_id)) for one in found]

    # --- Files ----------------------------------------------------------------------------------------------------

    async def add(self, username: str, store_id: str, wanted: NewStoreFile) -> StoreFileObject:
        """Read one of the user's files into the store.

        Raises:
            BadRequest: it cannot be read; the message says why.
        """
        await self._send(username, "GET", collection_path(store_id))  # an upload would make what there is not
        stored, file = await self._files.open(username, wanted.file_id)
        with file:
            form = aiohttp.FormData(quote_fields=False)
            form.add_field("collection", store_id)
            if wanted.attributes is not None:
                form.add_field("attributes", orjson.dumps(wanted.attributes).decode())
            form.add_field("files", file, filename=stored.filename, content_type="application/octet-stream")
            answer = await self._send(username, "POST", UPLOAD, data=form, timeout_s=READING_TIMEOUT_S)
        (taken,) = UploadResult.model_validate(answer).files
        if taken.document is None:
            raise BadRequest(taken.error or "The file could not be read.", param="file_id", code="invalid_file")
        await self._notes.note_file(username, store_id, taken.document.id, wanted.file_id)
        return StoreFileObject.of(store_id, taken.document, wanted.file_id)

    async def list_files(
        self, username: str, store_id: str, *, limit: int, after: str | None
    ) -> tuple[list[StoreFileObject], bool]:
        """Files by name, and whether there are more."""
        path = f"{collection_path(store_id)}/documents?limit={limit}"
        if after is not None:
            path += f"&after={await self.document_id(store_id, after)}"
        found = DocumentList.model_validate(await self._send(username, "GET", path))
        files = await self._notes.files_of(store_id, [one.id for one in found.documents])
        return [StoreFileObject.of(store_id, one, files.get(one.id)) for one in found.documents], found.has_more

    async def get(self, username: str, store_id: str, file_id: str) -> StoreFileObject:
        path = await self._document_path(store_id, file_id)
        document = DocumentInfo.model_validate(await self._send(username, "GET", path))
        return await self._describe_file(store_id, document)

    async def set_attributes(
        self, username: str, store_id: str, file_id: str, attributes: dict[str, Any]
    ) -> StoreFileObject:
        path = await self._document_path(store_id, file_id)
        answer = await self._send(username, "PATCH", path, {"attributes": attributes})
        return await self._describe_file(store_id, DocumentInfo.model_validate(answer))

    async def text(self, username: str, store_id: str, file_id: str) -> list[str]:
        path = await self._document_path(store_id, file_id)
        return DocumentText.model_validate(await self._send(username, "GET", f"{path}/text")).text

    async def remove(self, username: str, store_id: str, file_id: str) -> None:
        """Take a file out of the store; in `/v1/files` it stays."""
        document_id = await self.document_id(store_id, file_id)
        await self._send(username, "DELETE", f"{collection_path(store_id)}/documents/{document_id}")
        await self._notes.forget_document(store_id, document_id)

    async def document_id(self, store_id: str, file_id: str) -> str:
        if DOCUMENT_ID.fullmatch(file_id):
            return file_id
        if (found := await self._notes.document_of(store_id, file_id)) is None:
            raise _not_found()
        return found

    async def _document_path(self, store_id: str, file_id: str) -> str:
        return document_path(store_id, await self.document_id(store_id, file_id))

    async def _describe_file(self, store_id: str, document: DocumentInfo) -> StoreFileObject:
        files = await self._notes.files_of(store_id, [document.id])
        return StoreFileObject.of(store_id, document, files.get(document.id))

    async def _send(
        self, username: str, method: str, path: str, body: Any = None, *, data: Any = None, timeout_s: float = TIMEOUT_S
    ) -> Any:
        try:
            return await self._tools.send(username, method, path, json=body, data=data, timeout_s=timeout_s)
        except RelayedError as error:
            about_a_store = path.startswith(f"{COLLECTIONS}/")  # otherwise there is no tool for documents
            raise (_not_found() if error.status == 404 and about_a_store else _as_of_v1(error)) from None


def collection_path(store_id: str) -> str:
    """Raises: NotFound: this is no id, and nothing that goes into an address."""
    if not STORE_ID.fullmatch(store_id):
        raise _not_found()
    return f"{COLLECTIONS}/{store_id}"


def document_path(store_id: str, document_id: str) -> str:
    """Raises: NotFound: as above."""
    if not DOCUMENT_ID.fullmatch(document_id):
        raise _not_found()
    return f"{collection_path(store_id)}/documents/{document_id}"


def _as_of_v1(error: RelayedError) -> ApiError:
    """What is wrong with a request is a 400 for OpenAI's clients."""
    return BadRequest(error.message, param=error.param, code=error.code) if error.status == 422 else error


def _not_found() -> NotFound:
    """One answer whether the store or the file is missing: of a store of somebody else, it tells nothing."""
    return NotFound("There is no such vector store, or no such file in it. GET /v1/vector_stores lists your stores.")
