"""Who has which collections, and who else may read them.

Each user has a small SQLite file beside the folders of the collections: a name is unique because the database says so,
whichever process asks. A user whose folder was deleted has no collections. Blocks.

    DATA_DIR/rag/USER/collections.db
    DATA_DIR/rag/USER/COLLECTION ID/collection.db, files/, and the caches
"""

import json
import re
import secrets
import sqlite3
import time
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from backend.core.documents.records import Collection
from backend.core.errors import Conflict, Forbidden, NotFound, TooManyRequests, Unprocessable
from backend.core.storage.user_data import rag_folder
from backend.utils.paths import remove_tree

from .database_file import LOCK_WAIT_S, as_ours
from .originals import FILES
from .store import Store

DEFAULT = "default"
FILE = "collections.db"
MAX_COLLECTIONS = 1000  # of one user
MAX_NAME = 100  # characters
MAX_READERS = 1000

_ID = re.compile(r"vs_[0-9a-f]{24}")
_SCHEMA = """CREATE TABLE IF NOT EXISTS collections (
    id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, created_at REAL NOT NULL, shared_with TEXT NOT NULL DEFAULT '[]',
    shared_with_all INTEGER NOT NULL DEFAULT 0
)"""


class Catalog:
    """
    Raises (from everything):
        Unavailable: another process writes for too long.
        StorageFailed: the disk is full or broken.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir

    def folder(self, collection: Collection) -> Path:
        return rag_folder(self._data_dir, collection.owner) / collection.id

    def create(self, username: str, name: str) -> Collection:
        """
        Raises:
            Unprocessable, Conflict, TooManyRequests
        """
        name = check_name(name)
        collection = Collection(f"vs_{secrets.token_hex(12)}", name, username, time.time())
        folder = self.folder(collection)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with self._opened(username, "rwc") as database:
            database.execute(_SCHEMA)
            (folder / FILES).mkdir(parents=True)
            try:
                Store(folder / "collection.db").create()
                if database.execute("SELECT count(*) FROM collections").fetchone()[0] >= MAX_COLLECTIONS:
                    raise TooManyRequests(f"A user has at most {MAX_COLLECTIONS} collections. Delete one first.")
                database.execute(
                    "INSERT INTO collections (id, name, created_at) VALUES (?, ?, ?)",
                    (collection.id, name, collection.created_at),
                )
            except sqlite3.IntegrityError:
                remove_tree(folder)
                raise _taken(name) from None
            except BaseException:
                remove_tree(folder)
                raise
        return collection

    def own(self, username: str) -> list[Collection]:
        try:
            with self._opened(username, "ro") as database:
                rows = database.execute("SELECT * FROM collections ORDER BY name").fetchall()
        except NotFound:
            return []
        return [_collection(row, username) for row in rows]

    def shared(self, username: str) -> list[Collection]:
        """What others let this user read, by name."""
        owners = [path.parent.name for path in (self._data_dir / "rag").glob(f"*/{FILE}")]
        found = [one for owner in owners if owner != username for one in self.own(owner)]
        return sorted((one for one in found if one.readable_by(username)), key=lambda one: (one.name, one.owner))

    def find(self, username: str, ref: str) -> Collection:
        """What the user calls so: the own one of that id or name, `owner/name`, or a shared one of that id or name.

        Raises:
            NotFound: nothing that this user may read.
        """
        ref = unicodedata.normalize("NFC", ref).strip()
        if found := [one for one in self.own(username) if ref in (one.id, one.name)]:
            return found[0]
        for one in self.shared(username):
            if ref in (one.id, f"{one.owner}/{one.name}") or ref == one.name != DEFAULT:  # everyone has a default
                return one
        raise NotFound("There is no such collection. GET /api/tools/rag/collections lists those that you may read.")

    def find_or_make(self, username: str, ref: str) -> Collection:
        """As `find`, but `default` is made when it is missing.

        Raises:
            NotFound
        """
        try:
            return self.find(username, ref)
        except NotFound:
            if ref.strip() != DEFAULT:
                raise
        with suppress(Conflict):  # somebody else made it in the same moment
            return self.create(username, DEFAULT)
        return self.find(username, DEFAULT)

    def find_own(self, username: str, ref: str) -> Collection:
        """As `find_or_make`, but for changing it.

        Raises:
            NotFound
            Forbidden: it is somebody else's, who shares it.
        """
        collection = self.find_or_make(username, ref)
        if collection.owner != username:
            raise Forbidden(f"This collection belongs to {collection.owner}, who alone may change it.")
        return collection

    def rename(self, collection: Collection, name: str) -> None:
        name = check_name(name)
        with self._opened(collection.owner, "rw") as database:
            try:
                database.execute("UPDATE collections SET name = ? WHERE id = ?", (name, collection.id))
            except sqlite3.IntegrityError:
                raise _taken(name) from None

    def share(self, collection: Collection, users: Sequence[str], *, everyone: bool) -> None:
        if len(users) > MAX_READERS:
            raise Unprocessable(f"Share with at most {MAX_READERS} users, or with everyone.", param="users")
        with self._opened(collection.owner, "rw") as database:
            database.execute(
                "UPDATE collections SET shared_with = ?, shared_with_all = ? WHERE id = ?",
                (json.dumps(sorted(set(users) - {collection.owner})), everyone, collection.id),
            )

    def delete(self, collection: Collection) -> None:
        with self._opened(collection.owner, "rw") as database:
            database.execute("DELETE FROM collections WHERE id = ?", (collection.id,))
        remove_tree(self.folder(collection))

    def remove_leftovers(self, username: str) -> None:
        """Remove the folders of collections whose deletion broke off."""
        known = {one.id for one in self.own(username)}
        for folder in rag_folder(self._data_dir, username).glob("vs_*"):
            if folder.name not in known and time.time() - folder.stat().st_mtime > LOCK_WAIT_S:
                remove_tree(folder)

    @contextmanager
    def _opened(self, username: str, mode: str) -> Iterator[sqlite3.Connection]:
        path = rag_folder(self._data_dir, username) / FILE
        if mode != "rwc" and not path.is_file():
            raise NotFound("There is no such collection.")
        try:
            address = f"file:{quote(str(path.absolute()))}?mode={mode}"
            with closing(sqlite3.connect(address, uri=True, timeout=LOCK_WAIT_S, isolation_level=None)) as database:
                database.row_factory = sqlite3.Row
                database.execute("PRAGMA secure_delete = ON")
                yield database
        except sqlite3.Error as error:
            raise as_ours(error) from error


def check_name(name: str) -> str:
    """The name as it is kept.

    Raises:
        Unprocessable
    """
    name = unicodedata.normalize("NFC", name).strip()
    if not 1 <= len(name) <= MAX_NAME or not name.isprintable() or {"/", "\\"} & set(name) or _ID.fullmatch(name):
        raise Unprocessable(
            f"A collection's name has 1 to {MAX_NAME} printable characters, without slashes, and is no id.",
            param="name",
        )
    if name in {".", ".."}:
        raise Unprocessable("That is no name for a collection. Choose another one.", param="name")
    return name


def _taken(name: str) -> Conflict:
    return Conflict(f"You have a collection named {name}. Choose another name.", param="name")


def _collection(row: sqlite3.Row, owner: str) -> Collection:
    shared_with = tuple(json.loads(row["shared_with"]))
    return Collection(row["id"], row["name"], owner, row["created_at"], shared_with, bool(row["shared_with_all"]))
