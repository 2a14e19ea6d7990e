"""What OpenAI's vector stores have besides the collections of documents that they are: metadata, and ids of files.

A document knows nothing of the file in `/v1/files` that it was made from; clients know the file's id alone. Who may
read a store is decided by the tools API, which is asked first: nothing here is looked at before.
"""

from collections.abc import Mapping, Sequence

import orjson
from sqlalchemy import Connection, Executable, delete, exc, insert, select

from backend.core.storage.database import Database
from backend.core.storage.tables import vector_store_files, vector_stores


class VectorStoreNotes:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def metadata(self, store_id: str) -> dict[str, str]:
        query = select(vector_stores.c.metadata).where(vector_stores.c.id == store_id)
        found = await self._database.read(lambda connection: connection.execute(query).scalar())
        metadata: dict[str, str] = orjson.loads(found) if found else {}
        return metadata

    async def set_metadata(self, username: str, store_id: str, metadata: Mapping[str, str]) -> None:
        old = delete(vector_stores).where(vector_stores.c.id == store_id)
        row = {"id": store_id, "username": username, "metadata": orjson.dumps(metadata).decode()}
        new = insert(vector_stores).values(row)
        await self._write(old, new)

    async def note_file(self, username: str, store_id: str, document_id: str, file_id: str) -> None:
        """The document was made from this file, and no other of the store was."""
        table = vector_store_files
        old = delete(table).where(
            table.c.store_id == store_id, (table.c.document_id == document_id) | (table.c.file_id == file_id)
        )
        row = {"store_id": store_id, "document_id": document_id, "file_id": file_id, "username": username}
        await self._write(old, insert(table).values(row))

    async def document_of(self, store_id: str, file_id: str) -> str | None:
        table = vector_store_files
        query = select(table.c.document_id).where(table.c.store_id == store_id, table.c.file_id == file_id)
        return await self._database.read(lambda connection: connection.execute(query).scalar())

    async def files_of(self, store_id: str, document_ids: Sequence[str]) -> dict[str, str]:
        """The files of those documents that were made from one."""
        table = vector_store_files
        query = select(table.c.document_id, table.c.file_id).where(
            table.c.store_id == store_id, table.c.document_id.in_(document_ids)
        )
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return {row.document_id: row.file_id for row in rows}

    async def forget_document(self, store_id: str, document_id: str) -> None:
        table = vector_store_files
        change = delete(table).where(table.c.store_id == store_id, table.c.document_id == document_id)
        await self._database.write(lambda connection: connection.execute(change))

    async def forget_store(self, store_id: str) -> None:
        changes = [
            delete(vector_stores).where(vector_stores.c.id == store_id),
            delete(vector_store_files).where(vector_store_files.c.store_id == store_id),
        ]
        await self._write(*changes)

    async def _write(self, *changes: Executable) -> None:
        def write(connection: Connection) -> None:
            for change in changes:
                connection.execute(change)

        try:
            await self._database.write(write)
        except exc.IntegrityError:  # the user was deleted meanwhile, and the collection with them
            return
