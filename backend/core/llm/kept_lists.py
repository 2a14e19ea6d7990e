"""The last known lists of models, in a file, so that they outlive the process. A cache: losing it costs nothing."""

import asyncio
import logging
import os
import threading
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from backend.core.llm.base import ModelInfo

Lists = dict[str, list[ModelInfo]]  # by the name of the backend
_LISTS = TypeAdapter(Lists)

logger = logging.getLogger(__name__)


class KeptLists:
    """The file at `path`; None keeps nothing. Never raises: what goes wrong with the file is logged."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._saving = asyncio.Lock()
        self._content = b""  # of the file, as far as this process knows

    async def load(self) -> Lists:
        if self._path is None:
            return {}
        try:
            self._content = await asyncio.to_thread(self._path.read_bytes)
            return _LISTS.validate_json(self._content)
        except FileNotFoundError:
            return {}
        except (OSError, ValidationError):
            logger.warning("The kept lists of models cannot be read; they will be made anew.")
            return {}

    async def save(self, lists: Lists) -> None:
        """Replace the file in one step, if anything is new."""
        if self._path is None:
            return
        async with self._saving:
            content = _LISTS.dump_json(lists)
            if content == self._content:
                return
            try:
                await asyncio.to_thread(_replace, self._path, content)
                self._content = content
            except OSError as error:
                logger.warning("The lists of models could not be kept: %s", error.strerror)


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        draft.write_bytes(content)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
