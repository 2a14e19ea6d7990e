"""Our own slide master and layouts, with a theme's colours and fonts in the theme part.

python-pptx brings a presentation with eleven layouts, and cannot add any. So the first ones are made ours, their
content replaced, and the others removed.
"""

from dataclasses import dataclass
from xml.sax.saxutils import escape

from lxml import etree
from pptx import Presentation
from pptx.oxml import parse_xml
from pptx.presentation import Presentation as Pptx
from pptx.util import Pt

from .pptx_look import FOOTER, HEADLINE, MARGIN, NUMBER, SECTION_NUMBER, Box, Look
from .pptx_xml import NAMESPACES, decoration, fill, level, placeholder
from .themes import PAGE_HEIGHT, PAGE_WIDTH, Theme

EAST_ASIAN = {"ko": "Malgun Gothic", "ja": "Yu Gothic", "zh": "Microsoft YaHei"}
SCRIPTS = {"Hang": "Malgun Gothic", "Jpan": "Yu Gothic", "Hans": "Microsoft YaHei", "Hant": "Microsoft JhengHei"}


@dataclass(frozen=True, slots=True)
class _LayoutPart:
    name: str
    kind: str  # as PresentationML names it
    shapes: list[str]
    background: str | None = None


def new_presentation(theme: Theme, look: Look, language: str) -> Pptx:
    """An empty presentation of 16:9 that looks like the theme. Its layouts: cover, section, content, blank."""
    pptx = Presentation()
    pptx.slide_width, pptx.slide_height = Pt(PAGE_WIDTH), Pt(PAGE_HEIGHT)
    master = pptx.slide_master
    theme_part = next(r.target_part for r in master.part.rels.values() if r.reltype.endswith("/theme"))
    theme_part._blob = _theme_xml(theme, theme_part.blob, language)
    _replace_shapes(master._element, _master_shapes(theme, look), None)
    _set_text_styles(master._element, theme, look)
    _set_colour_map(master._element, theme)
    parts = [_cover(theme, look), _section(theme, look), _content(theme, look), _blank(theme, look)]
    for layout, part in zip(list(pptx.slide_layouts), parts, strict=False):
        element = layout._element
        element.set("type", part.kind)
        element.attrib.pop("preserve", None)
        if part.background:
            element.set("showMasterSp", "0")
        element.cSld.set("name", part.name)
        _replace_shapes(element, part.shapes, part.background)
    for layout in list(pptx.slide_layouts)[len(parts) :]:
        pptx.slide_layouts.remove(layout)
    return pptx


# --- Layouts ----------------------------------------------------------------------------------------------------------


def _cover(theme: Theme, look: Look) -> _LayoutPart:
    palette, align = theme.palette, "ctr" if theme.cover == "rule" else "l"
    title = level(look.sizes.cover, palette.on_cover, bold=theme.heading_bold, font="+mj-lt", align=align)
    text = level(20, palette.on_cover_muted, align=align)
    foot = level(look.sizes.small, palette.on_cover_muted, align=align)
    below = Box(look.cover_text.x, 462, look.cover_text.width, 24)
    return _LayoutPart(
        "Cover",
        "title",
        [
            *_cover_decorations(theme),
            placeholder(2, "Title", "ctrTitle", look.cover_title, title, anchor="b", prompt="Title"),
            placeholder(3, "Subtitle", "subTitle", look.cover_text, text, prompt="Subtitle", index=1),
            placeholder(4, "Author", "body", below, foot, prompt="Author", index=13),
        ],
        palette.background if theme.cover == "band" else palette.cover,
    )


def _section(theme: Theme, look: Look) -> _LayoutPart:
    palette = theme.palette
    title = level(look.sizes.section, palette.on_cover, bold=theme.heading_bold, font="+mj-lt")
    text = level(20, palette.on_cover_muted)
    number = level(96, palette.on_cover_muted, bold=True, font="+mj-lt")
    return _LayoutPart(
        "Section",
        "secHead",
        [
            decoration(20, Box(0, 0, 14, PAGE_HEIGHT), palette.accent),
            placeholder(2, "Title", "title", look.section_title, title, anchor="b", prompt="Section"),
            placeholder(3, "Text", "body", look.section_text, text, prompt="What it is about", index=1),
            placeholder(4, "Number", "body", SECTION_NUMBER, number, prompt="1", index=13),
        ],
        palette.surface if theme.cover == "rule" else palette.cover,
    )


def _content(theme: Theme, look: Look) -> _LayoutPart:
    shapes = [
        placeholder(2, "Title", "title", HEADLINE, "", anchor="t", prompt="The point of this page"),
        placeholder(3, "Content", "", look.area, "", prompt="Text, chart, table or picture", index=1),
        *_feet(look),
    ]
    return _LayoutPart("Content", "obj", shapes)


def _blank(theme: Theme, look: Look) -> _LayoutPart:
    shapes = [placeholder(2, "Title", "title", HEADLINE, "", anchor="t", prompt="The point of this page")]
    return _LayoutPart("Headline only", "titleOnly", [*shapes, *_feet(look)])


def _feet(look: Look) -> list[str]:
    size = look.sizes.foot
    return [
        placeholder(5, "Sources", "body", look.sources, level(size, "tx2"), anchor="b", prompt="Sources", index=14),
        placeholder(6, "Footer", "ftr", FOOTER, level(size, "tx2"), anchor="ctr", index=11),
        placeholder(7, "Slide number", "sldNum", NUMBER, level(size, "tx2", align="r"), anchor="ctr", index=12),
    ]


def _master_shapes(theme: Theme, look: Look) -> list[str]:
    size, line = look.sizes.foot, theme.palette.line
    match theme.mark:
        case "bar":
            marks = [decoration(20, Box(MARGIN, 22, 44, 5), look.accent)]
        case "rule":
            marks = [decoration(20, Box(MARGIN, 119, PAGE_WIDTH - 2 * MARGIN, 1), look.accent)]
        case "edge":
            marks = [decoration(20, Box(0, 0, 8, PAGE_HEIGHT), look.accent)]
    return [
        *marks,
        decoration(21, Box(MARGIN, 504, PAGE_WIDTH - 2 * MARGIN, 0.75), line),
        placeholder(2, "Title", "title", HEADLINE, "", anchor="t", prompt="The point of this page"),
        placeholder(3, "Text", "body", look.area, "", prompt="Text", index=1),
        placeholder(5, "Footer", "ftr", FOOTER, level(size, "tx2"), anchor="ctr", index=3),
        placeholder(6, "Slide number", "sldNum", NUMBER, level(size, "tx2", align="r"), anchor="ctr", index=4),
    ]


def _cover_decorations(theme: Theme) -> list[str]:
    palette = theme.palette
    match theme.cover:
        case "band":
            first, second, third, fourth = palette.series[:4]
            tiles = (  # two columns of four squares
                (0, 0, palette.surface, "rect"),
                (0, 0, first, "ellipse"),
                (1, 0, palette.accent, "rect"),
                (0, 1, fourth, "rtTriangle"),
                (1, 1, third, "flowChartDelay"),
                (0, 2, third, "rect"),
                (1, 2, palette.surface, "rect"),
                (1, 2, second, "rtTriangle"),
                (0, 3, first, "flowChartDelay"),
                (1, 3, fourth, "rect"),
                (1, 3, palette.cover, "ellipse"),
            )
            side = PAGE_HEIGHT / 4
            left = PAGE_WIDTH - 2 * side
            return [
                decoration(20, Box(0, 0, PAGE_WIDTH, PAGE_HEIGHT), palette.cover),
                decoration(21, Box(MARGIN, 320, 60, 6), palette.accent),
                *(
                    decoration(22 + number, Box(left + column * side, row * side, side, side), colour, shape=shape)
                    for number, (column, row, colour, shape) in enumerate(tiles)
                ),
            ]
        case "full":
            first, second = (
                palette.series[0],
                palette.accent if palette.accent != palette.series[0] else palette.series[1],
            )
            return [
                decoration(20, Box(640, -120, 460, 460), first, shape="ellipse", alpha=30),
                decoration(21, Box(720, 250, 340, 340), second, shape="ellipse", alpha=75),
                decoration(22, Box(640, 380, 120, 120), palette.on_cover, shape="ellipse", alpha=14),
                decoration(23, Box(MARGIN, 320, 60, 6), second),
            ]
        case "rule":
            return [
                decoration(20, Box(0, 0, PAGE_WIDTH, 12), palette.accent),
                decoration(21, Box(0, PAGE_HEIGHT - 12, PAGE_WIDTH, 12), palette.accent),
                decoration(22, Box(PAGE_WIDTH / 2 - 60, 312, 120, 2.5), palette.series[1]),
            ]


# --- The parts around them --------------------------------------------------------------------------------------------


def _replace_shapes(element: etree._Element, shapes: list[str], background: str | None) -> None:
    tree = element.cSld.spTree
    for shape in list(tree)[2:]:  # the first two describe the group
        tree.remove(shape)
    for shape in shapes:
        tree.append(parse_xml(shape))
    if background:
        for old in element.cSld.findall("{*}bg"):
            element.cSld.remove(old)
        xml = f"<p:bg {NAMESPACES}><p:bgPr>{fill(background)}<a:effectLst/></p:bgPr></p:bg>"
        element.cSld.insert(0, parse_xml(xml))


def _set_text_styles(master: etree._Element, theme: Theme, look: Look) -> None:
    sizes = look.sizes
    title = level(sizes.headline, "tx1", bold=theme.heading_bold, font="+mj-lt")
    levels = "".join(
        level(size, "tx1", bullet=look.accent, indent=size * 1.1 * depth, after=size * 0.5, tag=f"a:lvl{depth}pPr")
        for depth, size in enumerate((sizes.body, sizes.body - 2, sizes.small, sizes.small, sizes.small), 1)
    )
    xml = (
        f"<p:txStyles {NAMESPACES}><p:titleStyle>{title}</p:titleStyle><p:bodyStyle>{levels}</p:bodyStyle>"
        f"<p:otherStyle>{level(sizes.body, 'tx1')}</p:otherStyle></p:txStyles>"
    )
    old = master.find("{*}txStyles")
    master.replace(old, parse_xml(xml))


def _set_colour_map(master: etree._Element, theme: Theme) -> None:
    light, dark = ("lt", "dk") if not theme.is_dark else ("dk", "lt")
    colours = master.find("{*}clrMap")
    for name, value in (("bg1", f"{light}1"), ("tx1", f"{dark}1"), ("bg2", f"{light}2"), ("tx2", f"{dark}2")):
        colours.set(name, value)


def _theme_xml(theme: Theme, old: bytes, language: str) -> bytes:
    """The colours and fonts are ours; the effects stay python-pptx's."""
    palette = theme.palette
    back, front = ("lt", "dk") if not theme.is_dark else ("dk", "lt")
    colours = {
        f"{front}1": palette.ink,
        f"{back}1": palette.background,
        f"{front}2": palette.muted,
        f"{back}2": palette.surface,
        **{f"accent{number}": colour for number, colour in enumerate(palette.series, 1)},
        "hlink": palette.accent,
        "folHlink": palette.muted,
    }
    order = ("dk1", "lt1", "dk2", "lt2", *(f"accent{n}" for n in range(1, 7)), "hlink", "folHlink")
    root = etree.fromstring(old, etree.XMLParser(resolve_entities=False))
    root.set("name", theme.name)
    scheme = "".join(f'<a:{name}><a:srgbClr val="{colours[name]}"/></a:{name}>' for name in order)
    asian = EAST_ASIAN.get(language.split("-")[0].lower(), "")
    fonts = "".join(
        f'<a:{tag}><a:latin typeface="{escape(name)}"/><a:ea typeface="{asian}"/><a:cs typeface="Arial"/>'
        + "".join(f'<a:font script="{script}" typeface="{font}"/>' for script, font in SCRIPTS.items())
        + f"</a:{tag}>"
        for tag, name in (("majorFont", theme.heading.name), ("minorFont", theme.body.name))
    )
    for tag, inner in (("clrScheme", scheme), ("fontScheme", fonts)):
        xml = f'<a:{tag} {NAMESPACES} name="{theme.name}">{inner}</a:{tag}>'
        found = root.find(f".//{{*}}{tag}")
        found.getparent().replace(found, etree.fromstring(xml))
    return bytes(etree.tostring(root, xml_declaration=True, encoding="UTF-8", standalone=True))
