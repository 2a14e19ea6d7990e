"""The arguments of `rag`. Light: read by whoever lists the tools."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_QUERY = 100_000  # characters; what the embedding model cannot read of them, the word search still can
MAX_RESULTS = 20
MAX_DOCUMENTS = 50

Name = Annotated[str, Field(min_length=1, max_length=500)]


class RagArgs(BaseModel):
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    query: Annotated[
        str,
        Field(
            min_length=1,
            max_length=MAX_QUERY,
            description="The question, or what to look for, with names, numbers and terms as the documents write them.",
        ),
    ]
    collection: Annotated[
        str, Field(max_length=500, description="The collection to search; empty: the one that the user works with.")
    ] = ""
    max_results: Annotated[int, Field(ge=0, le=MAX_RESULTS, description="How many passages; 0: five.")] = 0
    documents: Annotated[
        list[Name], Field(max_length=MAX_DOCUMENTS, description="Only these documents, by name; empty: all.")
    ] = []
    raw: Annotated[
        bool, Field(description="True: the passages alone. False: an answer written from them, with sources.")
    ] = False

    @model_validator(mode="before")
    @classmethod
    def _drop_blanks(cls, fields: Any) -> Any:
        """Models send "" or null for what they mean to leave out."""
        if not isinstance(fields, dict):
            return fields
        return {name: value for name, value in fields.items() if value is not None and value != ""}
