"""A deck changed as somebody asks for it: only the pages that are meant, the others stay as they are to the letter.

Which pages are meant is read from their numbers, where there are any; otherwise the model says it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from backend.core.contracts import ToolFailure
from backend.core.prompts import Prompt
from backend.core.untrusted import mark_as_data
from backend.utils.clean_text import clean_text

from .deck import MAX_SLIDES, Deck, Slide
from .model_calls import ModelCalls
from .page_forms import LAYOUTS, usable_layouts
from .repair import tidy, tidy_headline
from .wishes import named_layout, named_slides
from .writing import DeckWriter, Order, Planned, Progress

MAX_CHANGES = 8
Action = Literal["change", "insert_after", "delete"]
ACTIONS: tuple[Action, ...] = ("change", "insert_after", "delete")


@dataclass(frozen=True, slots=True)
class Change:
    page: int  # from 1
    action: Action
    layout: str
    what: str


class DeckReviser:
    def __init__(self, calls: ModelCalls, writer: DeckWriter, changes: Prompt, progress: Progress) -> None:
        self._calls = calls
        self._writer = writer
        self._prompt = changes
        self._progress = progress

    async def revise(self, deck: Deck, order: Order) -> tuple[Deck, list[str]]:
        """The changed deck, and what was done, in words.

        Raises:
            ToolFailure: nothing was changed.
            ApiError: there is no model that answers.
        """
        await self._progress("Reading the deck", {"phase": "outline"})
        named = named_slides(order.instruction)
        if beyond := [number for number in named if not 1 <= number <= len(deck.slides)]:
            raise ToolFailure(f"The deck has {len(deck.slides)} slides, and none with the number {beyond[0]}.")
        changes = await self._plan(deck, order, named)
        slides: list[Slide | None] = list(deck.slides)
        added: dict[int, list[Slide]] = {}
        told = []
        for done, change in enumerate(changes, 1):
            old = deck.slides[change.page - 1]
            if change.action == "delete":
                slides[change.page - 1] = None
                told.append(f"slide {change.page} deleted")
            elif new := await self._write(deck, old, change, order):
                if change.action == "change":
                    slides[change.page - 1] = new
                    told.append(f"slide {change.page} changed ({new.layout})")
                elif len(deck.slides) + sum(map(len, added.values())) < MAX_SLIDES:
                    added.setdefault(change.page, []).append(new)
                    told.append(f"a slide added after slide {change.page}")
            await self._progress(f"Slides changed: {done} of {len(changes)}", {"phase": "slides", "done": done})
        merged = [page for n, slide in enumerate(slides, 1) for page in (slide, *added.get(n, ())) if page is not None]
        if not told or not merged:
            raise ToolFailure("Nothing was changed. Say which slide, and what is to be on it.")
        cover = merged[0] if merged[0].layout == "cover" else None
        title = cover.headline if cover and cover is not deck.slides[0] else deck.title
        return deck.model_copy(update={"slides": tuple(merged), "title": title}), told

    async def _write(self, deck: Deck, old: Slide, change: Change, order: Order) -> Slide | None:
        is_new = change.action == "insert_after"
        plan = "\n".join(f"{number}. {slide.headline}" for number, slide in enumerate(deck.slides, 1))
        about = f"The presentation: {deck.title}\nIts pages:\n{plan}"
        shown = old.model_dump(mode="json", exclude_defaults=True, exclude={"sources"})
        current = "" if is_new else mark_as_data(str(shown), "the page as it is")
        headline = tidy_headline(change.what) if is_new and change.what else old.headline
        charts = sum(slide.layout == "chart" for slide in deck.slides[: change.page - 1])
        planned = Planned(change.layout, headline)
        wanted = replace(order, instruction="\n".join(filter(None, (order.instruction, change.what))))
        new = await self._writer.write_page(wanted, planned, about, charts=charts, current=current)
        if new is None:
            return None
        return new.model_copy(update={"notes": new.notes or old.notes, "sources": new.sources or old.sources})

    async def _plan(self, deck: Deck, order: Order, named: Sequence[int]) -> list[Change]:
        layouts = [
            *usable_layouts(order.material, f"{order.text}\n{deck.model_dump_json()}", len(deck.slides)),
            "cover",
        ]
        pages = sorted(named) or list(range(1, len(deck.slides) + 1))
        change = {
            "type": "object",
            "properties": {
                "page": {"type": "integer", "enum": pages},
                "action": {"type": "string", "enum": list(ACTIONS)},
                "layout": {"type": "string", "enum": layouts},
                "what": {"type": "string", "maxLength": 160},
            },
            "required": ["page", "action", "layout", "what"],
            "additionalProperties": False,
        }
        most = max(1, len(named)) if named else MAX_CHANGES
        schema = {
            "type": "object",
            "properties": {"changes": {"type": "array", "minItems": 1, "maxItems": most, "items": change}},
            "required": ["changes"],
            "additionalProperties": False,
        }
        listed = "\n".join(f"{n}. ({slide.layout}) {slide.headline}" for n, slide in enumerate(deck.slides, 1))
        value = await self._calls.ask(
            self._prompt.fill(layouts="\n".join(f"- {name}: {LAYOUTS[name]}" for name in layouts if name in LAYOUTS)),
            lambda room: f"{mark_as_data(listed, 'the pages')}\n\nThe request: {clean_text(order.instruction)}",
            schema,
            name="changes",
            max_tokens=200 * most,
        )
        return self._read(value or {}, deck, order, named, layouts)

    def _read(
        self, value: Mapping[str, Any], deck: Deck, order: Order, named: Sequence[int], layouts: Sequence[str]
    ) -> list[Change]:
        """One change a page; where pages are named, these and no others."""
        found: dict[int, Change] = {}
        listed = value.get("changes")
        for part in listed if isinstance(listed, list) else []:
            page = part.get("page") if isinstance(part, dict) else None
            if not isinstance(page, int) or page not in (named or range(1, len(deck.slides) + 1)):
                continue
            layout = part.get("layout") if part.get("layout") in layouts else deck.slides[page - 1].layout
            action: Action = part["action"] if part.get("action") in ACTIONS else "change"
            found.setdefault(page, Change(page, action, str(layout), tidy(part.get("what"), 200)))
        layout = named_layout(order.instruction)
        for page in named:
            old = deck.slides[page - 1].layout
            change = found.get(page, Change(page, "change", old, ""))
            if change.action != "delete" and layout and layout in layouts:
                change = replace(change, layout=layout)
            found[page] = change
        return [found[page] for page in sorted(found)]
