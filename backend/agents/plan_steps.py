"""Carries out the steps of a plan: a ReAct run for each, side by side where they do not need each other."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from backend.agents.guards import Budget
from backend.agents.means import Means
from backend.agents.merging import Merged
from backend.agents.plan import PlanStep
from backend.agents.react_run import ReActRun
from backend.agents.tool_calls import Outcome
from backend.core.contracts import Turn
from backend.core.errors import ApiError
from backend.core.events import (
    Event,
    ReasoningDelta,
    StepFinished,
    StepStarted,
    TextDelta,
    ToolFinished,
    ToolStarted,
)
from backend.core.messages import Content, ImagePart, Message, TextPart
from backend.core.prompts import load_prompt
from backend.core.untrusted import mark_as_data, shorten

TRIES = 2
MAX_AT_ONCE = 4
MAX_RESULT_CHARS = 4_000
MAX_SUMMARY_CHARS = 300
MAX_TASK_CHARS = 8_000


@dataclass(frozen=True, slots=True)
class StepResult:
    step: PlanStep
    success: bool
    text: str  # what it brought, or why it failed


class PlanSteps:
    """The steps of one run, over all changes of its plan.

    `results` has the last result of each step that was begun; `outcomes` every call of a tool.
    """

    def __init__(self, means: Means, turn: Turn, budget: Budget) -> None:
        self.results: dict[int, StepResult] = {}
        self.outcomes: list[Outcome] = []
        question = next(
            (message for message in reversed(turn.request.messages) if message.role == "user"), Message("user")
        )
        self.task = shorten(question.text, MAX_TASK_CHARS)
        self._pictures = tuple(part for part in question.content if isinstance(part, ImagePart))
        self._means = means
        self._turn = turn
        self._budget = budget
        self._running: set[int] = set()

    @property
    def done(self) -> list[StepResult]:
        return [result for result in self.results.values() if result.success]

    def find_failed(self, plan: Sequence[PlanStep]) -> list[StepResult]:
        """The steps of a plan that failed, and those that could not be begun."""
        reason = self._budget.find_end() or "it needs a step that failed."
        results = [self.results.get(step.id) or StepResult(step, False, reason) for step in plan]
        return [result for result in results if not result.success]

    async def carry_out(self, plan: Sequence[PlanStep]) -> AsyncGenerator[Event, None]:
        """Run every step whose needs are met, as soon as they are; what needs a step that failed is left undone."""
        waiting = [step for step in plan if step.id not in self.results]
        merged: Merged[Event] = Merged()
        self._start_ready(waiting, merged)
        async with aclosing(merged.items()) as events:
            async for event in events:
                yield event
                if isinstance(event, StepFinished) and event.index in self.results:
                    self._running.discard(event.index)
                    self._start_ready(waiting, merged)

    def _start_ready(self, waiting: list[PlanStep], merged: Merged[Event]) -> None:
        done = {result.step.id for result in self.done}
        for step in [step for step in waiting if set(step.depends_on) <= done]:
            if len(self._running) >= MAX_AT_ONCE or self._budget.find_end():
                return
            waiting.remove(step)
            self._running.add(step.id)
            merged.add(self._run_step(step))

    async def _run_step(self, step: PlanStep) -> AsyncGenerator[Event, None]:
        tries = TRIES if self._means.limits.retry_on_error else 1
        for attempt in range(1, tries + 1):
            yield StepStarted(step.id, step.goal)
            run = ReActRun(self._means, self._step_turn(step), self._budget, step=step.id)
            failure = ""
            try:
                async with aclosing(_told_whole(run.events())) as events:
                    async for event in events:
                        yield event
            except ApiError as error:
                failure = error.message
            self.outcomes += run.outcomes
            failure = failure or run.failure or _failure_of(run.outcomes)
            result = StepResult(step, not failure, failure or run.text.strip())
            is_last = attempt == tries or not failure or bool(self._budget.find_end())
            if is_last:
                self.results[step.id] = result
            yield StepFinished(step.id, result.success, shorten(result.text, MAX_SUMMARY_CHARS))
            if is_last:
                return

    def _step_turn(self, step: PlanStep) -> Turn:
        results = "\n".join(describe_result(self.results[need]) for need in step.depends_on)
        prompt = load_prompt("agents/plan_step").fill(
            task=self.task, goal=step.goal, results=f"\nWhat earlier steps brought:\n{results}" if results else ""
        )
        told = [message for message in self._turn.request.messages if message.role == "system"]
        model = self._means.tool_models.get(step.tool, self._turn.request.model)
        sees = model == self._turn.request.model or "vision" in self._means.models.capabilities(model)
        # Before the words, where the prompts of all steps are still the same.
        content: Content = (*self._pictures, TextPart(prompt)) if self._pictures and sees else prompt
        request = replace(
            self._turn.request,
            model=model,
            messages=(*told, Message("user", content)),
            response_format=None,
        )
        return replace(self._turn, request=request)


def describe_result(result: StepResult) -> str:
    """A result as the model reads it."""
    head = f"Step {result.step.id} ({result.step.goal}){'' if result.success else ' failed'}:"
    return f"{head}\n{mark_as_data(shorten(result.text, MAX_RESULT_CHARS), f'step {result.step.id}')}"


def _failure_of(outcomes: Sequence[Outcome]) -> str:
    """A step none of whose calls succeeded has failed, whatever its model says about it."""
    if not outcomes or any(outcome.success for outcome in outcomes):
        return ""
    return outcomes[-1].text


async def _told_whole(events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
    """The events of a step. What is said in it is told at once, not word by word, since steps run side by side."""
    said: list[str] = []
    async with aclosing(events):
        async for event in events:
            if isinstance(event, ReasoningDelta):
                said.append(event.text)
            elif not isinstance(event, TextDelta):
                if said and isinstance(event, ToolStarted | ToolFinished):
                    yield ReasoningDelta("".join(said))
                    said.clear()
                yield event
    if said:
        yield ReasoningDelta("".join(said))
