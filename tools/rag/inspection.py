"""Looks at a collection: how much is in it, and whether what is kept of it fits together. Blocks."""

from backend.core.documents.records import Collection, Stats, Verification

from .originals import FILES, remove_leftovers
from .shelf import OpenCollection


def measure(collection: Collection, opened: OpenCollection) -> Stats:
    totals = opened.store.totals(opened.model.fingerprint)
    paths = [path for path in opened.folder.rglob("*") if path.is_file() and path.parent.name != FILES]
    sizes = {path: path.stat().st_size for path in paths}
    database = sum(size for path, size in sizes.items() if path.name.startswith("collection.db"))
    return Stats(
        documents=totals.documents,
        chunks=totals.chunks,
        bytes=totals.size,
        model=totals.model,
        stale_documents=totals.stale,
        changed_at=totals.changed_at or collection.created_at,
        database_bytes=database,
        cache_bytes=sum(sizes.values()) - database,
    )


def verify(opened: OpenCollection) -> Verification:
    """Remove leftovers, make the caches anew, and compare them and the files with the database."""
    remove_leftovers(opened.store)
    problems = opened.store.check()
    missing = [one for one in opened.store.document_ids() if not (opened.folder / FILES / one).is_file()]
    problems += [f"The original of the document {one} is missing." for one in sorted(missing)]
    if opened.is_stale():
        problems.append("Documents were made with another embedding model: re-index the collection.")
    elif not problems:
        problems += opened.rebuild()
    totals = opened.store.totals(opened.model.fingerprint)
    return Verification(totals.documents, totals.chunks, tuple(problems))
