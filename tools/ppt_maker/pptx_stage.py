"""What pages are put on: our own presentation, or a team's template with the layouts that it has."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal
from zipfile import BadZipFile

from lxml import etree
from lxml.etree import XMLSyntaxError
from pptx import Presentation
from pptx.enum.shapes import PP_PLACEHOLDER
from pptx.exc import PackageNotFoundError
from pptx.oxml.ns import qn
from pptx.presentation import Presentation as Pptx

from .pptx_look import Box, Look, look_of
from .pptx_theme import new_presentation
from .pptx_xml import EMU
from .themes import Sizes, Theme

Kind = Literal["cover", "section", "content", "headline"]
TITLES = {PP_PLACEHOLDER.TITLE, PP_PLACEHOLDER.CENTER_TITLE}
BODIES = {PP_PLACEHOLDER.BODY, PP_PLACEHOLDER.OBJECT}
FEET = {PP_PLACEHOLDER.FOOTER, PP_PLACEHOLDER.SLIDE_NUMBER}
SOURCES_HEIGHT = 26.0


class TemplateUnusable(Exception):
    """The file is no presentation, or has no layout with a title and a place for content."""


@dataclass(frozen=True, slots=True)
class Stage:
    pptx: Pptx
    look: Look
    layouts: dict[Kind, Any]
    is_own: bool

    def add_slide(self, kind: Kind, footer: str) -> Any:
        """A page with the placeholders of its layout, the footer and the number among them."""
        layout = self.layouts[kind]
        slide = self.pptx.slides.add_slide(layout)
        for placeholder in layout.placeholders:
            kind_of = placeholder.placeholder_format.type
            if kind_of in FEET:
                element = copy.deepcopy(placeholder._element)
                properties = element.spPr
                for child in list(properties):  # its place and look are the layout's
                    properties.remove(child)
                slide.shapes._spTree.append(element)
                if kind_of == PP_PLACEHOLDER.FOOTER:
                    slide.placeholders[placeholder.placeholder_format.idx].text_frame.text = footer
        return slide


def own_stage(theme: Theme, language: str) -> Stage:
    look = look_of(theme)
    pptx = new_presentation(theme, look, language)
    cover, section, content, headline = pptx.slide_layouts
    layouts: dict[Kind, Any] = {"cover": cover, "section": section, "content": content, "headline": headline}
    return Stage(pptx, look, layouts, is_own=True)


def template_stage(content: BinaryIO) -> Stage:
    """A team's template without its pages.

    Raises:
        TemplateUnusable
    """
    try:
        pptx = Presentation(content)
    except (PackageNotFoundError, BadZipFile, XMLSyntaxError, KeyError, ValueError, OSError) as error:
        raise TemplateUnusable("it is not a .pptx file that can be read") from error
    _drop_slides(pptx)
    layouts = [layout for master in pptx.slide_masters for layout in master.slide_layouts]
    content = _best(layouts, "obj", lambda kinds: kinds & TITLES and len([k for k in kinds if k in BODIES]) >= 1)
    if content is None:
        raise TemplateUnusable("it has no layout with a title and a place for content")
    cover = _best(layouts, "title", lambda kinds: PP_PLACEHOLDER.CENTER_TITLE in kinds) or content
    section = _best(layouts, "secHead", lambda kinds: False) or cover
    headline = _best(layouts, "titleOnly", lambda kinds: False) or content
    named: dict[Kind, Any] = {"cover": cover, "section": section, "content": content, "headline": headline}
    return Stage(pptx, _look_of_template(content, cover, section), named, is_own=False)


def _best(layouts: Sequence[Any], kind: str, suits: Any) -> Any:
    """The layout that says of itself that it is of that kind; otherwise the first that suits."""
    titled = [layout for layout in layouts if _kinds(layout) & TITLES]
    named = (layout for layout in titled if layout._element.get("type") == kind and (kind != "obj" or body_of(layout)))
    return next(named, None) or next((layout for layout in titled if suits(_kinds(layout))), None)


def _kinds(layout: Any) -> set[Any]:
    return {placeholder.placeholder_format.type for placeholder in layout.placeholders}


def body_of(page: Any) -> Any:
    """The largest placeholder for content of a page or layout, or None."""
    bodies = [p for p in page.placeholders if p.placeholder_format.type in BODIES and p.width]
    return max(bodies, key=lambda p: p.width * p.height, default=None)


def text_of(page: Any) -> Any:
    """The placeholder for the text below a cover's title, or None."""
    subtitles = (p for p in page.placeholders if p.placeholder_format.type == PP_PLACEHOLDER.SUBTITLE)
    return next(subtitles, None) or body_of(page)


def box_of(shape: Any) -> Box:
    return Box(shape.left / EMU, shape.top / EMU, shape.width / EMU, shape.height / EMU)


def _title_of(layout: Any) -> Any:
    return next(p for p in layout.placeholders if p.placeholder_format.type in TITLES)


def _look_of_template(content: Any, cover: Any, section: Any) -> Look:
    master = content.slide_master
    fonts = _fonts(master)
    body = box_of(body_of(content))
    area = Box(body.x, body.y, body.width, body.height - SOURCES_HEIGHT)
    headline, size = _title_of(content), _size(master, "titleStyle", 32.0)
    body_size = min(24.0, _size(master, "bodyStyle", 20.0))
    cover_text, section_text = text_of(cover), text_of(section)
    cover_title, section_title = box_of(_title_of(cover)), box_of(_title_of(section))
    return Look(
        heading=fonts[0],
        body=fonts[1],
        mono="Courier New",
        sizes=Sizes(
            cover=_own_size(_title_of(cover), size),
            section=_own_size(_title_of(section), size),
            headline=_own_size(headline, size),
            body=body_size,
            lead=body_size,
        ),
        heading_bold=False,
        headline=box_of(headline),
        area=area,
        sources=Box(body.x, body.y + area.height + 4, body.width, SOURCES_HEIGHT - 4),
        cover_title=cover_title,
        cover_text=box_of(cover_text) if cover_text else cover_title,
        section_title=section_title,
        section_text=box_of(section_text) if section_text else section_title,
    )


def _fonts(master: Any) -> tuple[str, str]:
    """The names of the fonts for headlines and text."""
    part = next((r.target_part for r in master.part.rels.values() if r.reltype.endswith("/theme")), None)
    if part is None:
        return "Calibri", "Calibri"
    root = etree.fromstring(part.blob, etree.XMLParser(resolve_entities=False, no_network=True))
    found = [root.find(f".//{{*}}{tag}/{{*}}latin") for tag in ("majorFont", "minorFont")]
    heading, body = (latin.get("typeface", "") if latin is not None else "" for latin in found)
    return heading or "Calibri", body or "Calibri"


def _size(master: Any, style: str, default: float) -> float:
    found = master._element.find(f".//{qn('p:' + style)}/{qn('a:lvl1pPr')}/{qn('a:defRPr')}")
    return float(found.get("sz", default * 100)) / 100 if found is not None else default


def _own_size(placeholder: Any, default: float) -> float:
    found = placeholder._element.find(f".//{qn('a:lvl1pPr')}/{qn('a:defRPr')}")
    return float(found.get("sz", default * 100)) / 100 if found is not None else default


def _drop_slides(pptx: Pptx) -> None:
    slides = pptx.slides._sldIdLst
    for slide in list(slides):
        pptx.part.drop_rel(slide.rId)
        slides.remove(slide)
