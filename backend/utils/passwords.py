"""Passwords: which are allowed, and bcrypt away from the event loop.

bcrypt reads 72 bytes and ignores the rest, so that a longer password would be weaker than its owner believes: it is
refused, counted in bytes of UTF-8 (an emoji is four). A hash costs a large part of a second of CPU by design; two
threads compute them, a bounded number of callers waits, and the event loop never does.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from passlib.context import CryptContext

from backend.core.errors import Unavailable, Unprocessable

T = TypeVar("T")

MAX_BYTES = 72
THREADS = 2
MAX_WAITING = 32
WAIT_TIMEOUT_S = 60

log = logging.getLogger(__name__)


def check_password(password: str) -> None:
    """Refuse a password that bcrypt would not keep whole.

    Raises:
        Unprocessable: empty, over 72 bytes, with a NUL character, or not encodable.
    """
    if not password:
        raise Unprocessable("The password is empty. Choose one of 1 to 72 bytes.", param="password")
    if "\0" in password:
        raise Unprocessable("The password holds a NUL character, where bcrypt would stop reading.", param="password")
    try:
        size = len(password.encode())
    except UnicodeEncodeError:
        raise Unprocessable("The password is not valid Unicode text.", param="password") from None
    if size > MAX_BYTES:
        raise Unprocessable(
            f"The password has {size} bytes and bcrypt reads only the first {MAX_BYTES}. Choose a shorter one; letters "
            "beyond ASCII count two to four bytes each.",
            param="password",
        )


class Passwords:
    """Hashes passwords and checks them.

    Raises (from `hash` and `verify`):
        Unavailable: too many others wait for the same.
    """

    def __init__(self, rounds: int) -> None:
        self._context = CryptContext(schemes=["bcrypt"], bcrypt__rounds=rounds)
        # A hash of the same cost that no password has, for names that do not exist.
        self._nobodys_hash = f"$2b${rounds:02d}${'.' * 53}"
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="bcrypt")
        self._places = threading.BoundedSemaphore(THREADS + MAX_WAITING)

    async def hash(self, password: str) -> str:
        """Check the rules, then hash.

        Raises:
            Unprocessable: see `check_password`.
        """
        check_password(password)
        return await self._run(lambda: self._context.hash(password))

    async def verify(self, password: str, password_hash: str | None) -> bool:
        """Whether the password has this hash. None (nobody has that name) is never right and takes as long."""
        return await self._run(lambda: self._verify(password, password_hash))

    def needs_rehash(self, password_hash: str) -> bool:
        """Whether the hash was made at another cost than the one set now."""
        return self._context.needs_update(password_hash)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _verify(self, password: str, password_hash: str | None) -> bool:
        try:
            check_password(password)
        except Unprocessable:  # cannot be right: no such password was ever accepted
            password, password_hash = "-", None
        try:
            return self._context.verify(password, password_hash or self._nobodys_hash) and password_hash is not None
        except ValueError:
            log.warning("A stored password hash is damaged: its user cannot sign in until an admin sets a new one.")
            return False

    async def _run(self, work: Callable[[], T]) -> T:
        if not self._places.acquire(blocking=False):
            raise Unavailable("Too many sign-ins at once. Try again shortly.", retry_after_s=5)
        job = self._threads.submit(work)
        job.add_done_callback(self._free_place)
        try:
            async with asyncio.timeout(WAIT_TIMEOUT_S):
                return await asyncio.wrap_future(job)
        except TimeoutError:
            raise Unavailable("Too many sign-ins at once. Try again shortly.", retry_after_s=5) from None

    def _free_place(self, _job: Future[T]) -> None:
        self._places.release()
