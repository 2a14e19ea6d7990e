"""All that a user owns outside the database's tables, in one place, so that a deleted user leaves nothing behind."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from backend.core.storage.files import Files
from backend.core.storage.sessions import Sessions
from backend.utils.paths import remove_tree, safe_join


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
        await self.sessions.delete_all(username)
        await self.files.delete_all(username)
        await asyncio.to_thread(remove_tree, rag_folder(self.data_dir, username))
