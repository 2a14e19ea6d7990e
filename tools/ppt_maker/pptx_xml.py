"""Pieces of PresentationML that python-pptx has no words for. Sizes in points, colours by scheme name or RRGGBB."""

from xml.sax.saxutils import quoteattr

from .pptx_look import Box

EMU = 12_700  # in a point
NAMESPACES = (
    'xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main" '
    'xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships" '
    'xmlns:p="http://schemas.openxmlformats.org/presentationml/2006/main"'
)


def emu(points: float) -> int:
    return round(points * EMU)


def fill(colour: str, *, alpha: int = 100) -> str:
    """Args: alpha: percent."""
    tag, inner = ("srgbClr" if _is_rgb(colour) else "schemeClr"), ""
    if alpha < 100:
        inner = f'<a:alpha val="{alpha * 1000}"/>'
    return f'<a:solidFill><a:{tag} val="{colour}">{inner}</a:{tag}></a:solidFill>'


def frame(box: Box) -> str:
    return (
        f'<a:xfrm><a:off x="{emu(box.x)}" y="{emu(box.y)}"/>'
        f'<a:ext cx="{emu(box.width)}" cy="{emu(box.height)}"/></a:xfrm>'
    )


def level(
    size: float,
    colour: str,
    *,
    bold: bool = False,
    align: str = "l",
    font: str = "+mn-lt",
    bullet: str | None = None,
    indent: float = 0.0,
    after: float = 0.0,
    tag: str = "a:lvl1pPr",
) -> str:
    """The look of a level of text. Args: bullet: the colour of its bullet; None: it has none. indent: in points."""
    marks = (
        f'<a:buClr><a:schemeClr val="{bullet}"/></a:buClr><a:buFont typeface="Arial"/><a:buChar char="•"/>'
        if bullet
        else "<a:buNone/>"
    )
    family = font.replace("-lt", "-{}")
    return (
        f'<{tag} marL="{emu(indent)}" indent="{-emu(indent)}" algn="{align}" defTabSz="914400" rtl="0" eaLnBrk="1" '
        f'latinLnBrk="0" hangingPunct="1"><a:lnSpc><a:spcPct val="100000"/></a:lnSpc>'
        f'<a:spcBef><a:spcPts val="0"/></a:spcBef><a:spcAft><a:spcPts val="{round(after * 100)}"/></a:spcAft>{marks}'
        f'<a:defRPr sz="{round(size * 100)}" b="{int(bold)}" kern="1200">{fill(colour)}'
        f'<a:latin typeface="{family.format("lt")}"/><a:ea typeface="{family.format("ea")}"/>'
        f'<a:cs typeface="{family.format("cs")}"/></a:defRPr></{tag}>'
    )


def placeholder(
    number: int,
    name: str,
    kind: str,
    box: Box,
    style: str,
    *,
    anchor: str = "t",
    prompt: str = "",
    index: int | None = None,
) -> str:
    """A placeholder of a master or a layout. Args: number: its id on the page. kind: empty for any content."""
    of = (f' type="{kind}"' if kind else "") + (f' idx="{index}"' if index is not None else "")
    text = (
        '<a:fld id="{B6F15528-21DE-4FAA-801E-634DDDAF4B2B}" type="slidenum"><a:rPr lang="en-US"/><a:t>‹#›</a:t></a:fld>'
    )
    if kind != "sldNum":
        text = f'<a:r><a:rPr lang="en-US"/><a:t>{prompt}</a:t></a:r>'
    return (
        f'<p:sp {NAMESPACES}><p:nvSpPr><p:cNvPr id="{number}" name={quoteattr(name)}/><p:cNvSpPr>'
        f'<a:spLocks noGrp="1"/></p:cNvSpPr><p:nvPr><p:ph{of}/></p:nvPr></p:nvSpPr>'
        f'<p:spPr>{frame(box)}<a:prstGeom prst="rect"><a:avLst/></a:prstGeom></p:spPr>'
        f'<p:txBody><a:bodyPr vert="horz" lIns="0" tIns="0" rIns="0" bIns="0" rtlCol="0" anchor="{anchor}">'
        f"<a:normAutofit/></a:bodyPr><a:lstStyle>{style}</a:lstStyle><a:p>{text}</a:p></p:txBody></p:sp>"
    )


def decoration(number: int, box: Box, colour: str, *, shape: str = "rect", alpha: int = 100) -> str:
    """A shape that means nothing: screen readers pass over it."""
    return (
        f'<p:sp {NAMESPACES}><p:nvSpPr><p:cNvPr id="{number}" name="Decoration {number}"><a:extLst>'
        '<a:ext uri="{C183D7F6-B498-43B3-948B-1728B52AA6E4}"><adec:decorative '
        'xmlns:adec="http://schemas.microsoft.com/office/drawing/2017/decorative" val="1"/></a:ext></a:extLst>'
        f'</p:cNvPr><p:cNvSpPr/><p:nvPr userDrawn="1"/></p:nvSpPr><p:spPr>{frame(box)}'
        f'<a:prstGeom prst="{shape}"><a:avLst/></a:prstGeom>{fill(colour, alpha=alpha)}<a:ln><a:noFill/></a:ln>'
        "</p:spPr>"
        '<p:txBody><a:bodyPr/><a:lstStyle/><a:p><a:endParaRPr lang="en-US"/></a:p></p:txBody></p:sp>'
    )


def _is_rgb(colour: str) -> bool:
    return len(colour) == 6 and all(c in "0123456789ABCDEFabcdef" for c in colour)
