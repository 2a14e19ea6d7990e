"""Which provider answers, what is told of the others, and how long each is left alone."""

import asyncio
import socket
import time
from pathlib import Path

import pytest

from tests.support.fake_engines import FakeEngines
from tests.support.fake_searxng import FakeSearXNG, SearXNGReply
from tests.support.fake_tavily import KEY, TAVILY_ERRORS, TavilyReply
from tools.web_search import tavily as tavily_module

from .conftest import ROUTE, Web, running_web


@pytest.mark.parametrize(
    ("trouble", "kind", "says", "retry_after_s", "times_asked"),
    [
        ("key", "key", "TAVILY_API_KEY", None, 1),
        ("plan", "plan", "not supported on your plan", 600, 1),
        ("quota", "quota", "plan are used up", 3600, 1),
        ("pay_go", "quota", "pay-as-you-go limit", 3600, 1),
        ("rate", "rate", "too often", 7, 1),
        ("query", "query", "too long", None, 1),
        ("broken", "network", "out of order (status 500)", 15, 2),
        ("garbage", "network", "no answer", 15, 2),
        ("other_shape", "network", "no answer", 15, 2),
        ("hangs_up", "network", "cannot be reached", 15, 2),
    ],
)
async def test_what_tavily_refuses_searxng_answers_and_both_are_told(
    tmp_path: Path, trouble: str, kind: str, says: str, retry_after_s: int | None, times_asked: int
) -> None:
    async with FakeSearXNG() as searxng, running_web(tmp_path, SEARXNG_URL=searxng.url) as web:
        web.tavily.script(*[TAVILY_ERRORS[trouble]] * times_asked)
        result = await web.search(raw=True, max_results=1)
        assert result["success"]
        assert result["data"]["provider"] == "searxng"
        (failure,) = result["data"]["failures"]
        assert (failure["provider"], failure["kind"]) == ("tavily", kind)
        assert says in failure["message"]
        assert failure["retry_after_s"] == retry_after_s
        assert len(web.tavily.searches) == times_asked
        assert "127.0.0.1" not in str(failure)
        assert KEY not in str(result)

        await web.search("something else", raw=True)
        left_alone = kind != "query"
        assert len(web.tavily.searches) == times_asked + (not left_alone)


async def test_a_moment_of_trouble_is_not_noticed(web: Web) -> None:
    web.tavily.script(TAVILY_ERRORS["broken"])
    result = await web.search(raw=True)
    assert (result["data"]["provider"], result["data"]["failures"]) == ("tavily", [])
    assert len(web.tavily.searches) == 2


async def test_a_provider_that_is_too_slow_is_given_up_and_not_asked_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tavily_module, "SEARCH_TIMEOUT_S", 2.2)
    async with running_web(tmp_path) as web:
        web.tavily.script(TavilyReply(delay_s=30))
        result = await web.search()
        assert not result["success"]
        assert "Tavily did not answer in time. Try again in 15 s" in result["error"]
        assert len(web.tavily.searches) == 1


async def test_when_nobody_answers_the_model_is_told_what_to_do(web: Web) -> None:
    web.tavily.script(TAVILY_ERRORS["rate"])
    for _ in range(2):
        result = await web.search()
        assert not result["success"]
        assert result["error"] == (
            "The web cannot be searched now. Tavily has been asked too often in a short time. "
            "Try again in 7 s, or answer without the web and say so."
        )
        assert result["data"]["failures"][0]["kind"] == "rate"
    assert len(web.tavily.searches) == 1
    assert (await web.state())["enabled"]


async def test_a_search_that_is_not_understood_is_the_models_to_mend(web: Web) -> None:
    web.tavily.script(TAVILY_ERRORS["query"])
    error = (await web.search())["error"]
    assert "Max query length is 400 characters. Put the search in other words." in error
    assert (await web.search())["success"]


async def test_a_wrong_key_switches_the_tool_off(tmp_path: Path) -> None:
    async with running_web(tmp_path, TAVILY_API_KEY="tvly-wrong") as web:
        assert "TAVILY_API_KEY" in (await web.search())["error"]
        state = await web.state()
        assert not state["enabled"]
        assert (
            state["reason"] == "Tavily refuses the API key. Set a valid TAVILY_API_KEY and start the tools API again."
        )
        response = await web.tools.alice.post(ROUTE, json={"query": "again"})
        assert (response.status_code, response.json()["error"]["code"]) == (503, "tool_disabled")
        assert len(web.tavily.searches) == 1


async def test_without_a_provider_the_tool_is_off_and_says_how_to_switch_it_on(tmp_path: Path) -> None:
    async with running_web(tmp_path, TAVILY_API_KEY="") as web:
        while (state := await web.state())["reason"] == "It is still starting.":
            await asyncio.sleep(0.01)
        assert not state["enabled"]
        assert state["reason"] == "No search provider is set up."
        for setting in ("TAVILY_API_KEY", "SEARXNG_URL", "WEBSEARCH_KEYLESS"):
            assert setting in state["how_to_enable"]
        response = await web.tools.alice.post(ROUTE, json={"query": "bridges"})
        assert response.status_code == 503
        assert "No search provider is set up. Set TAVILY_API_KEY" in response.json()["error"]["message"]


# --- SearXNG ----------------------------------------------------------------------------------------------------------


async def test_searxng_gets_domains_as_operators_and_brings_the_same_shape(tmp_path: Path) -> None:
    async with FakeSearXNG() as searxng, running_web(tmp_path, TAVILY_API_KEY="", SEARXNG_URL=f"{searxng.url}/") as web:
        result = await web.search(
            "!!tall towers",
            raw=True,
            include_domains=["towers.example.org", "towers.example.com"],
            exclude_domains=["spam.example.net"],
            time_range="month",
        )
        sites = "(site:towers.example.org OR site:towers.example.com) -site:spam.example.net"
        assert searxng.searches == [
            {"q": f" tall towers {sites}", "format": "json", "categories": "general", "time_range": "month"}
        ]
        assert result["data"]["provider"] == "searxng"
        assert result["data"]["results"][0]["snippet"] == "The tower is 330 m tall."
        assert result["data"]["results"][1]["published"] == "2024-05-01T00:00:00"


@pytest.mark.parametrize(
    ("reply", "kind", "says"),
    [
        (SearXNGReply(status=403), "key", "Add json to search.formats"),
        (SearXNGReply(status=429, headers={"Retry-After": "30"}), "rate", "limiter"),
        (SearXNGReply(status=400), "query", "does not accept"),
        (SearXNGReply(status=502), "network", "status 502"),
        (SearXNGReply(body=b"<html>"), "network", "no answer"),
        (SearXNGReply(body=b'{"results": 3}'), "network", "no answer"),
        (SearXNGReply(results=(), unresponsive=[("mojeek", "timeout")]), "network", "mojeek"),
    ],
)
async def test_searxngs_troubles_are_told_apart(tmp_path: Path, reply: SearXNGReply, kind: str, says: str) -> None:
    async with FakeSearXNG() as searxng, running_web(tmp_path, TAVILY_API_KEY="", SEARXNG_URL=searxng.url) as web:
        searxng.reply = reply
        result = await web.search()
        assert not result["success"]
        assert says in result["error"]
        assert result["data"]["failures"][0]["kind"] == kind


async def test_a_searxng_that_is_not_there_is_told(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        async with running_web(tmp_path, TAVILY_API_KEY="", SEARXNG_URL=url) as web:
            assert "SearXNG cannot be reached." in (await web.search())["error"]


# --- Without a key ----------------------------------------------------------------------------------------------------


async def test_public_engines_answer_in_the_same_shape(tmp_path: Path) -> None:
    with await asyncio.to_thread(FakeEngines, tmp_path) as engines:
        async with running_web(tmp_path, TAVILY_API_KEY="", WEBSEARCH_KEYLESS=True) as web:
            result = await web.search(raw=True)
    assert result["data"]["provider"] == "ddgs", result
    assert result["data"]["results"][0] == {
        "title": "Forth Bridge",
        "url": "https://bridges.example.org/forth",
        "snippet": "The Forth Bridge is 2467 m long.",
        "score": None,
        "published": None,
    }
    assert "html.duckduckgo.com" in engines.asked


async def test_public_engines_that_cannot_be_reached_are_told_soon(tmp_path: Path) -> None:
    with await asyncio.to_thread(FakeEngines, tmp_path, refuses=True) as engines:
        async with running_web(tmp_path, TAVILY_API_KEY="", WEBSEARCH_KEYLESS=True) as web:
            started = time.monotonic()
            result = await web.search()
            assert time.monotonic() - started < 20
    assert not result["success"]
    assert "public search engines cannot be reached, or refuse to answer" in result["error"]
    assert result["data"]["failures"][0]["provider"] == "ddgs"
    assert engines.asked
