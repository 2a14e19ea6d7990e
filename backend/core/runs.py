"""Traces of runs: everything that an agent did for one answer, with whole results, for people who want to know.

A trace is one JSON file, `DATA_DIR/runs/SESSION/RUN.json`; it goes when its session goes:

    {"run_id", "session_id", "agent", "model", "started_at", "duration_s", "finish_reason", "usage", "interrupted",
     "events": [{"at", "type", ...}]}

`at` is in seconds from the start. Pieces of one text are joined. Results of tools beyond `MAX_RESULTS_BYTES` in all are
kept shortened. `describe_run` tells the same in a few lines, for the model that is asked the next question.
"""

import asyncio
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from backend.core.answers import Answer
from backend.core.errors import NotFound
from backend.core.events import Event, ReasoningDelta, RunFinished, TextDelta, ToolFinished, ToolStarted
from backend.core.messages import Message, TextPart
from backend.core.storage import prefixes
from backend.core.storage.conversation_format import dump
from backend.core.storage.conversations import StoredMessage
from backend.core.untrusted import mark_as_data, shorten
from backend.utils.atomic_files import write_atomically
from backend.utils.paths import safe_join

MAX_RESULTS_BYTES = 32 * 2**20
MAX_NOTE_CHARS = 2_000
MAX_NOTED_ARGUMENTS = 300
MAX_NOTED_RESULT = 400
RUN_ID = re.compile(r"run_[0-9a-f]{32}")
SESSION_ID = re.compile(r"sess_[0-9a-f]{32}")


def new_run_id() -> str:
    return f"run_{secrets.token_hex(16)}"


class Trace:
    """Grows with each event of a run."""

    def __init__(self, run_id: str, session_id: str, agent: str) -> None:
        self.run_id = run_id
        self.session_id = session_id
        self._agent = agent
        self._started_at = time.time()
        self._start = time.monotonic()
        self._entries: list[tuple[float, Event]] = []
        self._pieces: list[str] = []  # of the text that the last entry begins
        self._texts: dict[int, str] = {}  # whole texts, by the index of the entry that begins them
        self._result_bytes = 0

    def add(self, event: Event) -> None:
        last = self._entries[-1][1] if self._entries else None
        if isinstance(event, TextDelta | ReasoningDelta) and type(event) is type(last):
            self._pieces.append(event.text)
            return
        self._settle()
        if isinstance(event, TextDelta | ReasoningDelta):
            self._pieces = [event.text]
        if isinstance(event, ToolFinished) and event.result is not None:
            event = self._bounded(event)
        self._entries.append((time.monotonic() - self._start, event))

    def render(self, answer: Answer, *, interrupted: bool) -> bytes:
        self._settle()
        usage = answer.usage
        return dump(
            {
                "run_id": self.run_id,
                "session_id": self.session_id,
                "agent": self._agent,
                "model": answer.backend.model if answer.backend else None,
                "backend": answer.backend.backend if answer.backend else None,
                "started_at": datetime.fromtimestamp(self._started_at, UTC),
                "duration_s": round(time.monotonic() - self._start, 3),
                "finish_reason": answer.finish_reason,
                "interrupted": interrupted,
                "usage": {name: getattr(usage, name) for name in usage.__slots__},
                "events": [self._entry(index) for index in range(len(self._entries))],
            }
        )

    def _settle(self) -> None:
        if self._pieces:
            self._texts[len(self._entries) - 1] = "".join(self._pieces)
            self._pieces = []

    def _bounded(self, event: ToolFinished) -> ToolFinished:
        size = len(dump(event.result))
        if self._result_bytes + size > MAX_RESULTS_BYTES:
            cut = {"cut": "The results of this run are too long to be kept whole.", "summary": event.summary}
            return ToolFinished(event.call_id, event.tool, event.success, event.summary, event.duration_s, cut)
        self._result_bytes += size
        return event

    def _entry(self, index: int) -> dict[str, Any]:
        at, event = self._entries[index]
        if isinstance(event, TextDelta | ReasoningDelta):
            kind = "text" if isinstance(event, TextDelta) else "thought"
            return {"at": round(at, 3), "type": kind, "text": self._texts[index]}
        fields = {name: getattr(event, name) for name in event.__slots__}
        if isinstance(event, RunFinished):
            fields.pop("usage")
        return {"at": round(at, 3), "type": kind_of(event), **fields}


def kind_of(event: Event) -> str:
    """An event's name as clients see it: `tool_started`, ..."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(event).__name__).lower()


class Runs:
    """The traces of one data folder."""

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir / "runs"

    async def keep(self, trace: Trace, answer: Answer, *, interrupted: bool = False) -> None:
        """
        Raises:
            OSError: it could not be written.
        """
        path = safe_join(self._folder, f"{trace.session_id}/{trace.run_id}.json")

        def write() -> None:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(path, trace.render(answer, interrupted=interrupted))

        await asyncio.to_thread(write)

    async def read(self, session_id: str, run_id: str) -> bytes:
        """A trace as JSON, of a session that the caller has opened.

        Raises:
            NotFound: there is none.
        """
        if not RUN_ID.fullmatch(run_id) or not SESSION_ID.fullmatch(session_id):
            raise _no_such_run()
        path = self._folder / session_id / f"{run_id}.json"
        try:
            return await asyncio.to_thread(path.read_bytes)
        except FileNotFoundError:
            raise _no_such_run() from None


def describe_run(steps: Sequence[Event]) -> str | None:
    """What a model should know of an earlier run of its own: which calls, and what they brought. None: no calls."""
    finished = {step.call_id: step for step in steps if isinstance(step, ToolFinished)}
    lines = []
    for call in steps:
        if isinstance(call, ToolStarted):
            arguments = shorten(orjson.dumps(call.arguments, default=str).decode(), MAX_NOTED_ARGUMENTS)
            end = finished.get(call.call_id)
            result = shorten(end.summary, MAX_NOTED_RESULT) if end else "(it was stopped)"
            lines.append(f"{call.tool} {arguments} {'=>' if end and end.success else 'failed:'} {result}")
    return shorten("\n".join(lines), MAX_NOTE_CHARS) if lines else None


def with_run_notes(messages: Sequence[Message], stored: Sequence[StoredMessage]) -> tuple[Message, ...]:
    """The conversation as a model reads it: before a question stands what was done for the answer before it.

    Answers are known by their text, since a client that sends its own history has nothing else. The note goes to the
    question and not to the answer: a model imitates what it finds in its own answers.
    """
    notes: dict[str, list[str]] = {}
    for kept in stored:
        if kept.run_note:
            notes.setdefault(prefixes.digest((kept.to_message(),)), []).append(kept.run_note)
    if not notes:
        return tuple(messages)
    told: list[Message] = []
    note = None
    for message in messages:
        if message.role == "assistant":
            waiting = notes.get(prefixes.digest((message,)))
            note = waiting.pop(0) if waiting else None
        elif message.role in {"user", "tool"} and note is not None:
            message, note = _prefixed(message, note), None
        told.append(message)
    return tuple(told)


def _prefixed(message: Message, note: str) -> Message:
    text = "For your last answer you used tools:\n" + mark_as_data(note, "your tools") + "\n\n"
    content = text + message.content if isinstance(message.content, str) else (TextPart(text), *message.content)
    return replace(message, content=content)


def _no_such_run() -> NotFound:
    return NotFound("There is no such run. The answer's message in the history has its run_id.", param="run_id")
