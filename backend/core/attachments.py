"""Files that come with a question: kept in the session's scratch folder, and described to the model.

The model reads a description without calling any tool; a tool of the session finds the file under its own name. A file
is never in memory as a whole: it is copied to a place that no tool reaches, looked at there by a process of its own,
and then moved to where tools may do with it what they like.
"""

import asyncio
import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from backend.core.documents.reading import MAX_DESCRIPTION_BYTES, DocumentReaders
from backend.core.errors import StorageFailed
from backend.core.messages import Content, Message, TextPart
from backend.core.storage.drafts import Drafts
from backend.utils.clean_text import clean_text
from backend.utils.paths import safe_join
from backend.utils.unique_ids import unique_hex

MAX_ALL_BYTES = 3 * MAX_DESCRIPTION_BYTES  # of the descriptions of all files of one request
MIN_BYTES = 1_000
MAX_NAME_BYTES = 200
NAMELESS = "attachment"


@dataclasses.dataclass(frozen=True, slots=True)
class Attachment:
    name: str  # what the client calls it; only what is safe of its last component is used
    media_type: str
    file: BinaryIO
    message: int | None = None  # the message that it belongs to; None: the newest question


@dataclasses.dataclass(frozen=True, slots=True)
class FileReference:
    """A file as a part of a message names it, before it is an attachment."""

    message: int
    param: str  # where it is named
    name: str | None = None
    data: str | None = None  # a data URL or bare base64
    file_id: str | None = None


class Attachments:
    """One for the life of a process."""

    def __init__(self, drafts: Drafts, readers: DocumentReaders) -> None:
        self._drafts = drafts
        self._readers = readers

    async def attach(
        self,
        messages: tuple[Message, ...],
        attachments: Sequence[Attachment],
        folder: Path | None,
        *,
        known_messages: int = 0,
    ) -> tuple[Message, ...]:
        """Keep the files, and return the messages with the files' descriptions added to those that they belong to.

        Args:
            folder: where they are kept; None keeps nothing.
            known_messages: the files of so many messages are there already, since the client says everything again:
                what a tool has made of them stays.

        Raises:
            StorageFailed: a file could not be written.
        """
        asked = max((index for index, message in enumerate(messages) if message.role == "user"), default=len(messages))
        if asked == len(messages):
            messages = (*messages, Message("user"))
        max_bytes = max(MIN_BYTES, min(MAX_DESCRIPTION_BYTES, MAX_ALL_BYTES // max(1, len(attachments))))
        names = list(_unlike(safe_name(attachment.name) for attachment in attachments))
        places = [asked if attachment.message is None else attachment.message for attachment in attachments]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(
                        self._take_in(attachment, name, folder if place >= known_messages else None, max_bytes)
                    )
                    for attachment, name, place in zip(attachments, names, places, strict=True)
                ]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        described = list(messages)
        for place, task in zip(places, tasks, strict=True):
            described[place] = _add_text(described[place], task.result())
        return tuple(described)

    async def _take_in(self, attachment: Attachment, name: str, folder: Path | None, max_bytes: int) -> str:
        async with self._drafts.take(attachment.file, unique_hex(8)) as draft:
            description = await self._readers.describe(draft.path, name, attachment.media_type, max_bytes=max_bytes)
            if folder:
                try:
                    await asyncio.to_thread(_move, draft.path, folder, name)
                except OSError:
                    raise StorageFailed("An attached file could not be kept: the disk is full or broken.") from None
        return description


def safe_name(name: str) -> str:
    """What a file may be called that somebody else calls so: one component, visible, and of a bounded length."""
    last = clean_text(name).replace("\\", "/").rpartition("/")[2]
    last = "".join(character for character in last if character.isprintable()).strip().lstrip(".")
    suffix = PurePosixPath(last).suffix
    if len(suffix.encode()) > MAX_NAME_BYTES // 4:
        suffix = ""
    stem = last.removesuffix(suffix).encode()[: MAX_NAME_BYTES - len(suffix.encode())].decode("utf-8", "ignore")
    return stem + suffix or NAMELESS


def _unlike(names: Iterator[str]) -> Iterator[str]:
    """The names, each at most once."""
    used: set[str] = set()
    for name in names:
        free = next(candidate for candidate in _numbered(name) if candidate not in used)
        used.add(free)
        yield free


def _numbered(name: str) -> Iterator[str]:
    path = PurePosixPath(name)
    return itertools.chain((name,), (f"{path.stem} ({number}){path.suffix}" for number in itertools.count(2)))


def _move(draft: Path, folder: Path, name: str) -> None:
    """Put a file into the scratch folder. A new one takes the place of its name: a link there is not followed."""
    draft.chmod(0o644)
    places = (safe_join(folder, each) for each in _numbered(name))
    draft.replace(next(place for place in places if place.is_symlink() or not place.is_dir()))


def _add_text(message: Message, text: str) -> Message:
    content: Content
    if isinstance(message.content, str):
        content = "\n\n".join(filter(None, (message.content, text)))
    else:
        content = (*message.content, TextPart(text))
    return dataclasses.replace(message, content=content)
