"""All that a user owns outside the database's tables, in one place, so that a deleted user leaves nothing behind."""

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from backend.core.errors import StorageFailed
from backend.core.storage.files import Files
from backend.core.storage.sessions import Sessions
from backend.utils.paths import remove_tree, safe_join

LOCK_WAIT_S = 10
# Of the table that `tools/rag/catalog.py` makes.
FORGET_READER = """UPDATE collections
    SET shared_with = (SELECT json_group_array(value) FROM json_each(shared_with) WHERE lower(value) <> :reader)
    WHERE EXISTS (SELECT 1 FROM json_each(shared_with) WHERE lower(value) = :reader)"""


def rag_folder(data_dir: Path, username: str) -> Path:
    """Where the documents and indexes of a user's collections are. A name's case makes no difference, as at sign-in."""
    return safe_join(data_dir / "rag", username.lower())


@dataclass(frozen=True, slots=True)
class UserData:
    sessions: Sessions
    files: Files
    data_dir: Path

    async def delete(self, username: str) -> None:
        """Remove all of it. It may be called again where it has failed."""
        await self.files.delete_all(username)
        await asyncio.to_thread(remove_tree, rag_folder(self.data_dir, username))
        await asyncio.to_thread(_forget_reader, self.data_dir, username)
        await self.sessions.delete_all(username)


def _forget_reader(data_dir: Path, username: str) -> None:
    """Share no collection with the name any more: a later account of it is somebody else. Blocks.

    Raises:
        StorageFailed
    """
    for path in (data_dir / "rag").glob("*/collections.db"):
        address = f"file:{quote(str(path.absolute()))}?mode=rw"
        try:
            with closing(sqlite3.connect(address, uri=True, timeout=LOCK_WAIT_S, isolation_level=None)) as database:
                database.execute(FORGET_READER, {"reader": username.lower()})
        except sqlite3.Error:
            if path.exists():  # otherwise its owner was deleted in this moment
                raise StorageFailed("A collection is busy, or broken. Try again, or tell whoever runs it.") from None
