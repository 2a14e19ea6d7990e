"""The arguments of the toy tool."""

from typing import Literal

from pydantic import BaseModel, Field


class Origin(BaseModel):
    """A part of the arguments with parts of its own."""

    place: str


class ToyArgs(BaseModel):
    act: Literal[
        "echo", "sleep", "resist", "report", "flood", "fail", "crash", "exit", "rubbish", "huge", "odd", "cite"
    ] = Field("echo", description="what the toy is to do")
    text: str = Field("", description="what it says")
    seconds: float = Field(0, ge=0, le=60, description="how long it takes")
    origin: Origin | None = None
