"""A presentation as data: what a model fills in, what both renderers draw, and what a revision changes.

A deck is its pages in order, the cover among them: `slides[2]` is page 3. The layout of a page tells which of its
fields are drawn:

    cover     headline, text (the subtitle)      chart    chart, bullets (beside it)
    agenda    headline, bullets                  picture  picture, bullets (beside it)
    section   headline, text                     quote    quote
    bullets   headline, text (a lead), bullets   code     code, bullets (beside it)
    columns   columns                            formula  formula, bullets (beside it)
    facts     facts, text                        table    table, text (below it)

Every page has a headline; any page may have notes, which are spoken and not shown, and sources, which stand small at
its foot. Texts are plain: no Markdown, no HTML, and no line breaks but in notes and code.
"""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from backend.utils.clean_text import clean_text

MAX_SLIDES = 60
MAX_BULLETS = 20
MAX_ROWS = 100
MAX_COLUMNS = 12
MAX_CATEGORIES = 60
MAX_SERIES = 8

Layout = Literal[
    "cover",
    "agenda",
    "section",
    "bullets",
    "columns",
    "facts",
    "table",
    "chart",
    "picture",
    "quote",
    "code",
    "formula",
]
ChartKind = Literal["column", "bar", "line", "area", "pie", "doughnut", "scatter"]

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff]")  # XML cannot carry them


def _clean_lines(text: str) -> str:
    return _CONTROL.sub("", clean_text(text).replace("\r\n", "\n").replace("\r", "\n")).strip("\n")


def _clean_line(text: str) -> str:
    return " ".join(_clean_lines(text).split())


Line = Annotated[str, Field(max_length=2_000), AfterValidator(_clean_line)]
Lines = Annotated[str, Field(max_length=20_000), AfterValidator(_clean_lines)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Series(_Part):
    name: Line = ""
    values: tuple[Number | None, ...] = Field(max_length=MAX_CATEGORIES)  # None: a gap


class Chart(_Part):
    """Each series has a value for each category. Pies and doughnuts have one series; the categories of a scatter chart
    are numbers as text.
    """

    kind: ChartKind = "column"
    categories: tuple[Line, ...] = Field(min_length=1, max_length=MAX_CATEGORIES)
    series: tuple[Series, ...] = Field(min_length=1, max_length=MAX_SERIES)
    x_title: Line = ""
    y_title: Line = ""  # with the unit

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        for series in self.series:
            if len(series.values) != len(self.categories):
                raise ValueError(
                    f"the series {series.name!r} has {len(series.values)} values for {len(self.categories)} categories"
                )
        return self


class Table(_Part):
    header: tuple[Line, ...] = Field(min_length=1, max_length=MAX_COLUMNS)
    rows: tuple[tuple[Line, ...], ...] = Field(max_length=MAX_ROWS)

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        if any(len(row) != len(self.header) for row in self.rows):
            raise ValueError(f"each row must have {len(self.header)} cells, as the header has")
        return self


class Picture(_Part):
    file: Annotated[str, Field(min_length=1, max_length=1024)]  # the name of a file of the session
    alt: Line = ""  # what it shows, for those who cannot see it
    caption: Line = ""


class Quote(_Part):
    text: Line
    by: Line = ""


class Code(_Part):
    language: Annotated[str, Field(max_length=30, pattern=r"^[\w+#.-]*$")] = ""
    text: Lines


class Formula(_Part):
    latex: Annotated[str, Field(min_length=1, max_length=1_000), AfterValidator(_clean_line)]  # without dollar signs
    caption: Line = ""


class Column(_Part):
    heading: Line = ""
    bullets: tuple[Line, ...] = Field((), max_length=MAX_BULLETS)


class Fact(_Part):
    value: Line  # short, shown large: "94 %", "3 of 5"
    label: Line = ""


class Slide(_Part):
    """One page. Fields that its layout does not draw are kept and not shown."""

    layout: Layout = "bullets"
    headline: Line = ""
    text: Line = ""
    bullets: tuple[Line, ...] = Field((), max_length=MAX_BULLETS)
    columns: tuple[Column, ...] = Field((), max_length=3)
    facts: tuple[Fact, ...] = Field((), max_length=4)
    table: Table | None = None
    chart: Chart | None = None
    picture: Picture | None = None
    quote: Quote | None = None
    code: Code | None = None
    formula: Formula | None = None
    notes: Lines = ""
    sources: tuple[Line, ...] = Field((), max_length=10)

    @model_validator(mode="after")
    def _check_there_is_something(self) -> Self:
        part = {"columns", "facts", "table", "chart", "picture", "quote", "code", "formula"} & {self.layout}
        if any(not getattr(self, name) for name in part):
            raise ValueError(f"the layout {self.layout} needs the field {self.layout}")
        return self


class Deck(_Part):
    title: Line
    subtitle: Line = ""
    author: Line = ""
    language: Annotated[str, Field(pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$")] = "en"  # BCP 47
    theme: str = ""  # the name of one in `themes.py`; empty: the first
    slides: tuple[Slide, ...] = Field(min_length=1, max_length=MAX_SLIDES)

    def as_data(self) -> dict[str, Any]:
        """Without what says nothing, but with the layout of each page."""
        slides = [
            {"layout": slide.layout, **slide.model_dump(mode="json", exclude_defaults=True)} for slide in self.slides
        ]
        return {**self.model_dump(mode="json", exclude_defaults=True), "slides": slides}

    @property
    def agenda(self) -> tuple[str, ...]:
        return next((slide.bullets for slide in self.slides if slide.layout == "agenda"), ())

    @property
    def sections(self) -> tuple[str, ...]:
        return tuple(slide.headline for slide in self.slides if slide.layout == "section")

    @property
    def is_right_to_left(self) -> bool:
        return self.language.split("-")[0].lower() in {"ar", "arc", "dv", "fa", "he", "ku", "ps", "ur", "yi"}
