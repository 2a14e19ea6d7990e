"""The files that were handed in, each named by its document's id, in a folder of the collection.

A file that no document names is a leftover of an upload or a deletion that was killed. Blocks.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from backend.core.errors import ApiError

from .store import Store

FILES = "files"  # in a collection's folder


@contextmanager
def uploading(folder: Path) -> Iterator[None]:
    """Held, by any number, while a file is there and its document is not yet."""
    with (folder / ".lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


def remove_leftovers(store: Store) -> None:
    """Remove the files that no document names, unless somebody is putting one there."""
    folder = store.path.parent / FILES
    try:
        with (folder / ".lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            known = store.document_ids()
            for path in folder.iterdir():
                if path.name not in known and path.name != ".lock":
                    path.unlink(missing_ok=True)
    except OSError:  # somebody is, or the folder is gone
        return


def delete_document(store: Store, document_id: str) -> bool:
    """Delete a document and its file; whether it was there."""
    deleted = store.delete(document_id)
    (store.path.parent / FILES / document_id).unlink(missing_ok=True)
    with suppress(ApiError):  # it is deleted; the cleaning comes back to the log
        store.empty_log()
    return deleted
