"""Several files on their way into a collection, with news of how far they are.

    upload = (Progress* FileTaken)*      in the order of the files

A file that cannot be read is told, and the others follow. Closing the generator stops at once: the file that was being
read leaves nothing behind, and those before it stay.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from backend.core.documents.collections import DocumentCollections, ProgressListener
from backend.core.documents.records import Added, Attributes, Progress
from backend.core.errors import ApiError
from backend.core.inbox import Inbox

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class IncomingFile:
    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class FileTaken:
    """What became of a file: `added`, or the error that kept it out."""

    name: str
    added: Added | None = None
    error: ApiError | None = None


async def add_files(
    collections: DocumentCollections,
    username: str,
    ref: str,
    files: Sequence[IncomingFile],
    attributes: Attributes | None = None,
) -> AsyncGenerator[Progress | FileTaken, None]:
    """
    Args:
        attributes: of each of the documents; None: none, or those that the replaced document has.
    """
    for file in files:

        def add(listen: ProgressListener, file: IncomingFile = file) -> Awaitable[Added]:
            return collections.add(username, ref, file.path, file.name, attributes=attributes, progress=listen)

        try:
            async with aclosing(with_progress(add)) as news:
                async for item in news:
                    yield FileTaken(file.name, item) if isinstance(item, Added) else item
        except ApiError as error:
            yield FileTaken(file.name, error=error)


async def with_progress(work: Callable[[ProgressListener], Awaitable[T]]) -> AsyncGenerator[Progress | T, None]:
    """Yield the work's progress, then what it returns. Closing the generator cancels it, and waits for its end.

    Raises:
        Exception: what the work raises.
    """
    inbox: Inbox[Progress] = Inbox()

    async def listen(progress: Progress) -> None:
        inbox.put(progress)

    task = asyncio.ensure_future(work(listen))
    task.add_done_callback(inbox.close)
    try:
        while await inbox.has_more():
            for progress in inbox.take():
                yield progress
        yield await task
    finally:
        task.cancel()
        await asyncio.wait([task])
