"""The parts that need no server: the cache, the limit and the rests of providers."""

import pytest

from tools.web_search.cached import MAX_SEARCHES, RecentSearches
from tools.web_search.chain import Found, NothingFound, SearchChain
from tools.web_search.rates import MAX_USERS, UserRates
from tools.web_search.search import FailureKind, SearchFailed, SearchRequest, SearchResult

REQUEST = SearchRequest("bridges", 5)
FOUND = Found("tavily", (SearchResult("Bridge", "https://example.org/", "long"),), ())


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Provider:
    """Fails as often as it is told to, then answers."""

    name = "one"

    def __init__(self, *failures: SearchFailed) -> None:
        self.failures = list(failures)
        self.asked = 0

    async def search(self, request: SearchRequest) -> list[SearchResult]:
        self.asked += 1
        if self.failures:
            raise self.failures.pop(0)
        return list(FOUND.results)

    async def close(self) -> None:
        self.closed = True


def test_a_search_is_remembered_for_five_minutes() -> None:
    clock = Clock()
    recent = RecentSearches(clock=clock)
    assert recent.get(REQUEST) is None
    recent.put(REQUEST, FOUND)
    clock.now += 299
    assert recent.get(REQUEST) is FOUND
    clock.now += 2
    assert recent.get(REQUEST) is None


def test_the_oldest_searches_are_forgotten_first() -> None:
    recent = RecentSearches(clock=Clock())
    for number in range(MAX_SEARCHES + 1):
        recent.put(SearchRequest(str(number), 5), FOUND)
        recent.get(SearchRequest("0", 5))
    assert recent.get(SearchRequest("0", 5))
    assert recent.get(SearchRequest("1", 5)) is None
    assert recent.get(SearchRequest("2", 5))


def test_a_bucket_fills_again_steadily_and_no_higher_than_its_rim() -> None:
    clock = Clock()
    rates = UserRates(2, clock=clock)
    assert [rates.take("alice") for _ in range(3)] == [0, 0, 30]
    clock.now += 29
    assert rates.take("alice") == pytest.approx(1)
    clock.now += 1
    assert rates.take("alice") == 0
    clock.now += 10_000
    assert [rates.take("alice") > 0 for _ in range(3)] == [False, False, True]
    assert rates.take("bob") == 0


def test_the_buckets_of_many_users_take_a_bounded_place() -> None:
    rates = UserRates(1, clock=Clock())
    for number in range(MAX_USERS + 10):
        rates.take(str(number))
    assert len(rates._buckets) == MAX_USERS


@pytest.mark.parametrize(
    ("kind", "given_s", "rest_s"),
    [("rate", None, 60), ("rate", 5.0, 5), ("quota", None, 3600), ("quota", 1e9, 86400), ("plan", None, 600)],
)
async def test_a_provider_is_left_alone_as_long_as_its_trouble_lasts(
    kind: FailureKind, given_s: float | None, rest_s: float
) -> None:
    clock = Clock()
    provider = Provider(SearchFailed(kind, "No.", retry_after_s=given_s))
    chain = SearchChain([provider], clock=clock)
    with pytest.raises(NothingFound):
        await chain.search(REQUEST)
    assert chain.states() == [{"name": "one", "state": "resting", "reason": "No."}]
    clock.now += rest_s - 1
    with pytest.raises(NothingFound) as caught:
        await chain.search(REQUEST)
    assert caught.value.failures[0].retry_after_s == 1
    assert provider.asked == 1
    clock.now += 1
    assert (await chain.search(REQUEST)).failures == ()
    assert chain.states()[0]["state"] == "ready"


async def test_a_refused_key_is_for_good() -> None:
    clock = Clock()
    chain = SearchChain([Provider(SearchFailed("key", "Wrong key."))], clock=clock)
    with pytest.raises(NothingFound):
        await chain.search(REQUEST)
    clock.now += 10**9
    assert not chain.is_usable
    with pytest.raises(NothingFound) as caught:
        await chain.search(REQUEST)
    assert caught.value.failures[0].retry_after_s is None
