"""The agents that there are, by the name that a request gives."""

from collections.abc import Mapping

from backend.agents.auto import AutoAgent
from backend.agents.chat import ChatAgent
from backend.agents.means import Means
from backend.agents.plan_execute import PlanExecuteAgent
from backend.agents.react import ReActAgent
from backend.core.contracts import Agent
from backend.core.llm.base import ModelStream


def make_agents(llm: ModelStream, means: Means) -> Mapping[str, Agent]:
    """Reads the agents' prompts: blocks.

    Args:
        llm: of plain chat, with the client's tools, and prompts fitted to the model's window; agents fit their own.
    """
    agents: dict[str, Agent] = {
        "chat": ChatAgent(llm),
        "react": ReActAgent(means),
        "plan_execute": PlanExecuteAgent(means),
    }
    return agents | {"auto": AutoAgent(means, agents)}
