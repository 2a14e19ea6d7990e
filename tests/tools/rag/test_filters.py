import pytest

from backend.core.documents.filters import parse_filter
from backend.core.errors import Unprocessable

DOCUMENT = {"year": 2024, "city": "Lima", "draft": False}


def one(kind: str, key: str, value: object) -> dict[str, object]:
    return {"type": kind, "key": key, "value": value}


@pytest.mark.parametrize(
    ("given", "matches"),
    [
        (one("eq", "city", "Lima"), True),
        (one("eq", "city", "lima"), False),
        (one("ne", "city", "Oslo"), True),
        (one("ne", "none", "Oslo"), True),
        (one("gt", "year", 2023), True),
        (one("gte", "year", 2024.0), True),
        (one("lt", "year", 2024), False),
        (one("lte", "year", 2024), True),
        (one("gt", "year", "2023"), False),
        (one("eq", "draft", False), True),
        (one("eq", "draft", 0), False),
        (one("in", "city", ["Oslo", "Lima"]), True),
        (one("nin", "city", ["Oslo", "Lima"]), False),
        (one("nin", "none", ["Oslo"]), True),
        ({"type": "and", "filters": [one("gt", "year", 2000), one("eq", "city", "Lima")]}, True),
        ({"type": "and", "filters": [one("gt", "year", 2000), one("eq", "city", "Oslo")]}, False),
        ({"type": "or", "filters": [one("gt", "year", 3000), one("eq", "city", "Lima")]}, True),
        ({"type": "or", "filters": []}, False),
    ],
)
def test_a_filter_says_whether_attributes_match(given: object, matches: bool) -> None:
    assert parse_filter(given)(DOCUMENT) is matches


def test_what_is_no_filter_is_refused() -> None:
    deep: object = one("eq", "a", 1)
    for _ in range(9):
        deep = {"type": "and", "filters": [deep]}
    wide = {"type": "or", "filters": [one("eq", "a", 1)] * 65}
    for wrong in (None, [], "x", {}, one("like", "a", "b"), one("eq", "a", None), one("eq", "a", []), deep, wide):
        with pytest.raises(Unprocessable):
            parse_filter(wrong)
