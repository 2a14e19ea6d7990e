"""The arguments of `python_coder`, in each of its modes. Light: read by whoever lists the tools."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

MAX_CODE = 1_000_000  # characters
MAX_TASK = 30_000  # characters: one argument of a program holds 128 KiB


class PythonCoderArgs(BaseModel):
    model_config = ConfigDict(extra="forbid")

    code: Annotated[
        str,
        Field(
            min_length=1,
            max_length=MAX_CODE,
            description="Python code. Variables and files of earlier calls of this session are there. "
            "The value of the last expression is returned.",
        ),
    ]
    timeout: Annotated[
        float | None,
        Field(gt=0, allow_inf_nan=False, description="Seconds after which the code is stopped; capped by the server."),
    ] = None
    reset: Annotated[
        bool, Field(description="Start with a new interpreter, without the variables of earlier calls.")
    ] = False


class NanocoderArgs(BaseModel):
    model_config = ConfigDict(extra="forbid")

    task: Annotated[
        str,
        Field(
            min_length=1,
            max_length=MAX_TASK,
            pattern=r"\S",
            description="What the coding agent is to do, with all that it has to know, and the files it is to make.",
        ),
    ]
    timeout: Annotated[
        float | None,
        Field(gt=0, allow_inf_nan=False, description="Seconds after which the task is stopped; capped by the server."),
    ] = None
