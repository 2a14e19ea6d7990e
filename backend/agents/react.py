"""Thinks and acts in turn until it can answer. `react_run` has the loop."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from backend.agents.endings import link_files
from backend.agents.guards import Budget
from backend.agents.means import Means
from backend.agents.react_run import ReActRun
from backend.core.contracts import Turn
from backend.core.events import Event, RunFinished, TextDelta
from backend.core.prompts import load_prompt

PROMPTS = (
    "react",
    "react_no_tools",
    "react_constrained",
    "write_answer",
    "last_answer",
    "nudge_empty",
    "nudge_promise",
    "nudge_call",
    "nudge_decision",
)


class ReActAgent:
    def __init__(self, means: Means) -> None:
        self._means = means
        for name in PROMPTS:
            load_prompt(f"agents/{name}")  # read here, so that no request waits for the disk

    async def run(self, turn: Turn) -> AsyncGenerator[Event, None]:
        budget = Budget(self._means.limits)
        run = ReActRun(self._means, turn, budget)
        async with aclosing(run.events()) as events:
            async for event in events:
                yield event
        if run.finish_reason != "tool_calls" and (links := link_files(run.outcomes, run.text, turn)):
            yield TextDelta(links)
        yield RunFinished(run.finish_reason, budget.usage)
