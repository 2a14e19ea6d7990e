"""What the tools API answers."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from backend.core.toolbox import LoadedTool


class ToolInfo(BaseModel):
    """A tool, as a model or a program needs it to call it."""

    name: str
    description: str
    parameters: dict[str, Any] = Field(description="JSON schema of the arguments")
    enabled: bool
    starting: bool = Field(description="it is off because it is still starting")
    reason: str = Field(description="why the tool is off")
    how_to_enable: str
    timeout_s: float = Field(description="the longest that a call takes")


class ToolList(BaseModel):
    tools: list[ToolInfo]


class ToolHealth(BaseModel):
    state: Literal["on", "off", "starting"]
    reason: str = Field(description="why the tool is off")
    how_to_enable: str
    details: dict[str, Any]
    running: int
    waiting: int

    @classmethod
    def of(cls, tool: LoadedTool) -> "ToolHealth":
        status = tool.status
        return cls(
            state="starting" if tool.is_starting else "on" if status.enabled else "off",
            reason=status.reason,
            how_to_enable=status.how_to_enable,
            details=status.details,
            running=tool.queue.running,
            waiting=tool.queue.waiting,
        )


class ToolsHealth(BaseModel):
    status: Literal["ok"] = "ok"
    uptime_s: float
    tools: dict[str, ToolHealth]


class ToolCallResult(BaseModel):
    """What a call brought. A tool that failed is a result too."""

    success: bool
    answer: str
    data: dict[str, Any]
    metadata: dict[str, Any] = Field(description="tool, duration_ms, request_id, session_id, and what the tool adds")
    error: str | None = Field(description="what went wrong, in a sentence that a model can act on")
