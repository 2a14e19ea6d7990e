"""What a search provider is: what it is asked, what it brings, and how it fails."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

Topic = Literal["general", "news", "finance"]
TimeRange = Literal["day", "week", "month", "year"]

# key      the provider refuses who we are         plan   what was asked is not part of what is paid for
# quota    what was paid for is used up            rate   too many requests in a short time
# network  it cannot be reached, or is broken      query  it does not understand what it was asked
FailureKind = Literal["key", "plan", "quota", "rate", "network", "query"]

SEARCH_TIMEOUT_S = 20.0  # for one search of one provider
CONNECT_TIMEOUT_S = 5.0
MAX_TITLE = 300  # characters
MAX_SNIPPET = 4_000
MAX_URL = 2_000


@dataclass(frozen=True, slots=True)
class SearchRequest:
    query: str
    max_results: int
    include_domains: tuple[str, ...] = ()
    exclude_domains: tuple[str, ...] = ()
    topic: Topic = "general"
    time_range: TimeRange | None = None

    @property
    def query_with_domains(self) -> str:
        """For providers without domains of their own: the operators that most search engines know."""
        sites = " OR ".join(f"site:{domain}" for domain in self.include_domains)
        without = [f"-site:{domain}" for domain in self.exclude_domains]
        return " ".join(part for part in (self.query, f"({sites})" if " OR " in sites else sites, *without) if part)


@dataclass(frozen=True, slots=True)
class SearchResult:
    title: str
    url: str
    snippet: str
    score: float | None = None  # of the provider's own scale
    published: str | None = None  # as the provider writes it


class SearchFailed(Exception):
    """A provider brought nothing.

    Args:
        message: a sentence for the model and for whoever runs the server; names the provider, and holds no address.
        retry_after_s: when it makes sense to ask this provider again; None: it did not tell.
    """

    def __init__(self, kind: FailureKind, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.retry_after_s = retry_after_s


class SearchProvider(Protocol):
    name: str

    async def search(self, request: SearchRequest) -> list[SearchResult]:
        """Return the results, best first; none is an answer too.

        Raises:
            SearchFailed: why there is no answer.
        """
        ...

    async def close(self) -> None: ...


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds of a `Retry-After`; a date there is rare, and not worth a parser."""
    value = headers.get("Retry-After", "")
    return float(value) if value.isascii() and value.isdigit() else None


def make_result(
    *, title: str | None, url: str, snippet: str | None, score: float | None = None, published: str | None = None
) -> SearchResult | None:
    """A result within bounds, or None for one whose address a reader could not follow."""
    url = url.strip()
    if not url.lower().startswith(("http://", "https://")) or len(url) > MAX_URL or any(c.isspace() for c in url):
        return None
    title = " ".join((title or "").split())[:MAX_TITLE]
    return SearchResult(title or url, url, (snippet or "").strip()[:MAX_SNIPPET], score, published or None)


def pick(results: list[SearchResult | None], request: SearchRequest) -> list[SearchResult]:
    """At most as many as were asked for, each address once, and only from domains that were asked for."""
    picked: dict[str, SearchResult] = {}
    for result in results:
        if result and _is_from_wanted_domain(result.url, request):
            picked.setdefault(result.url, result)
    return list(picked.values())[: request.max_results]


def _is_from_wanted_domain(url: str, request: SearchRequest) -> bool:
    host = url.split("/", 3)[2].rpartition("@")[2].partition(":")[0].lower()

    def is_within(domain: str) -> bool:
        return host == domain or host.endswith(f".{domain}")

    if any(map(is_within, request.exclude_domains)):
        return False
    return not request.include_domains or any(map(is_within, request.include_domains))
