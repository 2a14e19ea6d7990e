"""Makes a plan, carries it out with a ReAct run for each step, and writes the answer from the results.

    run = plan (step | new plan)* answer

Steps that do not need each other run at the same time. A step that fails is tried again; after that a new plan is made
for what is left, which keeps what succeeded. What failed for good is named in the answer. The plan, the changes of it
and the answer are one conversation that only grows; each step has a short one of its own.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from backend.agents.endings import describe_findings, link_files
from backend.agents.gate import Gate
from backend.agents.guards import Budget
from backend.agents.listening import Said
from backend.agents.means import Means
from backend.agents.merging import Merged
from backend.agents.model_calls import ModelCalls
from backend.agents.modes import MAX_DECISION_TOKENS
from backend.agents.plan import PlanStep, plan_schema, read_plan
from backend.agents.react_run import ReActRun
from backend.agents.tool_calls import Outcome
from backend.agents.transcript import Transcript
from backend.core.contracts import Turn
from backend.core.errors import ApiError
from backend.core.events import (
    Event,
    FinishReason,
    PlanMade,
    ReasoningDelta,
    RunFinished,
    StepFinished,
    StepStarted,
    TextDelta,
    ToolFinished,
    ToolStarted,
)
from backend.core.llm.base import LLMRequest, ResponseFormat
from backend.core.messages import Message
from backend.core.prompts import load_prompt
from backend.core.untrusted import mark_as_data, shorten

PROMPTS = ("plan", "make_plan", "empty_plan", "replan", "plan_step", "synthesis")
PLAN_TRIES = 2
STEP_TRIES = 2
ANSWER_TRIES = 2
MAX_STEPS_AT_ONCE = 4
MAX_RESULT_CHARS = 4_000
MAX_SUMMARY_CHARS = 300
PLAN_TEMPERATURE = 0.2


@dataclass(frozen=True, slots=True)
class StepResult:
    step: PlanStep
    success: bool
    text: str  # what it brought, or why it failed


class PlanExecuteAgent:
    def __init__(self, means: Means) -> None:
        self._means = means
        for name in PROMPTS:
            load_prompt(f"agents/{name}")

    async def run(self, turn: Turn) -> AsyncGenerator[Event, None]:
        budget = Budget(self._means.limits)
        run = _Run(self._means, turn, budget)
        async with aclosing(run.events()) as events:
            async for event in events:
                yield event
        if links := link_files(run.outcomes, run.text, turn):
            yield TextDelta(links)
        yield RunFinished(run.finish_reason, budget.usage)


class _Run:
    def __init__(self, means: Means, turn: Turn, budget: Budget) -> None:
        self.text = ""
        self.finish_reason: FinishReason = "stop"
        self.outcomes: list[Outcome] = []
        self._means = means
        self._turn = turn
        self._budget = budget
        self._results: dict[int, StepResult] = {}  # the last one of each step
        self._tool_names = tuple(tool.name for tool in turn.tools)
        self._max_steps = means.limits.plan_max_steps
        tools = "\n".join(f"- {tool.name}: {tool.description}" for tool in turn.tools)
        system = load_prompt("agents/plan").fill(max_steps=str(self._max_steps), tools=tools)
        window = means.models.context_tokens(turn.request.model)
        self._transcript = Transcript(system, turn.request.messages, window)
        self._calls = ModelCalls(means.llm, self._transcript, budget)
        self._plan: tuple[PlanStep, ...] = ()
        self._replaced: list[StepResult] = []  # what failed, and is to be done in another way
        self._running: set[int] = set()

    async def events(self) -> AsyncGenerator[Event, None]:
        """Raises: ApiError, while nothing was shown or done"""
        async with aclosing(self._make_plan(load_prompt("agents/make_plan").text)) as events:
            async for event in events:
                yield event
        self._calls.begun = True
        yield PlanMade(tuple(step.to_dict() for step in self._plan))
        for revision in range(1, self._means.limits.plan_max_retries + 2):
            async with aclosing(self._carry_out()) as events:
                async for event in events:
                    yield event
            is_last = revision > self._means.limits.plan_max_retries
            if is_last or not self._failed() or self._budget.find_end():
                break
            plan = self._plan
            async with aclosing(self._change_plan()) as events:
                async for event in events:
                    yield event
            if self._plan is plan:
                break
            yield PlanMade(tuple(step.to_dict() for step in self._plan if step.id not in self._results), revision)
        async with aclosing(self._answer()) as events:
            async for event in events:
                yield event

    # --- The plan ---------------------------------------------------------------------------------------------------

    async def _make_plan(self, prompt: str) -> AsyncGenerator[Event, None]:
        """Ask for a plan. One that is empty, also the second time, is a plan of one step: the task itself.

        Raises:
            ApiError: the very first call failed.
        """
        done = [number for number, result in self._results.items() if result.success]
        first_id = max(self._results, default=0) + 1
        steps: tuple[PlanStep, ...] = ()
        for _ in range(PLAN_TRIES):
            self._transcript.add(Message("user", prompt))
            said = Said()
            try:
                async with aclosing(self._calls.make(self._plan_request, said, None, is_last=False)) as events:
                    async for event in events:
                        yield event
            except ApiError:
                if not self._calls.begun:
                    raise
                break
            self._transcript.add(Message("assistant", said.text if said.text.strip() else "{}"))
            steps = read_plan(
                said.text, tools=self._tool_names, max_steps=self._max_steps, first_id=first_id, done=done
            )
            if steps or self._budget.find_end():
                break
            prompt = load_prompt("agents/empty_plan").text
        if not steps and not self._plan:
            steps = (PlanStep(first_id, shorten(self._task(), MAX_RESULT_CHARS)),)
        if steps:
            self._replaced += self._failed()
            self._plan = (*(self._results[number].step for number in done), *steps)

    def _plan_request(self, transcript: Transcript) -> LLMRequest:
        base = self._turn.request
        sampling = replace(
            base.sampling,
            max_tokens=MAX_DECISION_TOKENS,
            temperature=min(base.sampling.temperature or 0.0, PLAN_TEMPERATURE),
            stop=(),
        )
        form = ResponseFormat(plan_schema(self._tool_names, self._max_steps), "plan")
        return replace(base, messages=transcript.messages, sampling=sampling, response_format=form)

    async def _change_plan(self) -> AsyncGenerator[Event, None]:
        done = [result for result in self._results.values() if result.success]
        prompt = load_prompt("agents/replan").fill(
            done="\n".join(map(_told, done)) or "(none)",
            failed="\n".join(map(_told, self._failed())),
            first_id=str(max(self._results) + 1),
        )
        async with aclosing(self._make_plan(prompt)) as events:
            async for event in events:
                yield event

    # --- The steps --------------------------------------------------------------------------------------------------

    async def _carry_out(self) -> AsyncGenerator[Event, None]:
        """Run every step whose needs are met, as soon as they are; what needs a step that failed is left undone."""
        waiting = [step for step in self._plan if step.id not in self._results]
        merged: Merged[Event] = Merged()
        self._start_ready(waiting, merged)
        async with aclosing(merged.items()) as events:
            async for event in events:
                yield event
                if isinstance(event, StepFinished) and event.index in self._results:
                    self._running.discard(event.index)
                    self._start_ready(waiting, merged)

    def _start_ready(self, waiting: list[PlanStep], merged: Merged[Event]) -> None:
        done = {number for number, result in self._results.items() if result.success}
        for step in [step for step in waiting if set(step.depends_on) <= done]:
            if len(self._running) >= MAX_STEPS_AT_ONCE or self._budget.find_end():
                return
            waiting.remove(step)
            self._running.add(step.id)
            merged.add(self._run_step(step))

    async def _run_step(self, step: PlanStep) -> AsyncGenerator[Event, None]:
        tries = STEP_TRIES if self._means.limits.retry_on_error else 1
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
                self._results[step.id] = result
            yield StepFinished(step.id, result.success, shorten(result.text, MAX_SUMMARY_CHARS))
            if is_last:
                return

    def _step_turn(self, step: PlanStep) -> Turn:
        results = "\n".join(_told(self._results[need]) for need in step.depends_on)
        prompt = load_prompt("agents/plan_step").fill(
            task=self._task(), goal=step.goal, results=f"\nWhat earlier steps brought:\n{results}" if results else ""
        )
        told = [message for message in self._turn.request.messages if message.role == "system"]
        request = replace(
            self._turn.request,
            model=self._means.tool_models.get(step.tool, self._turn.request.model),
            messages=(*told, Message("user", prompt)),
            response_format=None,
        )
        return replace(self._turn, request=request)

    def _task(self) -> str:
        question = next(
            (message.text for message in reversed(self._turn.request.messages) if message.role == "user"), ""
        )
        return shorten(question, MAX_RESULT_CHARS * 2)

    def _failed(self) -> list[StepResult]:
        """The steps of the present plan that failed, and those that could not be begun."""
        reason = self._budget.find_end() or "it needs a step that failed."
        results = [self._results.get(step.id) or StepResult(step, False, reason) for step in self._plan]
        return [result for result in results if not result.success]

    # --- The answer -------------------------------------------------------------------------------------------------

    async def _answer(self) -> AsyncGenerator[Event, None]:
        failed = self._failed()
        if failed and self._budget.find_end():
            self.finish_reason = "length"
        done = [result for result in self._results.values() if result.success]
        prompt = load_prompt("agents/synthesis").fill(
            results="\n".join(map(_told, done)) or "(none)",
            failed="\nThese steps failed:\n" + "\n".join(map(_told, (*self._replaced, *failed))) + "\n"
            if failed or self._replaced
            else "",
        )
        trouble = "the model gave none, although it was asked again"
        for _ in range(ANSWER_TRIES):
            self._transcript.add(Message("user", prompt))
            said, gate = Said(), Gate(watchful=False)
            try:
                async with aclosing(self._calls.make(self._answer_request, said, gate, is_last=True)) as events:
                    async for event in events:
                        if isinstance(event, TextDelta):
                            self.text += event.text
                        yield event
            except ApiError as error:
                trouble = error.message
                break
            if said.finish_reason == "length" or said.finish_reason == "content_filter":
                self.finish_reason = said.finish_reason
            if gate.has_let_through or said.broken_off:
                trouble = said.broken_off and f"it was {said.broken_off}"
                break
            self._transcript.add(Message("assistant", "(nothing)"))
            prompt = load_prompt("agents/nudge_empty").text
        if ending := self._ending(trouble, done, failed):
            self.text += ending
            yield TextDelta(ending)

    def _answer_request(self, transcript: Transcript) -> LLMRequest:
        return replace(self._turn.request, messages=transcript.messages)

    def _ending(self, trouble: str, done: Sequence[StepResult], failed: Sequence[StepResult]) -> str:
        """What the model has left out: that it broke off, what it would have said, and what failed for good."""
        parts = []
        if trouble:
            self.finish_reason = "length"
            reason = f"{trouble[:1].upper()}{trouble[1:].rstrip('.')}."
            if self.text.strip():
                parts.append(f"(The answer breaks off here. {reason})")
            else:
                results = "\n".join(
                    f"- {result.step.goal}: {shorten(result.text, MAX_SUMMARY_CHARS)}" for result in done
                )
                found = f" This is what the steps brought:\n{results}" if results else describe_findings(self.outcomes)
                parts.append(f"I could not write an answer. {reason}{found}")
        unnamed = [result for result in failed if result.step.goal not in self.text]
        if unnamed:
            lines = [
                f"- Step {result.step.id}, {result.step.goal}: {shorten(result.text, MAX_SUMMARY_CHARS)}"
                for result in unnamed
            ]
            parts.append("Not done:\n" + "\n".join(lines))
        return ("\n\n" if self.text.strip() else "") + "\n\n".join(parts) if parts else ""


def _told(result: StepResult) -> str:
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
