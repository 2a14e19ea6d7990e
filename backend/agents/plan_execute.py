"""Makes a plan, carries it out with a ReAct run for each step, and writes the answer from the results.

    run = plan (step | new plan)* answer

Steps that do not need each other run at the same time. A step that fails is tried again; after that a new plan is made
for what is left, which keeps what succeeded. What failed for good is named in the answer. The plan, the changes of it
and the answer are one conversation that only grows; each step has a short one of its own.
"""

import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from backend.agents.endings import describe_findings, link_files
from backend.agents.gate import Gate
from backend.agents.guards import Budget
from backend.agents.listening import Said
from backend.agents.means import Means
from backend.agents.model_calls import ModelCalls
from backend.agents.modes import MAX_DECISION_TOKENS
from backend.agents.plan import PlanStep, plan_schema, read_plan
from backend.agents.plan_steps import MAX_SUMMARY_CHARS, PlanSteps, StepResult, describe_result
from backend.agents.transcript import Transcript
from backend.core.contracts import Turn
from backend.core.errors import ApiError
from backend.core.events import (
    Event,
    FinishReason,
    PlanMade,
    RunFinished,
    TextDelta,
)
from backend.core.llm.base import LLMRequest, ResponseFormat
from backend.core.messages import Message
from backend.core.prompts import load_prompt
from backend.core.untrusted import shorten

PROMPTS = ("plan", "make_plan", "empty_plan", "replan", "plan_step", "synthesis")
PLAN_TRIES = 2
ANSWER_TRIES = 2
PLAN_TEMPERATURE = 0.2
PLAN_AGAIN = re.compile(r'\s*(?:```\w*\s*)?\{\s*"steps"\s*:')  # what small models write instead of an answer


class PlanExecuteAgent:
    def __init__(self, means: Means) -> None:
        self._means = means
        for name in PROMPTS:
            load_prompt(f"agents/{name}")

    async def run(self, turn: Turn) -> AsyncGenerator[Event, None]:
        budget = Budget(self._means.limits)
        run = _PlanRun(self._means, turn, budget)
        async with aclosing(run.events()) as events:
            async for event in events:
                yield event
        if links := link_files(run.steps.outcomes, run.text, turn):
            yield TextDelta(links)
        yield RunFinished(run.finish_reason, budget.usage)


class _PlanRun:
    def __init__(self, means: Means, turn: Turn, budget: Budget) -> None:
        self.text = ""
        self.finish_reason: FinishReason = "stop"
        self._means = means
        self._turn = turn
        self._budget = budget
        self.steps = PlanSteps(means, turn, budget)
        self._tool_names = tuple(tool.name for tool in turn.tools)
        self._max_steps = means.limits.plan_max_steps
        tools = "\n".join(f"- {tool.name}: {tool.description}" for tool in turn.tools)
        system = load_prompt("agents/plan").fill(max_steps=str(self._max_steps), tools=tools)
        window = means.models.context_tokens(turn.request.model)
        self._transcript = Transcript(system, turn.request.messages, window)
        self._calls = ModelCalls(means.llm, self._transcript, budget)
        self._plan: tuple[PlanStep, ...] = ()
        self._replaced: list[StepResult] = []  # what failed, and is to be done in another way

    async def events(self) -> AsyncGenerator[Event, None]:
        """Raises: ApiError, while nothing was shown or done"""
        async with aclosing(self._make_plan(load_prompt("agents/make_plan").text)) as events:
            async for event in events:
                yield event
        self._calls.begun = True
        yield PlanMade(tuple(step.to_dict() for step in self._plan))
        for revision in range(1, self._means.limits.plan_max_retries + 2):
            async with aclosing(self.steps.carry_out(self._plan)) as events:
                async for event in events:
                    yield event
            is_last = revision > self._means.limits.plan_max_retries
            if is_last or not self.steps.find_failed(self._plan) or self._budget.find_end():
                break
            plan = self._plan
            async with aclosing(self._change_plan()) as events:
                async for event in events:
                    yield event
            if self._plan is plan:
                break
            yield PlanMade(tuple(step.to_dict() for step in self._plan if step.id not in self.steps.results), revision)
        async with aclosing(self._answer()) as events:
            async for event in events:
                yield event

    # --- The plan ---------------------------------------------------------------------------------------------------

    async def _make_plan(self, prompt: str) -> AsyncGenerator[Event, None]:
        """Ask for a plan. One that is empty, also the second time, is a plan of one step: the task itself.

        Raises:
            ApiError: the very first call failed.
        """
        done = [result.step for result in self.steps.done]
        first_id = max(self.steps.results, default=0) + 1
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
                said.text,
                tools=self._tool_names,
                max_steps=self._max_steps,
                first_id=first_id,
                done=[step.id for step in done],
            )
            if steps or self._budget.find_end():
                break
            prompt = load_prompt("agents/empty_plan").text
        if not steps and not self._plan:
            steps = (PlanStep(first_id, self.steps.task),)
        if steps:
            self._replaced += self.steps.find_failed(self._plan)
            self._plan = (*done, *steps)

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
        done = self.steps.done
        prompt = load_prompt("agents/replan").fill(
            done="\n".join(map(describe_result, done)) or "(none)",
            failed="\n".join(map(describe_result, self.steps.find_failed(self._plan))),
            first_id=str(max(self.steps.results) + 1),
        )
        async with aclosing(self._make_plan(prompt)) as events:
            async for event in events:
                yield event

    # --- The answer -------------------------------------------------------------------------------------------------

    async def _answer(self) -> AsyncGenerator[Event, None]:
        failed = self.steps.find_failed(self._plan)
        if failed and self._budget.find_end():
            self.finish_reason = "length"
        done = self.steps.done
        prompt = load_prompt("agents/synthesis").fill(
            results="\n".join(map(describe_result, done)) or "(none)",
            failed="\nThese steps failed:\n" + "\n".join(map(describe_result, (*self._replaced, *failed))) + "\n"
            if failed or self._replaced
            else "",
        )
        trouble = "the model gave none, although it was asked again"
        for _ in range(ANSWER_TRIES):
            self._transcript.add(Message("user", prompt))
            said, gate = Said(), Gate(watchful=self._turn.request.response_format is None)
            try:
                async with aclosing(self._calls.make(self._answer_request, said, gate, is_last=True)) as events:
                    async for event in events:
                        if isinstance(event, TextDelta):
                            self.text += event.text
                        yield event
            except ApiError as error:
                trouble = error.message
                break
            if not PLAN_AGAIN.match(gate.held) and (rest := gate.open()):
                self.text += rest
                yield TextDelta(rest)
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
                found = f" This is what the steps brought:\n{results}" if results else ""
                found = found or describe_findings(self.steps.outcomes)
                parts.append(f"I could not write an answer. {reason}{found}")
        unnamed = [result for result in failed if result.step.goal not in self.text]
        if unnamed:
            lines = [
                f"- Step {result.step.id}, {result.step.goal}: {shorten(result.text, MAX_SUMMARY_CHARS)}"
                for result in unnamed
            ]
            parts.append("Not done:\n" + "\n".join(lines))
        return ("\n\n" if self.text.strip() else "") + "\n\n".join(parts) if parts else ""
