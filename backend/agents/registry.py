"""The agents that there are, by the name that a request gives."""

from collections.abc import Mapping

from backend.agents.chat import ChatAgent
from backend.core.contracts import Agent
from backend.core.llm.base import ModelStream


def make_agents(llm: ModelStream) -> Mapping[str, Agent]:
    return {"chat": ChatAgent(llm)}
