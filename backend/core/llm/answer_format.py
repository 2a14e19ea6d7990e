"""`response_format` made true: the model is told of it, its grammar holds it to it, and what it said is checked.

A backend's grammar does most of the work, but backends differ in what they can turn into one, some ignore it, and an
answer may be cut. So:

    the backend refuses the schema           -> once more with what every grammar can do; the check does the rest
    nobody has seen the answer (`live` off)  -> an invalid one is asked for again, once; then `InvalidAnswer`
    the client has read it as it came        -> it cannot be taken back: `InvalidAnswer` after the last delta
    it was cut by a token limit              -> passed on with the finish reason `length`, which says that it was
"""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from backend.core.errors import AnswerInterrupted, BadRequest, InvalidAnswer
from backend.core.events import BackendEvent, Completed, TextDelta, Usage
from backend.core.llm.base import LLMRequest, ModelStream, ResponseFormat
from backend.core.llm.json_schema import GrammarSchema, find_problem
from backend.core.llm.prompting import add_to_system
from backend.core.messages import Message
from backend.core.prompts import load_prompt

MAX_ATTEMPTS = 2


class AnswerFormat:
    """A `ModelStream` whose answers fit the request's `response_format`. Reads its prompts when made: blocks.

    Raises (from `stream`):
        InvalidAnswer: the model could not be brought to it.
    """

    def __init__(self, inner: ModelStream) -> None:
        self._inner = inner
        self._object = load_prompt("chat/json_object")
        self._schema = load_prompt("chat/json_schema")
        self._nudge = load_prompt("chat/invalid_answer")

    def describe(self, request: LLMRequest) -> LLMRequest:
        """The request with its format told to the model, which cannot see a grammar."""
        wanted = request.response_format
        if wanted is None:
            return request
        schema = json.dumps(wanted.schema, ensure_ascii=False)
        told = self._object.text if wanted.schema is None else self._schema.fill(schema=schema)
        return replace(request, messages=add_to_system(request.messages, told))

    def stream(self, request: LLMRequest) -> AsyncGenerator[BackendEvent, None]:
        if request.response_format is None:
            return self._inner.stream(request)
        return self.check(self.describe(request), request.response_format)

    async def check(self, request: LLMRequest, wanted: ResponseFormat) -> AsyncGenerator[BackendEvent, None]:
        """Stream a request that was described already."""
        spent, failures = Usage(), 0
        problem: str | None = None
        while failures < MAX_ATTEMPTS:
            heard = _Heard()
            try:
                async with aclosing(heard.listen(self._inner, request)) as events:
                    async for event in events:
                        yield event
            except BadRequest as error:
                if error.param != "response_format" or request.response_format == (simple := _simplified(wanted)):
                    raise
                request = replace(request, response_format=simple)
                continue
            except AnswerInterrupted:
                failures += 1
                if request.live or failures == MAX_ATTEMPTS:
                    raise
                continue
            spent += heard.completed.usage
            complete = replace(heard.completed, usage=spent)
            problem = await heard.find_problem(wanted)
            if problem is None or complete.finish_reason != "stop":
                for held in heard.held:
                    yield held
                yield complete
                return
            if request.live:
                break
            failures += 1
            said = (Message("assistant", heard.text), Message("user", self._nudge.fill(problem=problem)))
            request = replace(request, messages=(*request.messages, *said) if heard.text.strip() else request.messages)
        raise InvalidAnswer(f"The model's answer does not fit `response_format`: {problem}.")


class _Heard:
    """One attempt: what was said in it, and what of that is held back."""

    def __init__(self) -> None:
        self.completed = Completed("stop")
        self.held: list[TextDelta] = []
        self._texts: list[str] = []

    @property
    def text(self) -> str:
        return "".join(self._texts)

    async def listen(self, llm: ModelStream, request: LLMRequest) -> AsyncGenerator[BackendEvent, None]:
        async with aclosing(llm.stream(request)) as events:
            async for event in events:
                if isinstance(event, Completed):
                    self.completed = event
                elif isinstance(event, TextDelta):
                    self._texts.append(event.text)
                    if request.live:
                        yield event
                    else:
                        self.held.append(event)
                else:
                    yield event

    async def find_problem(self, wanted: ResponseFormat) -> str | None:
        """What is wrong with the answer. A fence around one that nobody has seen yet is taken off."""
        problem = await _find_problem(self.text, wanted)
        bare = self.text.strip()
        if problem and self.held and bare.startswith("```") and bare.endswith("```"):
            bare = bare.removesuffix("```").partition("\n")[2].strip()
            if not await _find_problem(bare, wanted):
                self.held = [TextDelta(bare)]
                return None
        return problem


async def _find_problem(text: str, wanted: ResponseFormat) -> str | None:
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return "it is not valid JSON"
    if wanted.schema is None:
        return None if isinstance(value, dict) else "it is not a JSON object"
    return await find_problem(value, wanted.schema)


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


def _simplified(wanted: ResponseFormat) -> ResponseFormat:
    """The format with what every engine can make a grammar of."""
    grammar = GrammarSchema()
    return replace(wanted, schema=None if wanted.schema is None else grammar.root(grammar.add(wanted.schema)))
