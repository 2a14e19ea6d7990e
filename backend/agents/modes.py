"""Two ways to ask a model for its next step.

Native: the model calls tools as its template has it; what is no call is the answer. Constrained: for a model whose
template knows no tools, a grammar lets each step be one JSON object and nothing else, and an answer in words follows
the decision to give one. Both keep their side of the conversation in the transcript, and only ever add to it.

    reading = Calls | Reply | Decided | Malformed
"""

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import orjson

from backend.agents.decisions import decision_schema
from backend.agents.listening import Said
from backend.agents.tool_calls import Call, Outcome
from backend.agents.transcript import Transcript
from backend.core.llm.base import LLMRequest, ResponseFormat
from backend.core.llm.text_calls import TextCall, final_answer_in, find_calls, is_cut_call, is_promise
from backend.core.llm.toolset import Toolset, parse_json
from backend.core.llm.wire import new_call_id
from backend.core.messages import Message, ToolCall
from backend.core.prompts import load_prompt

MAX_CALLS = 8  # in one step
MAX_DECISION_TOKENS = 2_048
DECISION_TEMPERATURE = 0.2
NOTHING = "(nothing)"  # an empty message is more than some templates can take


@dataclass(frozen=True, slots=True)
class Calls:
    """Calls to be made; and for each that cannot be, the model's call and what is wrong with it."""

    calls: tuple[Call, ...]
    refused: tuple[tuple[ToolCall, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer, in words."""

    text: str


@dataclass(frozen=True, slots=True)
class Decided:
    """The decision to answer."""


@dataclass(frozen=True, slots=True)
class Malformed:
    """Neither a call nor an answer: what the model is told."""

    nudge: str
    what: str  # for the user, in half a sentence


Reading = Calls | Reply | Decided | Malformed

ANSWER_FORMAT = ResponseFormat(
    {
        "type": "object",
        "properties": {"answer": {"type": "string", "minLength": 1}},
        "required": ["answer"],
        "additionalProperties": False,
    },
    "answer",
)


class Mode(Protocol):
    streams_replies: bool  # a step's text may be shown while it is said

    def request(self, base: LLMRequest, transcript: Transcript) -> LLMRequest: ...

    def read(self, said: Said) -> Reading: ...

    def record(self, transcript: Transcript, said: Said, reading: Reading) -> None:
        """Put what the model said into the transcript."""
        ...

    def record_outcome(self, transcript: Transcript, outcome: Outcome) -> None: ...


class Native:
    streams_replies = True

    def __init__(self, tools: Toolset) -> None:
        self._tools = tools

    def request(self, base: LLMRequest, transcript: Transcript) -> LLMRequest:
        return replace(base, messages=transcript.messages, tools=self._tools.definitions, response_format=None)

    def read(self, said: Said) -> Reading:
        if not said.calls:
            return read_text(said, self._tools)
        calls: list[Call] = []
        refused = []
        for asked in said.calls:
            try:
                if len(calls) == MAX_CALLS:
                    raise ValueError(f"these are too many calls at once: at most {MAX_CALLS} are made.")
                calls.append(_checked(self._tools, asked.id, asked.name, asked.arguments))
            except ValueError as error:
                refused.append((asked, str(error)))
        return Calls(tuple(calls), tuple(refused))

    def record(self, transcript: Transcript, said: Said, reading: Reading) -> None:
        """Arguments stay as the model wrote them where they are JSON: the engine has these very bytes in its cache."""
        made = {call.id: call for call in reading.calls} if isinstance(reading, Calls) else {}
        written = said.calls or tuple(ToolCall(call.id, call.tool, call.arguments_text) for call in made.values())
        calls = tuple(
            ToolCall(
                call.id, made[call.id].tool if call.id in made else call.name or "unknown", _valid_json(call, made)
            )
            for call in written
        )
        text = said.text if said.calls or not calls else ""
        transcript.add(Message("assistant", text if text.strip() or calls else NOTHING, calls))
        for asked, problem in reading.refused if isinstance(reading, Calls) else ():
            transcript.add_result(Message("tool", tool_call_id=asked.id, name=asked.name), "tools", f"Error: {problem}")

    def record_outcome(self, transcript: Transcript, outcome: Outcome) -> None:
        call = outcome.call
        transcript.add_result(Message("tool", tool_call_id=call.id, name=call.tool), call.tool, outcome.text)


class Constrained:
    streams_replies = False

    def __init__(self, tools: Toolset, functions: Container[str] = ()) -> None:
        self._tools = tools
        self._format = ResponseFormat(decision_schema(tools, functions), "step")

    def request(self, base: LLMRequest, transcript: Transcript) -> LLMRequest:
        sampling = base.sampling
        sampling = replace(
            sampling,
            max_tokens=MAX_DECISION_TOKENS,
            temperature=min(sampling.temperature or 0.0, DECISION_TEMPERATURE),
            stop=(),
        )
        return replace(base, messages=transcript.messages, sampling=sampling, response_format=self._format)

    def read(self, said: Said) -> Reading:
        decision = parse_json(said.text) if said.text.strip().startswith("{") else None
        if not isinstance(decision, dict) or not isinstance(action := decision.get("action"), str):
            if said.text.strip() and not said.text.lstrip().startswith(("{", "[", "```")):
                return read_text(said, self._tools)
            problem = "it was cut off; be shorter." if said.finish_reason == "length" else "it is not such an object."
            return self._malformed(problem)
        thought = decision.get("thought")
        said.thought += thought if isinstance(thought, str) else ""
        if action == "answer":
            return Decided()
        try:
            return Calls((_checked(self._tools, new_call_id(), action, decision.get("input", {})),))
        except ValueError as error:
            return self._malformed(str(error))

    def record(self, transcript: Transcript, said: Said, reading: Reading) -> None:
        transcript.add(Message("assistant", said.text if said.text.strip() else NOTHING))

    def record_outcome(self, transcript: Transcript, outcome: Outcome) -> None:
        transcript.add_result(Message("user"), outcome.call.tool, outcome.text)

    def _malformed(self, problem: str) -> Malformed:
        actions = ", ".join((*self._tools.names, "answer"))
        return Malformed(load_prompt("agents/nudge_decision").fill(problem=problem, actions=actions), "no valid step")


def read_text(said: Said, tools: Toolset) -> Reading:
    """What a text without a call is: an answer, a call written as text, or neither."""
    text = said.text.strip()
    asked = find_calls(text, tools) or ([] if text else find_calls(said.thought, tools))
    if asked and tools:
        return _read_text_calls(asked, tools)
    if answer := final_answer_in(text):
        return Reply(answer)
    if tools and is_cut_call(text, tools):
        problem = "it is not whole, or not valid JSON."
        nudge = load_prompt("agents/nudge_call").fill(problem=problem, tools=", ".join(tools.names))
        return Malformed(nudge, "a call that was cut off")
    if not text.strip("\u200b\ufeff\u00ad\x00"):
        return Malformed(load_prompt("agents/nudge_empty").text, "an empty reply")
    if tools and said.finish_reason != "length" and is_promise(text):
        return Malformed(load_prompt("agents/nudge_promise").text, "a promise to act, without acting")
    return Reply(text)


def read_answer(said: Said, tools: Toolset) -> Reading:
    """What came when an answer in words was asked for. Small models go on with the JSON that they wrote before."""
    text = said.text.strip()
    if not re.match(r"\{\s*(?:\}|\"(?:thought|action|answer)\")", text):
        return read_text(said, tools)
    given = parse_json(text)
    words = given.get("answer") if isinstance(given, dict) else _cut_answer(text)
    if isinstance(words, str) and words.strip():
        return Reply(words.strip())
    return Malformed(load_prompt("agents/nudge_empty").text, "a step instead of an answer")


def _cut_answer(text: str) -> str | None:
    """What there is of the answer in an answer object that was cut off."""
    cut = re.match(r'\{\s*"answer"\s*:\s*"((?:[^"\\]|\\.)*)', text, re.DOTALL)
    value = parse_json(f'"{cut[1]}"') if cut else None
    return value if isinstance(value, str) else None


def _read_text_calls(asked: Sequence[TextCall], tools: Toolset) -> Reading:
    calls, problems = [], []
    for call in asked:
        try:
            calls.append(_checked(tools, new_call_id(), call.name, call.arguments))
        except ValueError as error:
            problems.append(str(error))
    if calls:
        return Calls(tuple(calls[:MAX_CALLS]))
    nudge = load_prompt("agents/nudge_call").fill(problem=" ".join(problems), tools=", ".join(tools.names))
    return Malformed(nudge, "a call that cannot be made")


def _checked(tools: Toolset, call_id: str, name: str, given: Any) -> Call:
    """Raises: ValueError, with a sentence for the model."""
    tool = tools.find(name)
    if tool is None:
        raise ValueError(f"there is no tool {name[:60]!r} here.")
    return Call(call_id, tool, tools.read_arguments(tool, given))


def _valid_json(call: ToolCall, made: Mapping[str, Call]) -> str:
    """The arguments as the model wrote them, or, where that is not JSON that backends take, as they were understood."""
    try:
        if isinstance(orjson.loads(call.arguments), dict):
            return call.arguments
    except ValueError:
        pass
    return made[call.id].arguments_text if call.id in made else "{}"
