"""What is read without a model: wishes in an instruction, tables of files, and JSON that was cut."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.ppt_maker.data_tables import ChartChoice, choose_chart, make_chart, read_number, read_table
from tools.ppt_maker.repair import make_distinct, read_json, tidy, tidy_headline, tidy_list
from tools.ppt_maker.wishes import count_charts, count_slides, find_language, named_layout, named_slides

PLAN = {"title": 'A "b" \\ c', "pages": [{"layout": "bullets", "headline": "Eins, zwei"}, {"layout": "table"}], "n": 3}


@pytest.mark.parametrize(
    ("text", "slides"),
    [
        ("Make five slides on machine-learning basics", 5),
        ("a 5-slide deck about bees", 5),
        ("a deck of 12 short slides", 12),
        ("머신러닝 기초에 대한 슬라이드 5장 만들어줘", 5),
        ("5장의 슬라이드", 5),
        ("Erstelle sechs Folien über Bienen", 6),
        ("关于蜜蜂的8页", 8),
        ("in 2024 slides were sold", 0),
        ("a deck about bees", 0),
    ],
)
def test_the_number_of_slides_is_read_from_words(text: str, slides: int) -> None:
    assert count_slides(text) == slides


def test_charts_slides_and_layouts_are_read_from_words() -> None:
    assert count_charts("one from sales.csv with two charts") == 2
    assert count_charts("차트 2개가 있는 발표") == 2
    assert named_slides("Mach Folie 2 und 4 kürzer") == [2, 4]
    assert named_slides("3번째 슬라이드를 표로 바꿔줘") == [3]
    assert named_slides("make it shorter") == []
    assert named_layout("turn the list on slide 3 into a table") == "table"
    assert named_layout("make slide 2 shorter") is None


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Make five slides on bees", "en"),
        ("Fünf Folien über die Bienen und den Honig", "de"),
        ("Une présentation sur les abeilles et le miel", "fr"),
        ("꿀벌에 대한 슬라이드", "ko"),
        ("a short deck in Korean about bees", "ko"),
        ("ミツバチについてのスライド", "ja"),
        ("关于蜜蜂的演示文稿", "zh"),
        ("عرض عن النحل", "ar"),
    ],
)
def test_the_language_is_the_one_asked_for_or_the_one_of_the_words(text: str, language: str) -> None:
    assert find_language(text) == language


@given(st.integers(min_value=2, max_value=len(json.dumps(PLAN))))
def test_cut_json_is_closed_and_never_more_than_was_there(end: int) -> None:
    value = read_json(json.dumps(PLAN)[:end]) or {}
    assert value or end < len('{"title": "')
    assert set(value) <= set(PLAN)
    if "title" in value:
        assert str(PLAN["title"]).startswith(value["title"])


def test_whole_json_is_read_out_of_prose_and_fences() -> None:
    assert read_json('Sure!\n```json\n{"a": [1]}\n```\nAnything else?') == {"a": [1]}
    assert read_json("I cannot do that.") is None
    assert read_json("[1, 2]") is None
    assert read_json('{"a": ' * 5000) is None


def test_texts_lose_their_markup_and_are_cut_behind_words() -> None:
    assert tidy("**Bold** and `code` <b>x</b>", 100) == "Bold and code x"
    assert tidy("- A point", 100) == "A point"
    assert tidy("one two three four", 12) == "one two…"
    assert tidy_list(["A.", "a", "", "…", 7, {"x": 1}], 5, 50) == ("A",)
    assert tidy("Say it. }}}}}}", 50) == "Say it."
    assert tidy_headline("12.") == ""
    assert make_distinct(["A", "B", "a "]) == ["A", "B", "a  (2)"]


@pytest.mark.parametrize(
    ("text", "number"),
    [("1,234.5", 1234.5), ("1.234,5", 1234.5), ("12,5", 12.5), ("1,234", 1234), ("-3 %", -3), ("€ 5", 5), ("x", None)],
)
def test_numbers_are_read_as_people_write_them(text: str, number: float | None) -> None:
    assert read_number(text) == number


def test_tables_are_read_from_csv_and_json_of_several_shapes() -> None:
    for name, content in (
        ("a.csv", "\ufeffname;n\nx;1\ny;2\n".lstrip("\ufeff")),
        ("a.tsv", "name\tn\nx\t1\ny\t2\n"),
        ("a.json", '[{"name": "x", "n": 1}, {"name": "y", "n": 2}]'),
        ("b.json", '{"name": ["x", "y"], "n": [1, 2]}'),
        ("c.json", '{"data": [{"name": "x", "n": 1}, {"name": "y", "n": 2}]}'),
    ):
        table = read_table(name, content)
        assert table, name
        assert table.columns == {"name": ("x", "y"), "n": ("1", "2")}, name
        assert (table.numeric, table.labels) == (["n"], ["name"])
    assert read_table("d.json", "{") is None
    assert read_table("e.csv", "only one line") is None


def test_a_chart_adds_up_what_has_one_name_and_shows_the_rest_as_one_slice() -> None:
    table = read_table("a.csv", "who,n\n" + "".join(f"p{i % 9},{i}\n" for i in range(18)))
    assert table
    chart = make_chart(table, ChartChoice("pie", "who", ("n",)))
    assert chart
    assert len(chart.categories) == 6
    assert sum(value or 0 for value in chart.series[0].values) == sum(range(18))


def test_a_table_suggests_a_different_chart_each_time() -> None:
    table = read_table("a.csv", "month,units,revenue\n2025-01,1,100\n2025-02,2,250\n2025-03,4,390\n")
    assert table
    first, second = choose_chart(table, 0), choose_chart(table, 1)
    assert first
    assert second
    assert (first.kind, first.label, first.values) == ("line", "month", ("units",))
    assert second.values == ("revenue",)
    assert choose_chart(read_table("b.csv", "a,b\nx,y\nz,w\n") or table) is None
