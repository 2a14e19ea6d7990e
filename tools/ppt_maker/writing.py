"""A deck written by a model: an outline first, then page by page, so that small models and small windows suffice.

What the model leaves out is filled in, so that the deck has the asked number of pages whatever happens; what was not
written by it is told.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from backend.core.contracts import ToolFailure
from backend.core.errors import ApiError
from backend.core.prompts import Prompt
from backend.utils.clean_text import clean_text

from .deck import Deck, Layout, Slide
from .material import Material
from .model_calls import ModelCalls
from .page_forms import LAYOUTS, make_page, page_schema, usable_layouts
from .repair import make_distinct, tidy, tidy_headline
from .wishes import LANGUAGES, count_charts

DEFAULT_PAGES = 7
MIN_PAGES_WITH_AGENDA = 8
PAGE_TOKENS = 1_200
MAX_SAID = 200  # characters of what a model said instead, in a failure

Progress = Callable[[str, dict[str, Any]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Planned:
    """A page of the outline."""

    layout: str
    headline: str


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be written.

    Args:
        pages: how many in all, the cover among them.
    """

    instruction: str
    pages: int
    language: str
    material: Material

    @property
    def text(self) -> str:
        """All words that the deck is made from."""
        return "\n".join([self.instruction, *(source.text for source in self.material.sources)])

    @property
    def language_name(self) -> str:
        return LANGUAGES.get(self.language, "the language of the request")


@dataclass(slots=True)
class Written:
    deck: Deck
    notices: list[str] = field(default_factory=list)


class DeckWriter:
    def __init__(self, calls: ModelCalls, outline: Prompt, page: Prompt, progress: Progress) -> None:
        self._calls = calls
        self._outline = outline
        self._page = page
        self._progress = progress

    async def write(self, order: Order) -> Written:
        """
        Raises:
            ToolFailure: the model wrote nothing that is of use.
            ApiError: there is no model that answers.
        """
        await self._progress("Planning the slides", {"phase": "outline"})
        title, subtitle, planned = await self._plan(order)
        await self._progress(
            f"{order.pages} slides: {title}", {"phase": "outline", "headlines": [page.headline for page in planned]}
        )
        cover = Slide(layout="cover", headline=title, text=subtitle)
        has_agenda = order.pages >= MIN_PAGES_WITH_AGENDA
        content, notices = await self.write_pages(order, title, planned)
        slides = [cover, *([_agenda(title, content)] if has_agenda else []), *content]
        return Written(Deck(title=title, subtitle=subtitle, language=order.language, slides=tuple(slides)), notices)

    async def write_pages(self, order: Order, title: str, planned: list[Planned]) -> tuple[list[Slide], list[str]]:
        """The pages, each in a call of its own, some at once."""
        done = 0
        plan = "\n".join(f"{number}. {page.headline}" for number, page in enumerate(planned, 1))

        async def write(number: int, page: Planned) -> Slide | None:
            nonlocal done
            charts = sum(other.layout == "chart" for other in planned[:number])
            question = f"The presentation: {title}\nIts pages:\n{plan}"
            slide = await self.write_page(order, page, question, charts=charts)
            done += 1
            await self._progress(f"Slides written: {done} of {len(planned)}", {"phase": "slides", "done": done})
            return slide

        tasks = [asyncio.create_task(write(number, page)) for number, page in enumerate(planned)]
        try:
            results = await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return self._complete(planned, results)

    async def write_page(
        self, order: Order, page: Planned, about: str, *, charts: int = 0, current: str = ""
    ) -> Slide | None:
        """One page; None where the model gave nothing that it could show.

        Args:
            current: the page as it is, where it is to be changed.
        """

        def ask(room: int) -> str:
            material = order.material.for_page(page.headline, room)
            parts = [f"The request: {clean_text(order.instruction)}", about, material, current]
            parts.append(f"Write the page with the headline: {page.headline}\nIts layout: {_meaning(page.layout)}")
            return "\n\n".join(filter(None, parts))

        written = await self._calls.ask(
            self._page.fill(language=order.language_name),
            ask,
            page_schema(page.layout, order.material, headline=bool(current)),
            name="page",
            max_tokens=PAGE_TOKENS,
        )
        if written is None:
            return None
        headline = tidy_headline(written.get("headline")) or page.headline
        return make_page(page.layout, headline, written, order.material, order.text, chart=charts)

    async def _plan(self, order: Order) -> tuple[str, str, list[Planned]]:
        count = order.pages - 1 - (order.pages >= MIN_PAGES_WITH_AGENDA)
        layouts = usable_layouts(order.material, order.text, order.pages)
        page = {
            "type": "object",
            "properties": {"layout": {"enum": layouts}, "headline": {"type": "string", "maxLength": 110}},
            "required": ["layout", "headline"],
            "additionalProperties": False,
        }
        schema = {
            "type": "object",
            "properties": {
                "title": {"type": "string", "maxLength": 70},
                "subtitle": {"type": "string", "maxLength": 110},
                "pages": {"type": "array", "minItems": count, "maxItems": count, "items": page},
            },
            "required": ["title", "subtitle", "pages"],
            "additionalProperties": False,
        }
        lines = "\n".join(f"- {name}: {LAYOUTS[name]}" for name in layouts)
        value = await self._calls.ask(
            self._outline.fill(layouts=lines, language=order.language_name),
            lambda room: "\n\n".join(
                filter(
                    None,
                    [
                        f"The request: {clean_text(order.instruction)}",
                        order.material.for_outline(room),
                        f"Plan {count} content pages." if count else "Give a title and a subtitle.",
                    ],
                )
            ),
            schema,
            name="outline",
            max_tokens=300 + 90 * count,
        )
        if value is None:
            raise ToolFailure(_refused(self._calls.said))
        title = tidy_headline(value.get("title"), 90) or tidy_headline(order.instruction, 70)
        planned = _read_plan(value.get("pages"), layouts, title, count)
        return title, tidy(value.get("subtitle"), 140), _with_charts(planned, order, layouts)

    def _complete(
        self, planned: list[Planned], results: list[Slide | BaseException | None]
    ) -> tuple[list[Slide], list[str]]:
        """Every page that was planned; what the model did not write is made of its headline."""
        slides, missing = [], []
        trouble: BaseException | None = None
        for page, result in zip(planned, results, strict=True):
            if isinstance(result, Slide):
                slides.append(result)
                continue
            if isinstance(result, BaseException) and not isinstance(result, ApiError | TimeoutError):
                raise result
            trouble = trouble or result
            missing.append(page.headline)
            slides.append(Slide(layout="section", headline=page.headline))
        if planned and len(missing) == len(planned):
            if isinstance(trouble, ApiError):
                raise trouble
            if trouble:
                raise ToolFailure("The model was too slow to write any slide. Ask for fewer slides.")
            raise ToolFailure(_refused(self._calls.said))
        why = "was too slow for" if isinstance(trouble, TimeoutError) else "wrote nothing that can be shown for"
        notices = [f"The model {why} {len(missing)} slides, which have their headlines only: {'; '.join(missing)}."]
        return slides, notices if missing else []


def _read_plan(value: object, layouts: list[str], title: str, count: int) -> list[Planned]:
    pages: list[Planned] = []
    for part in value if isinstance(value, list) else []:
        if isinstance(part, Mapping) and (headline := tidy_headline(part.get("headline"))):
            layout = part.get("layout") if part.get("layout") in layouts else "bullets"
            pages.append(Planned(str(layout), headline))
    pages = pages[:count] + [Planned("bullets", title)] * (count - len(pages))
    headlines = make_distinct([title, *(page.headline for page in pages)])[1:]
    return [Planned(page.layout, headline) for page, headline in zip(pages, headlines, strict=True)]


def _with_charts(planned: list[Planned], order: Order, layouts: list[str]) -> list[Planned]:
    """With as many charts as were asked for, or one for a file with data; and every picture that was given is shown."""
    planned = list(planned)
    wanted: dict[Layout, int] = {}
    if "chart" in layouts:
        wanted["chart"] = count_charts(order.instruction) or int(bool(order.material.tables))
    if order.material.pictures:
        wanted["picture"] = 1
    for layout, count in wanted.items():
        missing = count - sum(page.layout == layout for page in planned)
        for at, page in enumerate(planned):
            if missing > 0 and page.layout not in wanted:
                planned[at] = Planned(layout, page.headline)
                missing -= 1
    return planned


def _agenda(title: str, slides: list[Slide]) -> Slide:
    """The parts of the deck; where it has none, its pages."""
    parts = [slide.headline for slide in slides if slide.layout == "section"]
    return Slide(layout="agenda", headline=title, bullets=tuple((parts or [s.headline for s in slides])[:7]))


def _meaning(layout: str) -> str:
    return f"{layout}, {LAYOUTS[layout]}" if layout in LAYOUTS else layout


def _refused(said: str) -> str:
    words = f" It said: {tidy(said, MAX_SAID)}" if said else ""
    return f"The model did not write a deck.{words} Ask in other words, or use another model."
