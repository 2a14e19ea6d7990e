"""The arguments of `websearch`. Light: read by whoever lists the tools."""

import re
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from tools.plain_args import PlainArgs

MAX_QUERY = 400  # characters; Tavily takes no more
MAX_DOMAINS = 20
MAX_URL = 2_000

_DOMAIN = re.compile(r"(?=.{1,253}\Z)([\w-]{1,63}\.)+[\w-]{2,63}")


def _read_domain(value: object) -> object:
    """A domain in the ways that people and models write it: with a scheme, a path, or a star before it."""
    if not isinstance(value, str):
        return value
    domain = re.sub(r"^(\w+://)?(\*\.)?|[/?#].*$", "", value.strip()).lower()
    if not _DOMAIN.fullmatch(domain):
        raise ValueError("is not a domain such as example.org")
    return domain


Domain = Annotated[str, BeforeValidator(_read_domain)]


class WebSearchArgs(PlainArgs):
    """Either a query or the address of a page."""

    query: Annotated[
        str,
        Field(
            max_length=MAX_QUERY,
            description="What to search the web for, as you would type it into a search engine. One subject a call.",
        ),
    ] = ""
    fetch_url: Annotated[
        str,
        Field(
            max_length=MAX_URL,
            description="Instead of a query: the http(s) address of one public page, whose text is returned.",
        ),
    ] = ""
    max_results: Annotated[
        int, Field(ge=0, le=20, description="How many results; 0: as many as the server is set up for.")
    ] = 0
    raw: Annotated[
        bool, Field(description="True: the results alone. False: also an answer written from them, with sources.")
    ] = False
    include_domains: Annotated[
        list[Domain], Field(max_length=MAX_DOMAINS, description="Only results from these domains, e.g. wikipedia.org.")
    ] = []
    exclude_domains: Annotated[
        list[Domain], Field(max_length=MAX_DOMAINS, description="No results from these domains.")
    ] = []
    topic: Annotated[
        Literal["general", "news", "finance"],
        Field(description="The kind of sources: news for what happened lately, finance for markets."),
    ] = "general"
    time_range: Annotated[
        Literal["any", "day", "week", "month", "year"],
        Field(description="Only what was published in the last day, week, month or year."),
    ] = "any"

    @model_validator(mode="after")
    def _check_one_is_given(self) -> Self:
        if bool(self.query) == bool(self.fetch_url):
            raise ValueError("give either `query`, to search, or `fetch_url`, to read one page")
        return self
