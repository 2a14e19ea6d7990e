"""What user code writes: collected up to a bound, shown live, and shortened in the middle for the result."""

import asyncio
import codecs
import re
from collections.abc import Awaitable, Callable

MAX_BYTES = 8 << 20  # of both streams of a call; then the call is stopped
MAX_SHOWN = 16_000  # characters of each stream in a result
PROGRESS_EVERY_S = 0.2
PROGRESS_CHARACTERS = 4000
STREAMS = ("stdout", "stderr")

_TERMINAL_CODES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # colours, cursor
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\\\)?"  # titles, clipboard
    r"|\x1b[@-_]?|[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f]"
)

Progress = Callable[[str, dict[str, object]], Awaitable[None]]


class Output:
    def __init__(self) -> None:
        self.data = {name: bytearray() for name in STREAMS}
        self.full: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._room = MAX_BYTES

    def feed(self, stream: str, data: bytes) -> None:
        self.data[stream] += data[: self._room]
        self._room -= min(len(data), self._room)
        if self._room == 0 and not self.full.done():
            self.full.set_result(None)

    async def show(self, progress: Progress) -> None:
        """Tell a listener what is new, not too often and not too much at once. Runs until it is cancelled."""
        decoders = {name: codecs.getincrementaldecoder("utf-8")("replace") for name in STREAMS}
        shown = dict.fromkeys(STREAMS, 0)
        while True:
            await asyncio.sleep(PROGRESS_EVERY_S)
            for name in STREAMS:
                piece = bytes(self.data[name][shown[name] : shown[name] + PROGRESS_CHARACTERS * 4])
                rest = len(self.data[name]) - shown[name] - len(piece)
                shown[name] += len(piece) + rest
                if text := decoders[name].decode(piece):
                    await progress(shorten(clean(text) + "…" * bool(rest), PROGRESS_CHARACTERS), {"stream": name})


def clean(text: str) -> str:
    """Text without what a terminal would obey: escape sequences and control characters but for line ends and tabs."""
    return _TERMINAL_CODES.sub("", text)


def shorten(text: str, limit: int, whole: str = "") -> str:
    """`text` with its middle left out where it is longer than `limit`, saying how much and where the whole is."""
    if len(text) <= limit:
        return text
    half = limit // 2
    where = f"; whole in {whole}" if whole else ""
    return f"{text[:half]}\n… [{len(text) - 2 * half} characters left out{where}] …\n{text[-half:]}"
