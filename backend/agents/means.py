"""What agents work with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from backend.agents.guards import Limits
from backend.core.contracts import ToolRunner
from backend.core.llm.base import ModelStream


class Models(Protocol):
    """What is known of a model on the backend that is likely to answer."""

    def context_tokens(self, model: str) -> int | None: ...

    def capabilities(self, model: str) -> frozenset[str]: ...


@dataclass(frozen=True, slots=True)
class Means:
    """One for the life of the process.

    `tool_models`: tool -> the model that works on the steps of a plan that are meant for it.
    """

    llm: ModelStream
    tools: ToolRunner
    models: Models
    limits: Limits
    tool_models: Mapping[str, str] = field(default_factory=dict)
