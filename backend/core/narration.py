"""What an agent does, told in short lines for people: chat UIs show them with the thoughts, in their foldable block."""

from typing import Any

import orjson

from backend.core.events import (
    AgentSelected,
    Event,
    PlanMade,
    StepFinished,
    StepStarted,
    ToolFinished,
    ToolProgress,
    ToolStarted,
)

MAX_LINE = 400


def narrate(event: Event) -> str:
    """Lines of their own; empty for an event that has nothing to tell."""
    match event:
        case AgentSelected(agent, reason):
            return _line(f"Agent: {agent} ({reason})")
        case PlanMade(steps, revision):
            title = f"New plan (change {revision}):" if revision else "Plan:"
            return "\n" + "\n".join([title, *map(_describe_step, steps)]) + "\n"
        case StepStarted(index, title) if title:
            return _line(f"Step {index}: {title}")
        case StepFinished(index, success, summary):
            return _line(f"Step {index} {'is done' if success else 'failed'}: {summary}")
        case ToolStarted(_, tool, arguments):
            return _line(f"→ {tool} {_one_text(arguments)}")
        case ToolProgress(_, _, message):
            return _line(f"· {message}")
        case ToolFinished(_, tool, success, summary):
            return _line(f"{'←' if success else '✗'} {tool}: {summary}")
        case _:
            return ""


def _line(text: str) -> str:
    return f"\n{text if len(text) <= MAX_LINE else text[: MAX_LINE - 1] + '…'}\n"


def _describe_step(step: dict[str, Any]) -> str:
    tool = f" [{step['tool']}]" if step.get("tool") else ""
    after = f" (after {', '.join(map(str, step['depends_on']))})" if step.get("depends_on") else ""
    return _line(f"{step['id']}. {step['goal']}{tool}{after}").strip("\n")


def _one_text(arguments: dict[str, Any]) -> str:
    """The arguments; a single text stands for itself, since code and queries read badly as JSON."""
    match list(arguments.values()):
        case [str(text)]:
            return text
        case _:
            return orjson.dumps(arguments, default=str).decode()
