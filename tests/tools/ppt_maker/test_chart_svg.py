"""Charts as SVG: well-formed, in the colours of the theme, true to their data, and within their box."""

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from tools.ppt_maker.chart_scale import Scale, show
from tools.ppt_maker.chart_svg import draw_chart
from tools.ppt_maker.deck import Chart, Series
from tools.ppt_maker.pptx_look import Box
from tools.ppt_maker.themes import MIDNIGHT

BOX = Box(0, 0, 500, 300)
SVG = "{http://www.w3.org/2000/svg}"


def draw(**values: object) -> ElementTree.Element:
    return ElementTree.fromstring(draw_chart(Chart.model_validate(values), BOX, MIDNIGHT))


def texts(root: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def bars(root: ElementTree.Element, colour: str) -> list[ElementTree.Element]:
    return [element for element in root.iter(f"{SVG}rect") if element.get("fill") == f"#{colour}"]


@pytest.mark.parametrize("kind", ["column", "bar", "line", "area", "pie", "doughnut", "scatter"])
@pytest.mark.parametrize(
    "values",
    [(1, 2.5, 3), (0, 0, 0), (None, None, None), (-5, None, 5), (1e300, -1e300, 0), (1e-9, 2e-9, 3e-9), (7, 7, 7)],
)
def test_every_kind_is_drawn_within_its_box_whatever_the_values(kind: str, values: tuple[float | None, ...]) -> None:
    root = draw(kind=kind, categories=("1", "2", "3"), series=[{"name": "<a>", "values": values}])
    numbers = [(n, float(v)) for e in root.iter() for n, v in e.attrib.items() if n in {"x", "y", "cx", "cy", "x1"}]
    assert numbers or kind in {"area", "line"}
    assert all(-1 <= value <= (500 if "x" in name else 301) for name, value in numbers), numbers


def test_columns_are_as_high_as_their_values() -> None:
    root = draw(categories=("a", "b"), series=[{"name": "n", "values": (10, 20)}])
    first, second = (float(bar.get("height", 0)) for bar in bars(root, MIDNIGHT.palette.series[0]))
    assert second == pytest.approx(2 * first, abs=0.2)
    assert {"10", "20", "a", "b"} <= set(texts(root))


def test_several_series_have_their_colours_and_a_legend() -> None:
    series = [{"name": "North & <South>", "values": (1, 2)}, {"name": "West", "values": (3, None)}]
    root = draw(kind="bar", categories=("a", "b"), series=series)
    first, second = MIDNIGHT.palette.series[:2]
    assert (len(bars(root, first)), len(bars(root, second))) == (3, 2)  # with the legend
    assert {"North & <South>", "West"} <= set(texts(root))


def test_slices_are_shares_of_the_whole() -> None:
    root = draw(kind="pie", categories=("a", "b"), series=[{"values": (1, 3)}])
    assert {"25%", "75%"} <= set(texts(root))
    assert len(list(root.iter(f"{SVG}path"))) == 2


def test_names_of_many_categories_do_not_run_into_one_another() -> None:
    names = tuple(f"A rather long category {number}" for number in range(40))
    root = draw(categories=names, series=[{"values": tuple(range(40))}])
    turned = [element for element in root.iter(f"{SVG}text") if element.get("transform")]
    places = [float(element.get("x", 0)) for element in turned]
    assert all(second - first > 12 for first, second in pairwise(places))
    assert all(len(element.text or "") < 25 for element in turned)


def test_a_line_is_broken_where_a_value_is_missing() -> None:
    root = draw(kind="line", categories=tuple("abcde"), series=[{"values": (1, 2, None, 4, 5)}])
    assert [len(line.get("points", "").split()) for line in root.iter(f"{SVG}polyline")] == [2, 2]


@pytest.mark.parametrize(
    ("values", "ticks"), [((0, 100), (0, 100)), ((3, 97), (0, 100)), ((-4, 11), (-5, 15)), ((0.1, 0.5), (0, 0.5))]
)
def test_axes_have_round_numbers(values: tuple[float, ...], ticks: tuple[float, float]) -> None:
    scale = Scale.over(values, from_zero=True)
    assert (scale.ticks[0], scale.ticks[-1]) == pytest.approx(ticks)
    assert len(scale.ticks) <= 8
    assert all(re.fullmatch(r"-?\d+(\.\d)?", show(tick)) for tick in scale.ticks)


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (1234567, "1,234,567"), (0.125, "0.125"), (12.345, "12.35"), (1e20, "1e+20")]
)
def test_numbers_are_written_for_people(value: float, text: str) -> None:
    assert show(value) == text


def test_a_series_without_a_name_is_drawn() -> None:
    chart = Chart(categories=("a",), series=(Series(values=(1,)), Series(values=(2,))))
    assert draw_chart(chart, BOX, MIDNIGHT).startswith("<svg")
