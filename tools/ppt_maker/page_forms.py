"""What a model fills in for a page of each layout: a JSON schema, and how its answer becomes the page.

Sizes are those of a page that can be read from the last row. Schemas keep to what every engine's grammars can do:
objects, arrays with bounds, short texts, choices.
"""

import re
from collections.abc import Mapping
from typing import Any

from .data_tables import ChartChoice, DataTable, choose_chart, make_chart, make_table, read_number
from .deck import Chart, Code, Column, Fact, Formula, Picture, Quote, Series, Slide, Table
from .material import Material
from .repair import read_json, tidy, tidy_list

BULLET_CHARS = 120
NOTES_CHARS = 300
LAYOUTS: Mapping[str, str] = {
    "bullets": "3 to 5 points",
    "columns": "2 or 3 things side by side, to compare them",
    "facts": "2 to 4 large numbers, each with a label",
    "table": "rows and columns",
    "chart": "a chart of numbers that are in the material",
    "picture": "a picture of the material",
    "quote": "what somebody really said",
    "code": "a short program",
    "formula": "a formula in LaTeX",
    "section": "a title page before a new part",
}
CHART_KINDS = ["column", "bar", "line", "area", "pie", "doughnut", "scatter"]
MIN_NUMBERS = 3  # in the words of the material, for a chart of them


def usable_layouts(material: Material, text: str, pages: int) -> list[str]:
    """Those that there is material for. Args: text: all words that the deck is made from."""
    missing = set()
    if not material.tables and len(re.findall(r"\d+", text)) < MIN_NUMBERS:
        missing.add("chart")
    if not material.pictures:
        missing.add("picture")
    if pages < 9:
        missing.add("section")
    return [layout for layout in LAYOUTS if layout not in missing]


def page_schema(layout: str, material: Material, *, headline: bool = False) -> dict[str, Any]:
    """Args: headline: it is to be written, too."""
    fields: dict[str, Any] = {"headline": _text(110)} if headline else {}
    fields |= _fields(layout, material)
    if material.citations:
        numbers = list(range(1, len(material.citations) + 1))
        fields["sources"] = {"type": "array", "maxItems": 3, "items": {"type": "integer", "enum": numbers}}
    fields["notes"] = _text(NOTES_CHARS)
    return _object(fields)


def make_page(
    layout: str, headline: str, written: Mapping[str, Any], material: Material, text: str, *, chart: int = 0
) -> Slide | None:
    """The page, or None where the model gave nothing that it could show.

    Args:
        text: all words that the deck is made from: numbers that are not in them are not drawn as a chart.
        chart: how many charts there are before this one.
    """
    fields: dict[str, Any] = {"headline": headline, "notes": tidy(written.get("notes"), NOTES_CHARS)}
    fields["sources"] = _cited(written.get("sources"), material)
    bullets = tidy_list(written.get("bullets"), 6, BULLET_CHARS)
    aside = bullets[:3]
    match layout:
        case "columns":
            fields["columns"] = _columns(written.get("columns"))
        case "facts":
            fields["facts"], fields["text"] = _facts(written.get("facts")), tidy(written.get("text"), 140)
        case "table":
            fields["table"] = _table(written) or _head(material)
        case "chart":
            drawn, name = _chart(written, material, text, chart)
            fields |= {"chart": drawn, "bullets": aside}
            fields["sources"] = (*((name,) if name else ()), *fields["sources"])
        case "picture":
            fields |= {"picture": _picture(written, material, headline), "bullets": aside}
        case "quote":
            said = tidy(written.get("text"), 260)
            fields["quote"] = Quote(text=said, by=tidy(written.get("by"), 80)) if said else None
        case "code":
            fields |= {"code": _code(written), "bullets": aside}
        case "formula":
            latex = tidy_formula(written.get("latex"))
            caption = tidy(written.get("caption"), 140)
            fields |= {"formula": Formula(latex=latex, caption=caption) if latex else None, "bullets": aside}
        case "section" | "cover":
            return Slide(layout=layout, **fields, text=tidy(written.get("text"), 160))
        case _:
            fields |= {"bullets": bullets, "text": tidy(written.get("text"), 160)}
            return Slide(layout="bullets", **fields) if bullets else None
    if fields.get(layout):
        return Slide(layout=layout, **fields)
    return Slide(layout="bullets", **_texts(fields, bullets)) if bullets else None


def tidy_formula(latex: object) -> str:
    return " ".join(str(latex or "").replace("$", " ").split())[:300]


def read_page(text: str) -> dict[str, Any] | None:
    value = read_json(text)
    return value if isinstance(value, dict) and value else None


# --- Schemas ----------------------------------------------------------------------------------------------------------


def _fields(layout: str, material: Material) -> dict[str, Any]:
    points = _list(_text(80), 1, 3)
    match layout:
        case "columns":
            column = _object({"heading": _text(40), "bullets": _list(_text(80), 2, 4)})
            return {"columns": _list(column, 2, 3)}
        case "facts":
            fact = _object({"value": _text(14), "label": _text(70)})
            return {"facts": _list(fact, 2, 4), "text": _text(120)}
        case "table":
            return {"header": _list(_text(30), 2, 5), "rows": _list(_list(_text(60), 2, 5), 2, 7)}
        case "chart" if material.tables:
            names = list(dict.fromkeys(column for table in material.tables for column in table.columns))
            return {
                "file": _choice([table.name for table in material.tables]),
                "kind": _choice(CHART_KINDS),
                "label": _choice(names),
                "values": _list(_choice(names), 1, 3),
                "bullets": points,
            }
        case "chart":
            series = _object({"name": _text(30), "values": _list({"type": "number"}, 2, 10)})
            return {
                "kind": _choice(CHART_KINDS),
                "categories": _list(_text(30), 2, 10),
                "series": _list(series, 1, 3),
                "y_title": _text(40),
                "bullets": points,
            }
        case "picture" if material.pictures:
            return {"file": _choice(list(material.pictures)), "caption": _text(90), "bullets": points}
        case "quote":
            return {"text": _text(220), "by": _text(60)}
        case "code":
            return {"language": _text(12), "text": _text(700), "bullets": points}
        case "formula":
            return {"latex": _text(160), "caption": _text(120), "bullets": points}
        case "section" | "cover":
            return {"text": _text(140)}
        case _:
            return {"bullets": _list(_text(BULLET_CHARS), 3, 5)}


def _text(limit: int) -> dict[str, Any]:
    return {"type": "string", "maxLength": limit}


def _choice(names: list[str]) -> dict[str, Any]:
    return {"type": "string", "enum": names}


def _list(items: dict[str, Any], least: int, most: int) -> dict[str, Any]:
    return {"type": "array", "minItems": least, "maxItems": most, "items": items}


def _object(fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


# --- Parts ------------------------------------------------------------------------------------------------------------


def _texts(fields: dict[str, Any], bullets: tuple[str, ...]) -> dict[str, Any]:
    return {"headline": fields["headline"], "notes": fields["notes"], "sources": fields["sources"], "bullets": bullets}


def _objects(value: object) -> list[Mapping[str, Any]]:
    return [part for part in value if isinstance(part, dict)] if isinstance(value, list) else []


def _cited(numbers: object, material: Material) -> tuple[str, ...]:
    known = range(1, len(material.citations) + 1)
    listed = numbers if isinstance(numbers, list) else []
    return tuple(material.citations[n - 1] for n in dict.fromkeys(n for n in listed if n in known))[:3]


def _columns(value: object) -> tuple[Column, ...]:
    columns = [
        Column(heading=tidy(part.get("heading"), 60), bullets=tidy_list(part.get("bullets"), 6, 100))
        for part in _objects(value)[:3]
    ]
    told = tuple(column for column in columns if column.bullets)
    return told if len(told) > 1 else ()


def _facts(value: object) -> tuple[Fact, ...]:
    facts = (Fact(value=tidy(p.get("value"), 20), label=tidy(p.get("label"), 100)) for p in _objects(value))
    return tuple(fact for fact in facts if fact.value)[:4]


def _table(written: Mapping[str, Any]) -> Table | None:
    header = [tidy(cell, 40) for cell in written.get("header") or [] if isinstance(cell, str | int | float)][:8]
    rows = [
        tuple(tidy(cell, 120) for cell in [*row, *[""] * len(header)][: len(header)])
        for row in written.get("rows") or []
        if isinstance(row, list) and any(tidy(cell, 120) for cell in row)
    ]
    unique = tuple(dict.fromkeys(rows))[:30]
    return Table(header=tuple(header), rows=unique) if len(header) > 1 and unique else None


def _head(material: Material) -> Table | None:
    return make_table(material.tables[0]) if material.tables else None


def _chart(written: Mapping[str, Any], material: Material, text: str, number: int) -> tuple[Chart | None, str]:
    """A chart, and the name of the file that its numbers come from."""
    if material.tables:
        named = [table for table in material.tables if table.name == written.get("file")]
        for table in named or material.tables:
            chosen = _chosen(written, table)
            own = choose_chart(table, number)
            for choice in (chosen, own):
                if choice and (chart := make_chart(table, choice)):
                    return chart, table.name
        return None, ""
    categories = [tidy(name, 40) for name in written.get("categories") or []]
    series = [
        (tidy(part.get("name"), 40), [v for v in part.get("values") or [] if isinstance(v, int | float)])
        for part in _objects(written.get("series"))
    ]
    known = {read_number(found) for found in re.findall(r"\d[\d.,]*\d|\d", text)}
    size = min([len(categories), *(len(values) for _, values in series)], default=0)
    told = [(name, values[:size]) for name, values in series if all(abs(v) in known for v in values[:size])]
    if size < 2 or not told:
        return None, ""
    kind = written.get("kind") if written.get("kind") in CHART_KINDS else "column"
    if kind == "scatter" or (kind in {"pie", "doughnut"} and len(told) > 1):
        kind = "column"
    return (
        Chart(
            kind=kind,
            categories=tuple(categories[:size]),
            series=tuple(Series(name=name, values=tuple(values)) for name, values in told),
            y_title=tidy(written.get("y_title"), 40),
        ),
        "",
    )


def _chosen(written: Mapping[str, Any], table: DataTable) -> ChartChoice | None:
    """What the model chose, where it makes sense: numbers against what is none of them."""
    label, listed = written.get("label"), written.get("values")
    values = tuple(dict.fromkeys(v for v in (listed if isinstance(listed, list) else []) if v in table.values))
    if label not in table.labels or not values or written.get("kind") not in CHART_KINDS:
        return None
    return ChartChoice(written["kind"], str(label), tuple(v for v in values if v != label))


def _picture(written: Mapping[str, Any], material: Material, headline: str) -> Picture | None:
    if not material.pictures:
        return None
    file = written.get("file") if written.get("file") in material.pictures else material.pictures[0]
    caption = tidy(written.get("caption"), 120)
    return Picture(file=str(file), alt=caption or headline, caption=caption)


def _code(written: Mapping[str, Any]) -> Code | None:
    text = str(written.get("text") or "")
    text = re.sub(r"^```\w*\n?|\n?```$", "", text.strip("\n")).rstrip()[:4000]
    language = re.sub(r"[^\w+#.-]", "", str(written.get("language") or ""))[:30]
    return Code(language=language, text=text) if text.strip() else None
