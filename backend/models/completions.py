"""The request body of `/v1/completions`, OpenAI's older API: a text that the model goes on with, without a template."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from backend.models.chat import Penalty, Probability, StreamOptions, Temperature, TokenLimit

MAX_PROMPTS = 16
MAX_COPIES = 8
MAX_LOGPROBS = 20
_PROMPTS = {
    "anyOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": MAX_PROMPTS},
    ]
}


class CompletionRequest(BaseModel):
    """OpenAI's fields. `prompt` is only described here: what cannot be done is told in a sentence."""

    model_config = ConfigDict(extra="ignore")

    prompt: Annotated[Any, WithJsonSchema(_PROMPTS)]
    model: Annotated[str | None, Field(max_length=256)] = None
    suffix: str | None = None
    echo: bool | None = None
    n: Annotated[int | None, Field(ge=1, le=MAX_COPIES)] = None
    best_of: Annotated[int | None, Field(ge=1)] = None
    max_tokens: TokenLimit | None = None
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    logprobs: Annotated[int | None, Field(ge=0, le=MAX_LOGPROBS)] = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    seed: int | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[str, float] | None = None
