"""The arguments of `rag`. Light: read by whoever lists the tools."""

from typing import Annotated

from pydantic import Field

from tools.plain_args import PlainArgs

MAX_QUERY = 100_000  # characters; what the embedding model cannot read of them, the word search still can
MAX_RESULTS = 20
MAX_DOCUMENTS = 50

Name = Annotated[str, Field(min_length=1, max_length=500)]


class RagArgs(PlainArgs):
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
