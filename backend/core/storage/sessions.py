"""Sessions: who owns which conversation, and the way to what is said in it.

The file of a conversation is the truth of it; its row in the database is an index, written in the same hop. A row that
lags behind its file after a crash is put right by the next append, or by the look through all files at start-up.
Whatever a caller gives as a session id, only what has the exact form of one ever becomes a path.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, TypeVar

from sqlalchemy import exc

from backend.core.errors import ApiError, NotFound, StorageFailed
from backend.core.storage.conversations import Conversation, StoredMessage
from backend.core.storage.database import Database, Row
from backend.core.storage.scratch import ScratchFile, list_files
from backend.core.storage.scratch_sweep import sweep_forever
from backend.core.storage.session_index import (
    SESSION_ID,
    SessionIndex,
    SessionPage,
    SessionRecord,
    append_row,
    delete_row,
    insert_row,
    no_such_session,
    prefix_rows,
    rename_row,
)
from backend.core.storage.session_recovery import recover_index
from backend.core.storage.spans import Spans
from backend.core.storage.titles import make_title, shorten_title
from backend.utils.paths import UnsafePath, open_beneath, remove_tree, safe_join
from backend.utils.unique_ids import unique_hex

__all__ = ["ScratchFile", "SessionPage", "SessionRecord", "Sessions", "new_session_id"]

T = TypeVar("T")

READERS = 4
REMOVED_AT_ONCE = 500

logger = logging.getLogger(__name__)


def new_session_id() -> str:
    return f"sess_{unique_hex(16)}"


class Sessions:
    """All conversations of one data folder. Whatever names a session raises NotFound where there is none.

    Raises (everything that writes):
        StorageFailed, Unavailable: nothing was written.
    """

    def __init__(self, database: Database, data_dir: Path) -> None:
        self._database = database
        self._index = SessionIndex(database)
        self._files = data_dir / "sessions"
        self._scratch = data_dir / "scratch"
        self._uploads = data_dir / "uploads"
        self._runs = data_dir / "runs"
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="session-read")
        self._care: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to look for files whose rows a crash has cost, and for folders without a session; returns at once."""
        recovery = recover_index(self._database, self._files)
        sweeping = sweep_forever(self._database, self._scratch)
        self._care = [asyncio.create_task(recovery), asyncio.create_task(sweeping)]

    async def close(self) -> None:
        for task in self._care:
            task.cancel()
        await asyncio.gather(*self._care, return_exceptions=True)
        self._readers.shutdown(wait=False)

    async def open(self, username: str, session_id: str) -> SessionRecord:
        """
        Raises:
            NotFound: alike for a session of somebody else, one that never was, and what is no session id at all.
        """
        record = await self._index.find(session_id)
        if record is None or record.username != username:
            raise no_such_session()
        return record

    async def create(
        self,
        username: str,
        session_id: str,
        messages: Sequence[StoredMessage],
        *,
        title: str | None = None,
        durable: bool = False,
        prefix_digest: str | None = None,
    ) -> None:
        """Make a session with an id from `new_session_id`, called after what the user says first.

        Args:
            durable, prefix_digest: as for `append`.
        """
        conversation = self._conversation(session_id)
        now = time.time()
        title = shorten_title(title) if title else make_title(messages)
        record = SessionRecord(session_id, username, title, created_at=now, updated_at=now, message_count=len(messages))
        rows = [insert_row(record)]
        if prefix_digest is not None:
            rows += prefix_rows(session_id, prefix_digest, seq=len(messages))
        try:
            await self._database.write_rows(
                rows, prepare=lambda: conversation.create(username, messages, created_at=now, durable=durable)
            )
        except ApiError:
            await self._run(conversation.delete)
            raise
        except exc.IntegrityError:
            await self._run(conversation.delete)
            await self._run(lambda: remove_tree(safe_join(self._scratch, session_id)))  # what came with the question
            raise NotFound("This account has been deleted.") from None

    async def append(
        self,
        session_id: str,
        messages: Sequence[StoredMessage],
        *,
        durable: bool = False,
        prefix_digest: str | None = None,
    ) -> int:
        """Add messages to a conversation, and return how many it has now.

        Args:
            durable: return when they outlive a power failure.
            prefix_digest: by which a client that sends its whole history is known again; see `prefixes`.
        """
        try:
            return await self._append(session_id, messages, durable, prefix_digest)
        except FileNotFoundError:
            await self._replace_lost_file(session_id)
            try:
                return await self._append(session_id, messages, durable, prefix_digest)
            except FileNotFoundError:
                raise no_such_session() from None

    async def history(self, session_id: str, *, last: int, spans: Spans | None = None) -> Sequence[StoredMessage]:
        """The newest messages of a session that the caller has opened, or of those in `spans`; oldest first."""
        if spans is None:
            return await self._run(lambda: self._read(session_id, last, None))
        return await self._run(lambda: self._read_spans(session_id, last, spans))

    async def messages(
        self, username: str, session_id: str, *, limit: int | None = None, before: int | None = None
    ) -> Sequence[StoredMessage]:
        """The newest `limit` messages or all, of those whose number is below `before` or of all."""
        await self.open(username, session_id)
        return await self._run(lambda: self._read(session_id, limit, before))

    async def find_by_prefix(self, username: str, digest: str) -> str | None:
        """The session that a client goes on with, by the digest of what it has seen."""
        return await self._index.find_by_prefix(username, digest)

    async def list(self, username: str, *, limit: int, cursor: str | None = None) -> SessionPage:
        """A user's sessions, the one with the newest message first.

        Raises:
            BadRequest: the cursor is none of ours.
        """
        return await self._index.list(username, limit=limit, cursor=cursor)

    async def rename(self, username: str, session_id: str, title: str) -> SessionRecord:
        await self.open(username, session_id)
        await self._database.write_rows([rename_row(session_id, shorten_title(title))])
        return await self.open(username, session_id)

    async def delete(self, username: str, session_id: str) -> None:
        """Remove a session, its file, its scratch folder and what was uploaded to it."""
        await self.open(username, session_id)
        await self._remove([session_id])

    async def delete_all(self, username: str) -> None:
        """Remove every session of a user."""
        while ids := await self._index.ids_of(username, limit=REMOVED_AT_ONCE):
            await self._remove(ids)

    async def scratch(self, session_id: str) -> Path:
        """The session's scratch folder, made when it is first asked for."""
        folder = safe_join(self._scratch, _checked(session_id))
        await self._run(lambda: folder.mkdir(mode=0o700, parents=True, exist_ok=True))
        return folder

    async def files(self, username: str, session_id: str) -> Sequence[ScratchFile]:
        """What is in the session's scratch folder, newest first."""
        await self.open(username, session_id)
        folder = safe_join(self._scratch, session_id)
        return await self._run(lambda: list_files(folder))

    async def open_file(self, username: str, session_id: str, name: str) -> BinaryIO:
        """A file in the session's scratch folder, open for reading. The caller closes it.

        Raises:
            NotFound: there is no such file, or the name leads elsewhere.
        """
        await self.open(username, session_id)
        folder = safe_join(self._scratch, session_id)
        try:
            return await self._run(lambda: open_beneath(folder, name))
        except (UnsafePath, FileNotFoundError):
            raise NotFound("The session has no file of this name.", param="name") from None

    def _conversation(self, session_id: str) -> Conversation:
        return Conversation(self._files, _checked(session_id))

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._readers, work)

    def _read(self, session_id: str, last: int | None, before: int | None) -> Sequence[StoredMessage]:
        try:
            return self._conversation(session_id).read(last, before=before)
        except FileNotFoundError:
            logger.warning("The file of %s is missing: its history is empty.", session_id)
            return ()

    def _read_spans(self, session_id: str, last: int, spans: Spans) -> Sequence[StoredMessage]:
        found: list[StoredMessage] = []
        for begin, end in reversed(spans):
            if len(found) == last:
                break
            found[:0] = self._read(session_id, min(last - len(found), end - begin + 1), end + 1)
        return found

    async def _append(
        self, session_id: str, messages: Sequence[StoredMessage], durable: bool, prefix_digest: str | None
    ) -> int:
        conversation = self._conversation(session_id)
        rows: list[Row] = []
        count = 0

        def write() -> None:
            nonlocal count
            count = conversation.append(messages, durable=durable)
            rows.append(append_row(session_id, count=count, at=time.time()))
            if prefix_digest:
                rows.extend(prefix_rows(session_id, prefix_digest, seq=count))

        try:
            await self._database.write_rows(rows, prepare=write)
        except (ApiError, exc.SQLAlchemyError) as error:
            if not rows:
                raise
            # What was said is on the disk: that the index lags behind is no reason to fail an answer.
            logger.warning("The index of %s could not be updated: %s", session_id, error)
        return count

    async def _replace_lost_file(self, session_id: str) -> None:
        """Begin a new file for a session whose file somebody has removed.

        Raises:
            NotFound: the session itself is gone.
        """
        record = await self._index.find(session_id)
        if record is None:
            raise no_such_session()
        logger.warning("The file of %s is missing: a new one is begun.", session_id)
        conversation = self._conversation(session_id)
        with contextlib.suppress(FileExistsError):
            await self._run(lambda: conversation.create(record.username, (), created_at=record.created_at))
        if await self._index.find(session_id) is None:  # deleted meanwhile
            await self._run(conversation.delete)
            raise no_such_session()

    async def _remove(self, ids: Sequence[str]) -> None:
        """Remove sessions, to the end also when the caller goes away."""
        await asyncio.shield(asyncio.create_task(self._remove_now(ids)))

    async def _remove_now(self, ids: Sequence[str]) -> None:
        def unlink() -> None:
            for session_id in ids:
                self._conversation(session_id).delete()

        def clear() -> None:
            unlink()  # once more: another process may have found the file missing and begun a new one
            for session_id in ids:
                remove_tree(safe_join(self._scratch, session_id))
                remove_tree(safe_join(self._uploads, session_id))
                remove_tree(safe_join(self._runs, session_id))

        # Files first: a row without its file can be deleted again, a file without its row would be indexed again.
        await self._database.write_rows([delete_row(session_id) for session_id in ids], prepare=unlink)
        try:
            await self._run(clear)
        except OSError as error:
            logger.error("What is left of a deleted session cannot be removed: %s", error)
            raise StorageFailed("Some files of the session cannot be removed. Tell whoever runs the server.") from error


def _checked(session_id: str) -> str:
    if not SESSION_ID.fullmatch(session_id):
        raise no_such_session()
    return session_id
