"""`/v1/embeddings` in OpenAI's shapes, and what the tools API is asked for behind it."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

MAX_TEXTS = 2048
MAX_TEXT_CHARS = 1_000_000


_TEXT = {"type": "string", "minLength": 1, "maxLength": MAX_TEXT_CHARS}
_TEXTS = {"anyOf": [_TEXT, {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": MAX_TEXTS}]}


class EmbeddingsRequest(BaseModel):
    model_config = ConfigDict(extra="ignore")

    # What it is meant to be is only described: lists of tokens are refused with a message of their own.
    input: Annotated[Any, WithJsonSchema(_TEXTS)]
    model: Annotated[str | None, Field(max_length=256)] = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int | None, Field(ge=1, le=100_000)] = None
    user: str | None = None


class TextsToEmbed(BaseModel):
    model_config = ConfigDict(extra="forbid")

    texts: Annotated[list[Annotated[str, Field(max_length=MAX_TEXT_CHARS)]], Field(min_length=1, max_length=MAX_TEXTS)]


class EmbeddedTexts(BaseModel):
    """`vectors`: little-endian 32-bit floats in base64, one vector behind the other."""

    model: str
    dimension: int
    vectors: str
    tokens: int
    cut: list[int] = Field(description="which texts are longer than what the model reads: their ends were left out")
