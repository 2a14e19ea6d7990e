"""Which sources an answer cites, and where."""

from typing import Any

import pytest

from backend.core.citations import MAX_CITATIONS, find_citations
from backend.core.events import Citation, ToolFinished

BRIDGE = {"number": 1, "title": "Bridges", "url": "https://a.example.org/bridge"}
RIVER = {"number": 2, "title": "Rivers", "url": "https://a.example.org/river"}
PAGE = {"number": 1, "document": "manual.pdf", "page": 3, "url": "/v1/vector_stores/vs_1/files/file_1/content#page=3"}


def found(*sources: Any, success: bool = True, **data: Any) -> ToolFinished:
    return ToolFinished("call_1", "websearch", success, "", 0.1, {"data": {"sources": list(sources), **data}})


def test_a_number_in_brackets_cites_its_source_at_its_place() -> None:
    text = "It spans the firth [1]. Below it flows water [2]."
    assert find_citations(text, [found(BRIDGE, RIVER)]) == (
        Citation(BRIDGE["url"], "Bridges", text.index("[1]"), text.index("[1]") + 3),
        Citation(RIVER["url"], "Rivers", text.index("[2]"), text.index("[2]") + 3),
    )


def test_several_numbers_in_one_pair_of_brackets_cite_several_sources() -> None:
    cited = find_citations("Both are old [1, 2].", [found(BRIDGE, RIVER)])
    assert {(citation.title, citation.start, citation.end) for citation in cited} == {
        ("Bridges", 13, 19),
        ("Rivers", 13, 19),
    }


def test_an_address_in_the_text_cites_its_source() -> None:
    text = f"See {RIVER['url']} for more."
    assert find_citations(text, [found(BRIDGE, RIVER)]) == (Citation(RIVER["url"], "Rivers", 4, 4 + len(RIVER["url"])),)


def test_an_answer_without_marks_rests_on_everything_that_was_found() -> None:
    cited = find_citations("It is old.", [found(BRIDGE, RIVER), found(BRIDGE)])
    assert [(citation.title, citation.start, citation.end) for citation in cited] == [
        ("Bridges", 0, 10),
        ("Rivers", 0, 10),
    ]


def test_a_number_that_two_calls_gave_to_different_sources_cites_both() -> None:
    other = {**RIVER, "number": 1}
    assert {citation.title for citation in find_citations("Old [1].", [found(BRIDGE), found(other)])} == {
        "Bridges",
        "Rivers",
    }


def test_a_passage_of_a_document_is_named_by_document_and_page() -> None:
    assert find_citations("So it is [1].", [found(PAGE)]) == (Citation(PAGE["url"], "manual.pdf, page 3", 9, 12),)


def test_a_page_that_was_read_is_a_source() -> None:
    page = {"url": "https://a.example.org/page", "title": "A page"}
    assert [citation.title for citation in find_citations("It says so.", [found(page=page)])] == ["A page"]


@pytest.mark.parametrize(
    "step",
    [
        found(BRIDGE, success=False),
        found({"number": 1}),
        found({"number": 1, "url": "javascript:alert(1)"}),
        found({"number": 1, "url": 7}),
        found({"number": 1, "url": "https://a.example.org/" + "x" * 3000}),
        found("rubbish", None, [1]),
        ToolFinished("call_1", "toy", True, "", 0.1, {"data": {"sources": "rubbish"}}),
        ToolFinished("call_1", "toy", True, "", 0.1, {"data": None}),
        ToolFinished("call_1", "toy", True, "", 0.1, None),
    ],
)
def test_failed_calls_and_rubbish_are_no_sources(step: ToolFinished) -> None:
    assert find_citations("Old [1].", [step]) == ()


def test_unknown_numbers_cite_nothing_and_titles_are_clean() -> None:
    odd = {"number": 1, "title": "half \ud800", "url": "https://a.example.org/"}
    (citation,) = find_citations("Array [7] and [1].", [found(odd)])
    assert (citation.title, citation.start) == ("half �", 14)


def test_there_are_only_so_many_citations() -> None:
    assert len(find_citations("[1] " * 500, [found(BRIDGE)])) == MAX_CITATIONS
