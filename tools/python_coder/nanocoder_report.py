"""From how a task ended to what the caller reads.

nanocoder's own report is one JSON object on its standard output, written by a process that a model steers: it is read
with care and believed only for what it says. Which files changed is what the server itself has seen.
"""

import json
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from backend.core.contracts import ToolResult

from .output import MAX_SHOWN, clean, shorten
from .results import MAX_FILES, STOPPED_EXIT_CODE, File, file_url

MAX_CALLS_SHOWN = 100
MAX_CALL_TEXT = 2000
_EXIT_CODES = {
    1: "nanocoder failed",
    2: "nanocoder waited for an approval that nobody gives",
    134: "nanocoder ran out of memory",
    137: "nanocoder was killed, most likely since it used more memory than it may",
}


class _Call(BaseModel):
    name: str
    arguments: Any = None
    result: Any = None
    error: Any = None

    def show(self) -> dict[str, Any]:
        texts = {"arguments": _text(self.arguments), "result": _text(self.result), "error": _text(self.error)}
        return {"name": self.name[:100], **{name: shorten(text, MAX_CALL_TEXT) for name, text in texts.items()}}


class _Report(BaseModel):
    finalText: str | None = None
    toolCalls: list[_Call] = []
    message: Any = None


@dataclass(frozen=True, slots=True)
class Task:
    """All that is known of a task when it is over."""

    session_id: str
    stopped: str
    exit_code: int
    stdout: bytes
    stderr: bytes
    model_failure: str
    model_calls: int
    files: tuple[File, ...]
    duration_s: float
    isolation: dict[str, Any]
    notices: tuple[str, ...]


def build_task_result(task: Task) -> ToolResult:
    report = _read_report(task.stdout)
    text = shorten(clean((report and report.finalText) or "").strip(), MAX_SHOWN)
    calls = report.toolCalls if report else []
    error = _describe_failure(task, report, text)
    files = [
        {"name": file.name.encode("utf-8", "replace").decode(), "size": file.size}
        | {"url": file_url(task.session_id, file.name)}
        for file in task.files[:MAX_FILES]
    ]
    notices = list(task.notices)
    if not error and not calls and not files:
        notices.append("The model answered with words alone: it ran nothing and changed no file.")
    data = {
        "stdout": text,
        "stderr": shorten(clean(task.stderr.decode(errors="replace")), MAX_SHOWN),
        "value": None,
        "files": files,
        "exit_code": STOPPED_EXIT_CODE if task.stopped else task.exit_code,
        "duration_s": round(task.duration_s, 4),
        "isolation": task.isolation,
        "tool_calls": [call.show() for call in calls[:MAX_CALLS_SHOWN]],
    }
    metadata: dict[str, Any] = {"mode": "nanocoder", "model_calls": task.model_calls, "notices": notices}
    if len(task.files) > MAX_FILES:
        metadata["files_not_listed"] = len(task.files) - MAX_FILES
    parts = [f"Note: {notice}" for notice in notices] + [text] * bool(text)
    if files:
        parts.append("Files:\n" + "\n".join(f"- {one['name']} ({one['size']} bytes): {one['url']}" for one in files))
    if error:
        parts.append(f"Error: {error}")
    return ToolResult(not error, "\n\n".join(parts), data, metadata, error or None)


def _read_report(stdout: bytes) -> _Report | None:
    text = stdout.decode(errors="replace")
    try:
        return _Report.model_validate(json.loads(text[text.index("{") :]))
    except (ValueError, RecursionError):
        return None


def _describe_failure(task: Task, report: _Report | None, text: str) -> str:
    """One line; empty when the task came to its end."""
    kept = "Files that it had changed by then are kept."
    if task.stopped:
        return f"The task was stopped: {task.stopped}. {kept}"
    if task.model_failure and (task.exit_code or not text):
        return f"The task was given up, since the model could not be asked: {task.model_failure} {kept}"
    if task.exit_code:
        said = _text((report and report.message) or task.stderr.decode(errors="replace")[-500:])
        why = _EXIT_CODES.get(task.exit_code, f"nanocoder ended with exit code {task.exit_code}")
        return clean(f"The task failed: {why}{f' ({shorten(said.strip(), 500)})' if said.strip() else ''}. {kept}")
    if report is None:
        return f"The task failed: nanocoder ended without a report that can be read. {kept}"
    return "" if text or task.files else "The task brought nothing: the model's answers were empty. Say it differently."


def _text(value: Any) -> str:
    if value is None:
        return ""
    return clean(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
