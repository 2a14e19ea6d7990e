"""The client's own tools on every model, and `tool_choice` kept whatever the backend makes of it.

    the template knows tools   asked in the model's own way; what comes back is checked
    it does not, one is named, or the model missed a call that it had to make
                               a step under a grammar (`tool_prompting`); then, if it decided so, the answer in words

What goes out is a call of a tool that exists, with arguments that fit its schema. A call that does not is put right
where it has just one reading, and asked for again under the grammar otherwise. Two go out as they are: a call that was
cut by the token limit (the finish reason says so), and one that a backend sends piece by piece to a client that reads
along, unless its tool is `strict`: engines that send pieces hold them to the schema themselves.

With a `response_format` as well it is the final words that fit it.
"""

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace

from backend.core.errors import BadRequest, InvalidAnswer
from backend.core.events import BackendEvent, Completed, FinishReason, TextDelta, ToolCallDelta, Usage
from backend.core.llm.answer_format import AnswerFormat
from backend.core.llm.base import LLMRequest, ModelStream, NamedTool
from backend.core.llm.call_gate import CallGate
from backend.core.llm.outgoing_calls import OutgoingCalls, RefusedCall
from backend.core.llm.tool_prompting import (
    Step,
    ToolPrompts,
    mentions_calls,
    read_cut_step,
    read_step,
    write_call,
    write_out,
)
from backend.core.llm.wire import offered_tools

MAX_ASIDE_CHARS = 400  # words before a call that has to be made
MAX_STEP_ATTEMPTS = 2
MAX_REPAIRS = 2  # calls of one answer that are asked for again

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Answer:
    """Where an answer stands. It may take several model calls; `words` is the one that is still to be made for it."""

    calls: OutgoingCalls
    is_open: bool = True  # nothing that was said is an answer yet
    words: LLMRequest | None = None
    usage: Usage = Usage()
    finish_reason: FinishReason = "stop"

    def note(self, completed: Completed) -> None:
        self.usage += completed.usage
        self.finish_reason = completed.finish_reason

    @property
    def completion(self) -> Completed:
        called = self.calls and self.finish_reason != "length"
        return Completed("tool_calls" if called else self.finish_reason, self.usage)


class ClientTools:
    """A `ModelStream` that keeps a request's `tools` and `response_format` on models that know neither.

    Reads its prompts when made: blocks.

    Args:
        capabilities: what a model can do; empty where it is not known.

    Raises (from `stream`):
        InvalidAnswer: the model could not be brought to a call that can be made, or to the format.
    """

    def __init__(self, inner: ModelStream, capabilities: Callable[[str], frozenset[str]]) -> None:
        self._inner = inner
        self._formatted = AnswerFormat(inner)
        self._prompts = ToolPrompts()
        self._capabilities = capabilities

    def stream(self, request: LLMRequest) -> AsyncGenerator[BackendEvent, None]:
        tools = offered_tools(request)
        known = self._capabilities(request.model)
        is_native = not known or "tools" in known
        if tools:
            answer = _Answer(OutgoingCalls(request, tools))
            return self._answer(replace(self._formatted.describe(request), tools=tools), answer, is_native=is_native)
        if request.tools:
            request = replace(request, tools=(), tool_choice=None, parallel_tool_calls=None)
        if not is_native and mentions_calls(request.messages):
            request = replace(request, messages=write_out(request.messages))
        return self._formatted.stream(request)

    async def _answer(
        self, request: LLMRequest, answer: _Answer, *, is_native: bool
    ) -> AsyncGenerator[BackendEvent, None]:
        if is_native and not isinstance(request.tool_choice, NamedTool):
            try:
                async with aclosing(self._ask_natively(request, answer)) as events:
                    async for event in events:
                        yield event
            except BadRequest as error:
                if error.param not in {"tools", "tool_choice", "response_format"}:  # the last: the tools' schemas
                    raise
                logger.info("The tools are told in words: %s", error.message)
        for refused in answer.calls.refused[:MAX_REPAIRS]:
            async with aclosing(self._take_step(request, answer, refused)) as events:
                async for event in events:
                    yield event
        if unrepaired := answer.calls.refused[MAX_REPAIRS:]:
            raise InvalidAnswer(f"The model made calls that cannot be passed on: {unrepaired[0].problem}")
        if answer.is_open:
            async with aclosing(self._take_step(request, answer)) as events:
                async for event in events:
                    yield event
        if answer.words:
            async with aclosing(self._speak(answer.words, answer)) as events:
                async for event in events:
                    yield event
        yield answer.completion

    async def _ask_natively(self, request: LLMRequest, answer: _Answer) -> AsyncGenerator[BackendEvent, None]:
        """Ask as the model's template has it. The answer stays open where a call is missing."""
        calls, gate = answer.calls, CallGate()
        # Words wait where only a call may follow, and where they would have to be in a format that was not asked for.
        must_wait = calls.must_call or request.response_format is not None
        in_format = replace(request, tools=(), tool_choice=None) if request.response_format else None
        aside: list[TextDelta] = []
        waited = 0
        async with aclosing(self._inner.stream(replace(request, response_format=None))) as events:
            async for event in events:
                match event:
                    case TextDelta():
                        words = gate.feed(event.text)
                        if not words:
                            continue
                        delta = event if words == event.text else TextDelta(words)
                        if not must_wait or (calls and not in_format):
                            yield delta
                            continue
                        if not in_format:  # clients read the words beside a call as JSON, too: these are none
                            aside.append(delta)
                        waited += len(words)
                        if waited > MAX_ASIDE_CHARS and not calls:  # none comes any more
                            answer.is_open = calls.must_call
                            answer.words = None if calls.must_call else in_format
                            return
                    case ToolCallDelta():
                        for each in _after(aside, await calls.take(event)):
                            yield each
                    case Completed():
                        answer.note(event)
                        deltas = await calls.finish(cut=event.finish_reason == "length")
                        written = await calls.take_text(gate.held) if gate.held.strip() else None
                        for each in _after(aside, deltas + (written or [])):
                            yield each
                        answer.is_open = calls.must_call and not calls and not calls.refused
                        if in_format and not calls and not calls.refused and not answer.is_open:
                            answer.words = in_format
                        elif gate.held and written is None and not in_format and not answer.is_open:
                            yield TextDelta(gate.held)
                    case _:
                        yield event

    async def _take_step(
        self, request: LLMRequest, answer: _Answer, refused: RefusedCall | None = None
    ) -> AsyncGenerator[BackendEvent, None]:
        """Have the model decide under a grammar, and make the call that it decided on."""
        calls = answer.calls
        must_call = refused.must_call if refused else calls.must_call
        tools = refused.tools if refused else calls.tools.definitions
        request = replace(request, messages=write_out(request.messages), tools=(), tool_choice=None)
        step = self._prompts.ask_for_step(request, tools, must_call=must_call)
        problem = "it is not such an object."
        if refused:
            step = self._prompts.ask_again(step, write_call(refused.call), refused.problem)
        for _ in range(MAX_STEP_ATTEMPTS):
            said: list[str] = []
            async with aclosing(self._inner.stream(step)) as events:
                async for event in events:
                    if isinstance(event, TextDelta):
                        said.append(event.text)
                    elif isinstance(event, Completed):
                        answer.note(event)
                    elif not isinstance(event, ToolCallDelta):
                        yield event
            text = "".join(said)
            match await _read_step(text, calls):
                case Step(None) if not must_call:
                    answer.words = self._prompts.ask_for_words(request, step, text)
                    return
                case Step(str(name), arguments):
                    try:
                        deltas = await calls.check_and_send(name, arguments)
                    except ValueError as error:
                        problem = str(error)
                    else:
                        for delta in deltas:
                            yield delta
                        return
                case None if answer.finish_reason == "length":
                    cut = read_cut_step(text)
                    for delta in calls.send(cut.name, cut.arguments) if cut else ():
                        yield delta
                    return
                case None if not must_call and _is_prose(text):  # the backend has no grammars: it is the answer
                    if request.response_format is None:
                        yield TextDelta(text)
                    else:
                        answer.words = self._prompts.ask_for_words(request, step, text)
                    return
            step = self._prompts.ask_again(step, text, problem)
        raise InvalidAnswer(f"The model could not be brought to make a call that fits: {problem}")

    async def _speak(self, request: LLMRequest, answer: _Answer) -> AsyncGenerator[BackendEvent, None]:
        """Stream the final words. Where the model goes on to another step instead, that counts."""
        wanted, gate = request.response_format, CallGate()
        events = self._formatted.check(request, wanted) if wanted else self._inner.stream(request)
        async with aclosing(events):
            async for event in events:
                if isinstance(event, Completed):
                    answer.note(event)
                elif wanted or not isinstance(event, TextDelta):
                    yield event
                elif words := gate.feed(event.text):
                    yield event if words == event.text else TextDelta(words)
        match await _read_step(gate.held, answer.calls) if gate.held else None:
            case Step(str(name), arguments):
                try:
                    for delta in await answer.calls.check_and_send(name, arguments):
                        yield delta
                except ValueError:
                    yield TextDelta(gate.held)
            case None if gate.held:
                yield TextDelta(gate.held)


def _after(aside: list[TextDelta], deltas: list[ToolCallDelta]) -> list[BackendEvent]:
    """The deltas of a call, after the words that waited for it."""
    if not deltas:
        return []
    words = aside.copy()
    aside.clear()
    return [*words, *deltas]


async def _read_step(text: str, calls: OutgoingCalls) -> Step | None:
    """What a model decided, also where it says so in another form than it was asked for."""
    if step := read_step(text):
        return step
    return next((Step(call.name, call.arguments) for call in await calls.find(text)), None)


def _is_prose(text: str) -> bool:
    return bool(text.strip()) and not text.lstrip().startswith(("{", "[", "```"))
