"""What an agent is doing, as Open WebUI shows it above an answer that has not begun: one line that changes.

    stream = ... {"event": {"type": "status", "data": {"description", "done"}}} on a chunk with an empty delta ...

The line shimmers until it is told to be done: that comes before the first word of the answer, its end or its error,
whatever is first. Only for that UI, since no other knows the field.
"""

from collections.abc import Mapping
from typing import Any

from backend.api.completions import ChunkEncoder, error_frame
from backend.core.errors import ApiError
from backend.core.events import Event, PlanMade, RunFinished, StepStarted, TextDelta, ToolProgress, ToolStarted
from backend.core.narration import narrate

MAX_CHARS = 160


class StatusLines:
    """A `ChunkEncoder` with such lines between its chunks."""

    def __init__(self, encoder: ChunkEncoder) -> None:
        self._encoder = encoder
        self._shown = ""

    def encode(self, event: Event, choice: int = 0) -> bytes:
        if isinstance(event, TextDelta | RunFinished):
            return self._done() + self._encoder.encode(event, choice)
        frame = self._encoder.encode(event, choice)
        if description := _describe(event):
            self._shown = description
            frame += self._encoder.aside({"event": _status(description, done=False)})
        return frame

    def encode_error(self, error: ApiError) -> bytes:
        return self._done() + error_frame(error)

    def end(self) -> bytes:
        return self._encoder.end()

    def _done(self) -> bytes:
        if not self._shown:
            return b""
        description, self._shown = self._shown, ""
        return self._encoder.aside({"event": _status(description, done=True)})


def _status(description: str, *, done: bool) -> Mapping[str, Any]:
    return {"type": "status", "data": {"description": description, "done": done}}


def _describe(event: Event) -> str:
    match event:
        case PlanMade(steps):
            line = f"Plan with {len(steps)} steps"
        case StepStarted(_, title):
            line = title
        case ToolStarted():
            line = narrate(event)
        case ToolProgress(_, _, message):
            line = message
        case _:
            return ""
    line = " ".join(line.split())
    return line if len(line) <= MAX_CHARS else line[: MAX_CHARS - 1] + "…"
