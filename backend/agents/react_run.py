"""The loop of the ReAct agent: one model call for each step.

    run = (calls | nudge)* (answer | functions)

A step brings calls of tools, which are made at the same time; or the answer; or neither, and then the model is told
what was wrong with it. The client's own functions are offered beside the tools: a call of one is handed out, which ends
the run, and the client goes on with the result in its next request. Whatever a model, a backend or a tool does, a run
ends with an answer, or with an honest sentence on why there is none. It raises only what happens before anything was
shown or done, which deserves an HTTP status.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

import orjson

from backend.agents.decisions import describe_tools
from backend.agents.endings import describe_findings
from backend.agents.gate import Gate
from backend.agents.guards import Budget, Watch
from backend.agents.listening import Said
from backend.agents.means import Means
from backend.agents.model_calls import ModelCalls
from backend.agents.modes import (
    ANSWER_FORMAT,
    Calls,
    Constrained,
    Malformed,
    Mode,
    Native,
    Reading,
    Reply,
    read_answer,
)
from backend.agents.thoughts import ThoughtReader
from backend.agents.tool_calls import Call, Caller, Outcome
from backend.agents.transcript import Transcript
from backend.core.contracts import Turn
from backend.core.errors import ApiError, BadRequest
from backend.core.events import Event, FinishReason, ReasoningDelta, TextDelta, ToolCallDelta
from backend.core.llm.base import LLMRequest
from backend.core.llm.tool_prompting import write_out
from backend.core.llm.toolset import Toolset
from backend.core.messages import Message
from backend.core.prompts import load_prompt
from backend.core.storage.sessions import new_session_id
from backend.core.untrusted import shorten

MAX_ANSWER_TRIES = 2
MAX_SHOWN_THOUGHT = 1_000
MAX_MALFORMED_CHARS = 600
REPEATED = "You have made this very call before, and it would bring the same. Use what you know, or answer."
FILTERED = "the content filter of the model stopped the answer"


class ReActRun:
    """One run; read `events` to its end, then the rest.

    Args:
        step: of a plan, when the run is a part of one.
    """

    def __init__(self, means: Means, turn: Turn, budget: Budget, *, step: int | None = None) -> None:
        self.text = ""  # what was said as the answer
        self.failure = ""  # why it is no complete answer; empty when it is one
        self.finish_reason: FinishReason = "stop"
        self.outcomes: list[Outcome] = []
        self._base = replace(turn.request, tools=(), tool_choice=None)
        self._functions = frozenset(function.name for function in turn.request.tools)
        self._means = means
        self._budget = budget
        self._tools = Toolset((*turn.tools, *turn.request.tools))
        self._watch = Watch(means.limits, budget)
        context = turn.request.context
        # The calls of a run share a workspace also where the conversation is not kept.
        context = context if context.session_id else replace(context, session_id=new_session_id())
        self._caller = Caller(means.tools, context, turn.request.model, turn.rag_collection, budget, step)
        self._has_last_word = step is None  # of a plan, the answer has it
        self._last_thought = ""
        self._said_before = False
        self._begin(native=not self._tools or "tools" in means.models.capabilities(turn.request.model))

    def _begin(self, *, native: bool) -> None:
        if not self._tools:
            system = load_prompt("agents/react_no_tools").text
        elif native:
            system = load_prompt("agents/react").text
        else:
            system = load_prompt("agents/react_constrained").fill(tools=describe_tools(self._tools, self._functions))
        self._mode: Mode = Native(self._tools) if native else Constrained(self._tools, self._functions)
        told = self._base.messages if native else write_out(self._base.messages)
        self._transcript = Transcript(system, told, self._means.models.context_tokens(self._base.model))
        self._calls = ModelCalls(self._means.llm, self._transcript, self._budget)

    async def events(self) -> AsyncGenerator[Event, None]:
        """
        Raises:
            ApiError: the first model call failed before anything was shown or done.
        """
        while not (end := self._watch.begin_turn()):
            said = Said()
            self._said_before = bool(self.text)
            # An answer that must have a form is written by a call of its own.
            streams = self._mode.streams_replies and self._base.response_format is None
            gate = Gate(watchful=bool(self._tools)) if streams else None
            thoughts = None if self._mode.streams_replies else ThoughtReader()
            failed: ApiError | None = None
            try:
                async with aclosing(self._calls.make(self._build_step, said, gate or thoughts)) as events:
                    async for event in events:
                        yield self._passed_on(event)
            except ApiError as error:
                if isinstance(error, BadRequest) and error.param in {"tools", "tool_choice"} and not self._calls.begun:
                    self._begin(native=False)  # another backend answers than was likely, and it knows no tools
                    continue
                if not self._calls.begun:
                    raise
                failed = error
            if failed:
                yield self._give_up(failed.message)
                return
            if said.broken_off and gate and gate.has_let_through:
                yield self._give_up(f"it was {said.broken_off}")
                return
            self._calls.begun = True
            told = said.thought + (thoughts.shown if thoughts else "")
            # To hold arguments against a schema that somebody else has made may take its time.
            reading = await asyncio.to_thread(self._read, said) if self._functions else self._read(said)
            self._last_thought = said.thought.strip() or self._last_thought
            if isinstance(reading, Reply) and gate:
                if rest := gate.open() if gate.has_let_through else reading.text:
                    yield self._say(rest)
                self._end_as(said)
                return
            if said.finish_reason == "content_filter" and not isinstance(reading, Calls):
                yield self._give_up(FILTERED)
                self.finish_reason = "content_filter"
                return
            if isinstance(reading, Malformed):  # the model need not read all of it again
                said.text = shorten(said.text, MAX_MALFORMED_CHARS)
            self._mode.record(self._transcript, said, reading)
            if thought := self._thought_of(said, reading, gate, told):
                yield ReasoningDelta(thought)
            if isinstance(reading, Malformed):
                self._watch.malformed += 1
                self._transcript.add(Message("user", reading.nudge))
                yield ReasoningDelta(f"\n(This was {reading.what}: the model is asked again.)\n")
            elif isinstance(reading, Calls):
                handed_out = [call for call in reading.calls if call.tool in self._functions]
                own = tuple(call for call in reading.calls if call.tool not in self._functions)
                async with aclosing(self._act(replace(reading, calls=own))) as events:
                    async for event in events:
                        yield event
                if self._base.parallel_tool_calls is False:
                    del handed_out[1:]
                if handed_out:
                    for index, call in enumerate(handed_out):
                        yield ToolCallDelta(index, call.arguments_text, call.id, call.tool)
                    self.finish_reason = "tool_calls"
                    return
            else:
                break
        if end:
            self.finish_reason = "length"
        async with aclosing(self._write_answer(end)) as events:
            async for event in events:
                yield event

    async def _act(self, reading: Calls) -> AsyncGenerator[Event, None]:
        for asked, problem in reading.refused:
            yield ReasoningDelta(f"\n✗ {asked.name or 'a call'}: {problem}\n")
        if not reading.calls:
            self._watch.malformed += 1
            return
        repeated = {call.id for call in reading.calls if self._watch.is_repeated(call.tool, _canonical(call))}
        made: list[Outcome] = []
        calls = [call for call in reading.calls if call.id not in repeated]
        async with aclosing(self._caller.run(calls, made)) as events:
            async for event in events:
                yield event
        outcomes = {outcome.call.id: outcome for outcome in made}
        for call in reading.calls:
            self._mode.record_outcome(self._transcript, outcomes.get(call.id) or Outcome(call, text=REPEATED))
        self.outcomes += made
        self._watch.note_results([(outcome.success, f"{outcome.call.tool}:{outcome.text}") for outcome in made])

    async def _write_answer(self, why: str) -> AsyncGenerator[Event, None]:
        """The answer as a call of its own: after the decision to give one, or because there may be no further step.

        Args:
            why: there may be none; empty after a decision.
        """
        prompt = load_prompt("agents/last_answer").fill(why=why) if why else load_prompt("agents/write_answer").text
        formed = self._base.response_format is not None
        for attempt in range(1, MAX_ANSWER_TRIES + 1):
            self._transcript.add(Message("user", prompt))
            said = Said()
            self._said_before = bool(self.text)
            # A small model may go on with its steps for ever: the second time it gets a form that holds only an answer.
            forced = attempt > 1 and not formed and isinstance(self._mode, Constrained)
            gate = Gate(watchful=bool(self._tools) and not formed)
            build = self._build_forced_answer if forced else self._build_answer
            failed: ApiError | None = None
            try:
                async with aclosing(
                    self._calls.make(build, said, None if forced else gate, is_last=self._has_last_word)
                ) as events:
                    async for event in events:
                        yield self._passed_on(event)
            except ApiError as error:
                failed = error
            if failed:
                yield self._give_up(failed.message)
                return
            if said.broken_off and gate.has_let_through:
                yield self._give_up(f"it was {said.broken_off}")
                return
            reading = Reply(said.text) if formed and said.text.strip() else read_answer(said, self._tools)
            if gate.has_let_through or isinstance(reading, Reply):
                if isinstance(reading, Reply) and (rest := gate.open() if gate.has_let_through else reading.text):
                    yield self._say(rest)
                self._end_as(said)
                return
            if said.finish_reason == "content_filter":
                yield self._give_up(FILTERED)
                self.finish_reason = "content_filter"
                return
            self._last_thought = said.thought.strip() or self._last_thought
            self._mode.record(self._transcript, Said(text=said.text), reading)
            prompt = load_prompt("agents/write_answer").text
        yield self._give_up(why or "the model gave none, although it was asked again")

    def _build_step(self, transcript: Transcript) -> LLMRequest:
        return self._mode.request(self._base, transcript)

    def _build_answer(self, transcript: Transcript) -> LLMRequest:
        """The tools stay, though no call is wanted: without them the prompt would be another one from its start."""
        tools = self._tools.definitions if isinstance(self._mode, Native) else ()
        return replace(self._base, messages=transcript.messages, tools=tools)

    def _build_forced_answer(self, transcript: Transcript) -> LLMRequest:
        return replace(self._base, messages=transcript.messages, response_format=ANSWER_FORMAT)

    def _read(self, said: Said) -> Reading:
        if said.broken_off:
            return Malformed(load_prompt("agents/nudge_empty").text, f"a reply that was {said.broken_off}")
        return self._mode.read(said)

    def _thought_of(self, said: Said, reading: Reading, gate: Gate | None, told: str) -> str:
        """What of a step that was no answer is shown as a thought, if it was not shown already."""
        if not isinstance(self._mode, Native):
            return f"{said.thought.removeprefix(told)}\n" if said.thought else ""
        held = gate.held if gate else said.text
        return held if said.calls or isinstance(reading, Malformed) else ""

    def _passed_on(self, event: Event) -> Event:
        return self._say(event.text) if isinstance(event, TextDelta) else event

    def _say(self, text: str) -> TextDelta:
        if self._said_before:  # in another step, before it went on with a call
            text, self._said_before = f"\n\n{text}", False
        self.text += text
        return TextDelta(text)

    def _end_as(self, said: Said) -> None:
        if said.finish_reason == "length" or said.finish_reason == "content_filter":
            self.finish_reason = said.finish_reason

    def _give_up(self, reason: str) -> TextDelta:
        """The honest sentence."""
        self.failure = reason
        self.finish_reason = "length"
        reason = f"{reason[:1].upper()}{reason[1:].rstrip('.')}."
        self._said_before = False
        if self.text.strip():
            return self._say(f"\n\n(The answer breaks off here. {reason})")
        thought = f"\n\nIts last thought was: {self._last_thought[-MAX_SHOWN_THOUGHT:]}" if self._last_thought else ""
        return self._say(f"I could not give an answer. {reason}{describe_findings(self.outcomes) or thought}")


def _canonical(call: Call) -> str:
    return orjson.dumps(call.arguments, option=orjson.OPT_SORT_KEYS, default=str).decode()
