"""Chooses who answers: rules where they are certain, a decision of a few tokens where they are not."""

import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import replace

from backend.agents.guards import Budget
from backend.agents.listening import Said, listen
from backend.agents.means import Means
from backend.core.contracts import Agent, Turn
from backend.core.errors import ApiError
from backend.core.events import AgentSelected, BackendSelected, Event, RunFinished
from backend.core.llm.base import LLMRequest, ResponseFormat, Sampling
from backend.core.llm.toolset import parse_json
from backend.core.messages import Message
from backend.core.prompts import load_prompt
from backend.core.untrusted import shorten

CHOICES = ("chat", "react", "plan_execute")
MAX_QUESTION_CHARS = 2_000
MAX_ROUTE_TOKENS = 24
SCHEMA = {
    "type": "object",
    "properties": {"agent": {"enum": list(CHOICES)}},
    "required": ["agent"],
    "additionalProperties": False,
}
_SMALL_TALK = re.compile(
    r"\W*(?:hi|hello|hey|good (?:morning|evening|night)|thanks?(?: you)?|thx|bye|ok(?:ay)?|how are you|who are you|"
    r"안녕(?:하세요)?|감사합니다|고마워요?|hallo|danke|bonjour|merci|hola|gracias)\b[^\n]{0,20}",
    re.IGNORECASE,
)
_SUM = re.compile(r"(?<![\w.])\d[\d.,]*\s*(?:[-+*/^%×÷]|\*\*)\s*\d[\d.,]*(?![\w.-]*\d-)")
_DATA_FILE = re.compile(r"\.(?:csv|tsv|xlsx?|json|parquet|py)$", re.IGNORECASE)


class AutoAgent:
    def __init__(self, means: Means, agents: Mapping[str, Agent]) -> None:
        self._means = means
        self._agents = agents
        load_prompt("agents/route")

    async def run(self, turn: Turn) -> AsyncGenerator[Event, None]:
        budget = Budget(self._means.limits)
        selected = _by_rule(turn) or await self._decide(turn, budget)
        told = False
        async with aclosing(self._agents[selected.agent].run(turn)) as events:
            async for event in events:
                # Only when somebody answers: until then a failure is an HTTP status.
                if not told and not isinstance(event, BackendSelected):
                    told = True
                    yield selected
                if isinstance(event, RunFinished):
                    event = replace(event, usage=event.usage + budget.usage)
                yield event

    async def _decide(self, turn: Turn, budget: Budget) -> AgentSelected:
        said = Said()
        try:
            async with aclosing(
                listen(self._means.llm, self._request(turn), budget, said, None, is_last=False)
            ) as events:
                async for _ in events:
                    pass
        except ApiError:
            return AgentSelected("react", "no decision could be made")  # it tells what is wrong, should that go on
        decision = parse_json(said.text)
        agent = decision.get("agent") if isinstance(decision, dict) else None
        if agent in CHOICES:
            return AgentSelected(str(agent), "chosen by the model")
        return AgentSelected("react", "the model made no clear choice")

    def _request(self, turn: Turn) -> LLMRequest:
        tools = ", ".join(tool.name for tool in turn.tools)
        question = shorten(_question_of(turn), MAX_QUESTION_CHARS)
        return LLMRequest(
            model=turn.request.model,
            messages=(Message("system", load_prompt("agents/route").fill(tools=tools)), Message("user", question)),
            sampling=Sampling(temperature=0.0, max_tokens=MAX_ROUTE_TOKENS),
            response_format=ResponseFormat(SCHEMA, "route"),
            reasoning_effort="none" if "thinking" in self._means.models.capabilities(turn.request.model) else None,
            context=turn.request.context,
        )


def _by_rule(turn: Turn) -> AgentSelected | None:
    """The choice where it is certain."""
    tools = {tool.name for tool in turn.tools}
    question = _question_of(turn).strip()
    if not tools:
        return AgentSelected("chat", "there are no tools")
    if not turn.attachments and _SMALL_TALK.fullmatch(question):
        return AgentSelected("chat", "small talk")
    if len(question) > 300 or question.count("\n") > 2:
        return None
    if "python_coder" in tools and any(_DATA_FILE.search(name) for name in turn.attachments):
        return AgentSelected("react", "a data file is attached")
    if "python_coder" in tools and _SUM.search(question):
        return AgentSelected("react", "there is something to compute")
    if turn.rag_collection and "rag" in tools:
        return AgentSelected("react", "a document collection is named")
    return None


def _question_of(turn: Turn) -> str:
    return next((message.text for message in reversed(turn.request.messages) if message.role == "user"), "")
