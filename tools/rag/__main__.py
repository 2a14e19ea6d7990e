"""Collections from the command line, over the same settings and data as the servers: `python -m tools.rag --help`.

Works while they are down, and while they run: they see a change with their next request. Whoever may run this on the
server's machine owns the data, so a user is only named, and no password is asked.

Exit codes: 0 done, 1 refused, or something could not be read or is not well (a line each says why), 2 wrong usage.
"""

import argparse
import asyncio
import shutil
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TextIO

from sqlalchemy.exc import SQLAlchemyError

from backend.core.documents.reading import DocumentReaders
from backend.core.documents.records import Collection, Passage, Progress
from backend.core.documents.uploads import FileTaken, IncomingFile, add_files
from backend.core.errors import ApiError, NotFound
from backend.core.storage.database import Database
from backend.core.storage.users import get_user
from config import Settings, load_settings

from .collections import DEFAULT, Collections
from .embedder import Embedder, ModelMissing
from .reranker import Reranker

PROGRAM = "python -m tools.rag"
PAGE = 1000
BAR_COLUMNS = 24
TEXT_COLUMNS = 300  # of a passage
EXAMPLES = """\
examples:
  python -m tools.rag ingest manuals/ --collection manuals --user alice
  python -m tools.rag search "how do I reset it" --collection manuals --user alice
  python -m tools.rag list --user alice                                  her collections
  python -m tools.rag list --user alice --collection manuals             the documents of one
"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _make_parser().parse_args(arguments)
    settings = load_settings()
    try:
        return asyncio.run(_carry_out(options, settings))
    except ApiError as error:
        return _refuse(error.message)
    except ModelMissing as error:
        return _refuse(str(error))
    except SQLAlchemyError as error:
        return _refuse(f"The database cannot be used: {str(error).splitlines()[0]}")
    except OSError as error:
        return _refuse(f"{error.filename or settings.DATA_DIR}: {error.strerror}")
    except KeyboardInterrupt:
        return _refuse("Stopped. Documents that were done are kept; the one that was being read is not.")


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Fill and look at collections of documents, whether the servers are running or not.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--user", metavar="NAME", required=True, help="whose collections")
    one = argparse.ArgumentParser(add_help=False)
    one.add_argument("--collection", metavar="NAME", default=DEFAULT, help=f"name or id (default: {DEFAULT})")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    ingest = commands.add_parser("ingest", parents=[common, one], help="read files and folders into a collection")
    ingest.add_argument("paths", nargs="+", type=Path, metavar="FOLDER", help="folders, with all below them, and files")
    search = commands.add_parser("search", parents=[common, one], help="show the passages that fit a question best")
    search.add_argument("query")
    search.add_argument("--limit", type=int, default=5, metavar="N", help="how many (default: 5)")
    commands.add_parser("stats", parents=[common, one], help="show what a collection holds")
    commands.add_parser("verify", parents=[common, one], help="make its indexes anew, and compare all there is")
    listing = commands.add_parser("list", parents=[common], help="show the collections, or the documents of one")
    listing.add_argument("--collection", metavar="NAME", help="name or id")
    return parser


async def _carry_out(options: argparse.Namespace, settings: Settings) -> int:
    async with _opened(settings, options.user, reranked=options.command == "search") as (collections, username):
        match options.command:
            case "ingest":
                return await _ingest(collections, username, options.collection, options.paths)
            case "search":
                found = await collections.search(username, [options.collection], options.query, limit=options.limit)
                _say("\n\n".join(_show(number, passage) for number, passage in enumerate(found, 1)) or "Nothing found.")
            case "stats":
                await _show_stats(collections, username, options.collection)
            case "verify":
                return await _verify(collections, username, options.collection)
            case "list" if options.collection:
                await _list_documents(collections, username, options.collection)
            case "list":
                await _list_collections(collections, username)
    return 0


@asynccontextmanager
async def _opened(settings: Settings, name: str, *, reranked: bool) -> AsyncIterator[tuple[Collections, str]]:
    """The collections, and the user's name as it is kept."""
    database = Database(settings.database_url)
    await database.open()
    try:
        user = await database.read(lambda connection: get_user(connection, name))
    finally:
        await database.close()
    embedder = Embedder(settings.RAG_EMBEDDING_MODEL)
    reranker = Reranker(settings.RAG_RERANK_MODEL) if settings.RAG_RERANK_MODEL and reranked else None
    collections = Collections(settings, embedder, DocumentReaders(), reranker)
    try:
        await embedder.start()
        if reranker:
            await reranker.start()
        await collections.start()
        yield collections, user.username
    finally:
        await collections.close()
        await embedder.close()
        if reranker:
            await reranker.close()


async def _ingest(collections: Collections, username: str, ref: str, paths: Sequence[Path]) -> int:
    files = await asyncio.to_thread(_find_files, paths)
    if not files:
        return _refuse("There are no files. Name files, or folders that hold some.")
    collection = await _find_or_create(collections, username, ref)
    failed = 0
    with _Bar(len(files), sys.stderr) as bar:
        async with aclosing(add_files(collections, username, collection.id, files)) as news:
            async for item in news:
                if isinstance(item, Progress):
                    bar.show(item)
                else:
                    bar.clear()
                    bar.done += 1
                    failed += item.added is None
                    _say(_outcome(item))
    _say(f"{len(files) - failed} of {len(files)} files are in the collection {collection.name}.")
    return 1 if failed else 0


def _find_files(paths: Iterable[Path]) -> list[IncomingFile]:
    """All files, those in folders under their path within the folder. Hidden ones are left out. Blocks.

    Raises:
        NotFound: there is no such path.
    """
    found: list[IncomingFile] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(one for one in path.rglob("*") if one.is_file())
            names = [(one, one.relative_to(path)) for one in inside]
            found += [IncomingFile(name.as_posix(), one) for one, name in names if not _is_hidden(name)]
        elif path.is_file():
            found.append(IncomingFile(path.name, path))
        else:
            raise NotFound(f"There is no file or folder {path}.")
    return found


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


async def _find_or_create(collections: Collections, username: str, ref: str) -> Collection:
    try:
        return await collections.get(username, ref)
    except NotFound:
        return await collections.create(username, ref)


def _outcome(taken: FileTaken) -> str:
    if taken.added is None:
        return f"failed     {taken.name}: {taken.error.message if taken.error else 'It could not be read.'}"
    document = taken.added.document
    pages = f"{document.pages} pages, " if document.pages else ""
    problems = "".join(f"\n           {problem}" for problem in document.problems)
    return f"{taken.added.outcome:<10} {document.name}: {pages}{document.chunks} chunks{problems}"


def _show(number: int, passage: Passage) -> str:
    place = ", ".join(part for part in (passage.document, _pages(passage), passage.section) if part)
    text = " ".join(passage.text.split())
    shown = text if len(text) <= TEXT_COLUMNS else f"{text[:TEXT_COLUMNS]}..."
    return f"[{number}] {place}  (score {passage.score:.2f}, similarity {passage.similarity:.2f})\n    {shown}"


def _pages(passage: Passage) -> str:
    if passage.page is None:
        return ""
    several = passage.last_page is not None and passage.last_page != passage.page
    return f"pages {passage.page} to {passage.last_page}" if several else f"page {passage.page}"


async def _show_stats(collections: Collections, username: str, ref: str) -> None:
    collection, stats = await collections.get(username, ref), await collections.stats(username, ref)
    rows = {
        "collection": f"{collection.name} ({collection.id})",
        "owner": collection.owner,
        "documents": f"{stats.documents:,}",
        "chunks": f"{stats.chunks:,}",
        "originals": _size(stats.bytes),
        "database": _size(stats.database_bytes),
        "indexes": _size(stats.cache_bytes),
        "model": stats.model or "none yet",
    }
    if stats.stale_documents:
        rows["stale"] = f"{stats.stale_documents:,} documents were made with another model: re-index the collection"
    _say("\n".join(f"{name:<11}{value}" for name, value in rows.items()))


async def _verify(collections: Collections, username: str, ref: str) -> int:
    found = await collections.verify(username, ref)
    for problem in found.problems:
        _refuse(problem)
    _say(
        f"{found.documents:,} documents with {found.chunks:,} chunks: {'not well' if found.problems else 'all is well'}"
    )
    return 1 if found.problems else 0


async def _list_collections(collections: Collections, username: str) -> None:
    for collection in await collections.list_all(username):
        stats = await collections.stats(username, collection.id)
        shared = "" if collection.owner == username else f"  shared by {collection.owner}"
        _say(f"{collection.id}  {stats.documents:>6} documents  {collection.name}{shared}")


async def _list_documents(collections: Collections, username: str, ref: str) -> None:
    after = None
    while page := await collections.list_documents(username, ref, limit=PAGE, after=after):
        for document in page:
            _say(f"{document.id}  {document.pages or '-':>5} pages  {document.chunks:>6} chunks  {document.name}")
        after = page[-1].id


class _Bar:
    """How far the files are, in the last line of a terminal; nothing elsewhere."""

    def __init__(self, files: int, terminal: TextIO) -> None:
        self.done = 0
        self._files = files
        self._terminal = terminal if terminal.isatty() else None

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def show(self, progress: Progress) -> None:
        filled = round(BAR_COLUMNS * progress.percent / 100)
        bar = "#" * filled + "." * (BAR_COLUMNS - filled)
        pages = f"page {progress.page} of {progress.pages}, " if progress.pages else ""
        line = f"{self.done + 1}/{self._files} [{bar}] {progress.percent:3.0f} %  {progress.name}: {pages}"
        self._write(f"{line}{progress.embedded} of {progress.chunks} chunks")

    def clear(self) -> None:
        self._write("")

    def _write(self, line: str) -> None:
        if self._terminal:
            columns = shutil.get_terminal_size().columns
            self._terminal.write(f"\r\x1b[K{_printable(line)[: columns - 1]}")
            self._terminal.flush()


def _size(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB"


def _printable(text: str) -> str:
    """Names and texts are strangers': they are not to steer a terminal."""
    return "".join(one if one.isprintable() or one == "\n" else "\N{REPLACEMENT CHARACTER}" for one in text)


def _say(text: str) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(_printable(text).encode(encoding, "replace").decode(encoding) + "\n")


def _refuse(message: str) -> int:
    sys.stderr.write(f"{PROGRAM}: {_printable(message)}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
