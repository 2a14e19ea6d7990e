"""The arguments of `ppt_maker`. Light: read by whoever lists the tools."""

from typing import Annotated, Any

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from tools.plain_args import PlainArgs

from .deck import MAX_SLIDES
from .themes import THEMES

MAX_INSTRUCTION = 8_000  # characters
MAX_DECK = 500_000
MAX_FILES = 10
MAX_SOURCES = 20
MAX_SOURCE_TEXT = 20_000
MAX_FILE_NAME = 1_024


def _as_text(value: object) -> object:
    """A deck that comes as an object, as the result of an earlier call has it."""
    return orjson.dumps(value).decode() if isinstance(value, dict) else value


class SourceText(BaseModel):
    """A passage or a search result, in the shape that `rag` and `websearch` give it, or any other with these names."""

    model_config = ConfigDict(extra="ignore", str_strip_whitespace=True)

    title: Annotated[str, Field(max_length=500)] = ""
    url: Annotated[str, Field(max_length=2_000)] = ""
    text: Annotated[str, Field(max_length=MAX_SOURCE_TEXT)] = ""

    @model_validator(mode="before")
    @classmethod
    def _read_other_names(cls, fields: Any) -> Any:
        if isinstance(fields, str):
            return {"text": fields}
        if not isinstance(fields, dict):
            return fields
        page = f", page {fields['page']}" if fields.get("page") else ""
        document = f"{fields['document']}{page}" if fields.get("document") else ""
        return {
            "title": fields.get("title") or document,
            "url": fields.get("url") or "",
            "text": fields.get("text") or fields.get("snippet") or fields.get("content") or "",
        }


class PptMakerArgs(PlainArgs):
    """A new deck, or with `deck` a change of one."""

    instruction: Annotated[
        str,
        Field(
            min_length=1,
            max_length=MAX_INSTRUCTION,
            description="What the deck is about, for whom, in which language, and all that must be in it. With `deck`: "
            "what to change, for example: make slide 3 a table.",
        ),
    ]
    slides: Annotated[
        int, Field(ge=0, le=MAX_SLIDES, description="How many slides in all, the cover among them; 0: as told or fit.")
    ] = 0
    theme: Annotated[
        str,
        Field(
            max_length=40,
            description="How it looks: " + "; ".join(f"{t.name} ({t.description})" for t in THEMES.values()) + ".",
        ),
    ] = ""
    deck: Annotated[
        str,
        BeforeValidator(_as_text),
        Field(
            max_length=MAX_DECK,
            description="To change a deck: the name of its file in this session, such as talk.deck.json.",
        ),
    ] = ""
    files: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=MAX_FILE_NAME)]],
        Field(
            max_length=MAX_FILES,
            description="Names of files of this session to use: CSV or JSON for charts and tables, pictures, texts.",
        ),
    ] = []
    sources: Annotated[
        list[SourceText],
        Field(max_length=MAX_SOURCES, description="Passages or search results that the deck is to be made from."),
    ] = []
    template: Annotated[
        str, Field(max_length=MAX_FILE_NAME, description="Name of a .pptx of this session whose layouts are used.")
    ] = ""

    @field_validator("theme")
    @classmethod
    def _check_theme(cls, name: str) -> str:
        if name and name.lower() not in THEMES:
            raise ValueError(f"there is no such theme; there are: {', '.join(THEMES)}")
        return name.lower()
