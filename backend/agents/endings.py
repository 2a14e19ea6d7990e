"""The last words of a run: links to the files that were made, and honest sentences where there is no answer."""

from collections.abc import Sequence

from backend.agents.tool_calls import Outcome
from backend.core.contracts import Turn
from backend.core.untrusted import disarm, shorten

MAX_FINDING_CHARS = 500
MAX_FINDINGS = 10
MAX_LINKS = 50


def link_files(outcomes: Sequence[Outcome], answer: str, turn: Turn) -> str:
    """Links to the files that the answer does not link itself. They work with the user's token."""
    if turn.request.context.session_id is None:  # nothing of this conversation is kept
        return ""
    files = {file.name: file.url for outcome in outcomes for file in outcome.files}
    missing = [f"- [{name}]({url})" for name, url in files.items() if url not in answer]
    return "\n\nFiles:\n" + "\n".join(missing[:MAX_LINKS]) if missing else ""


def describe_findings(outcomes: Sequence[Outcome]) -> str:
    """What the tools brought, for a reader who gets no better answer."""
    found = [outcome for outcome in outcomes if outcome.success][-MAX_FINDINGS:]
    lines = [f"- {outcome.call.tool}: {shorten(disarm(outcome.text), MAX_FINDING_CHARS)}" for outcome in found]
    return "\n\nThis is what the tools brought:\n" + "\n".join(lines) if lines else ""
