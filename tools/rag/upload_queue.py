"""Uploads take turns: some documents are read at once, some wait, and one more is refused."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from backend.core.errors import Unavailable

MAX_UPLOADS = 2  # documents that are read at once; others wait
MAX_WAITING_UPLOADS = 64
UPLOAD_WAIT_S = 600.0


class UploadQueue:
    def __init__(self) -> None:
        self._places = asyncio.Semaphore(MAX_UPLOADS)
        self._waiting = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """
        Raises:
            Unavailable: too many wait, or the turn did not come.
        """
        if self._waiting >= MAX_WAITING_UPLOADS:
            raise Unavailable("Too many documents wait to be read. Try again later.", retry_after_s=30)
        self._waiting += 1
        try:
            async with asyncio.timeout(UPLOAD_WAIT_S):
                await self._places.acquire()
        except TimeoutError:
            raise Unavailable("Too many documents are being read. Try again later.", retry_after_s=60) from None
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._places.release()
