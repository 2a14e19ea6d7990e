"""From how a call ended to what the caller reads."""

import signal
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_from_bytes

from backend.core.contracts import ToolResult

from .interpreter_client import Ending
from .output import clean

STOPPED_EXIT_CODE = 124  # as `timeout` has it
MAX_FILES = 100
_HINTS = {
    "gaierror": "There is no network in here.",
    "URLError": "There is no network in here.",
    "ConnectionError": "There is no network in here.",
    "ModuleNotFoundError": "Packages cannot be installed in here: use those that are there.",
    "EOFError": "There is nobody to answer input(): put the values into the code.",
}


@dataclass(frozen=True, slots=True)
class File:
    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Call:
    """All that is known of a call when it is over."""

    session_id: str
    ending: Ending
    texts: dict[str, str]  # stdout, stderr, value: as they are to be shown
    files: tuple[File, ...]
    duration_s: float
    isolation: dict[str, Any]
    notices: tuple[str, ...]
    out_of_memory: bool = False


def build_result(call: Call) -> ToolResult:
    ending = call.ending
    error = clean(_describe_failure(call))
    files = [
        {"name": _printable(file.name), "size": file.size, "url": file_url(call.session_id, file.name)}
        for file in call.files[:MAX_FILES]
    ]
    data = {
        **call.texts,
        "value": call.texts["value"] or None,
        "files": files,
        "exit_code": _exit_code(ending),
        "duration_s": round(call.duration_s, 4),
        "isolation": call.isolation,
    }
    metadata: dict[str, Any] = {"state_kept": ending.died is None, "notices": list(call.notices)}
    if len(call.files) > MAX_FILES:
        metadata["files_not_listed"] = len(call.files) - MAX_FILES
    answer = _write_answer(files, error, call)
    return ToolResult(success=not error, answer=answer, data=data, metadata=metadata, error=error or None)


def file_url(session_id: str, name: str) -> str:
    """Where the main API serves a file. `name` may hold bytes that are no text."""
    raw = name.encode("utf-8", "surrogateescape")
    return f"/api/chat/sessions/{quote_from_bytes(session_id.encode(), safe='')}/files/{quote_from_bytes(raw)}"


def _write_answer(files: list[dict[str, Any]], error: str, call: Call) -> str:
    texts = call.texts
    parts = [f"Note: {notice}" for notice in call.notices]
    for title, text in (("Output", texts["stdout"]), ("Value", texts["value"]), ("Errors", texts["stderr"])):
        if text.strip():
            parts.append(f"{title}:\n{text.rstrip()}")
    if files:
        parts.append(
            "Files:\n" + "\n".join(f"- {file['name']} ({file['size']} bytes): {file['url']}" for file in files)
        )
    if error and error not in texts["stderr"]:
        parts.append(f"Error: {error}")
    return "\n\n".join(parts) or "The code ran and wrote nothing."


def _describe_failure(call: Call) -> str:
    """One line for the model; empty when the code did what it should."""
    ending = call.ending
    if ending.died is None:
        if ending.exit_code == 0:
            return ""
        if ending.stopped:
            return f"The code was stopped: {ending.stopped}. Its variables are kept."
        hint = next((hint for sign, hint in _HINTS.items() if sign in ending.error), "")
        return f"{ending.error or f'exit code {ending.exit_code}'}{f' ({hint})' if hint else ''}"
    reason = ending.stopped or ending.died.reason
    if reason:
        why = f"The code was stopped: {reason}."
    elif call.out_of_memory:
        why = "The code was stopped: it used more memory than it may."
    elif ending.died.status < 0:
        why = f"The interpreter was killed by {_signal_name(-ending.died.status)}."
    else:
        why = f"The code ended the interpreter with exit code {ending.died.status}."
    return f"{why} The interpreter was replaced: variables are gone, files are kept."


def _exit_code(ending: Ending) -> int:
    if ending.stopped and (ending.died or ending.exit_code):
        return STOPPED_EXIT_CODE
    return ending.died.status if ending.died else ending.exit_code


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _printable(name: str) -> str:
    return name.encode("utf-8", "replace").decode()
