"""The style sheet of a deck: the look of its theme, made from the same data as the PPTX's master and layouts.

Sizes are points on a page of 960 x 540. What stands on a page is placed by rules of its own (`marp_markdown.py`).
"""

import base64

from .pptx_look import FOOTER, HEADLINE, MARGIN, NUMBER, Box, look_of
from .themes import PAGE_HEIGHT, PAGE_WIDTH, Font, Theme

ASIAN = {"ko": "KR", "ja": "JP", "zh": "SC", "zh-tw": "TC", "zh-hk": "HK", "zh-hant": "TC"}
# What Marp needs to know of a theme; all else is in the deck itself.
BASE_THEME = "/* @theme deck */\nsection { width: 960pt; height: 540pt; }\n"


def style_theme(theme: Theme, language: str) -> str:
    palette, sizes, look = theme.palette, theme.sizes, look_of(theme)
    body, heading, mono = (_family(font, language) for font in (theme.body, theme.heading, theme.mono))
    weight = "bold" if theme.heading_bold else "normal"
    keyword, string, number, name = (palette.series[index] for index in (0, 2, 1, 4))
    align = "center" if theme.cover == "rule" else "start"
    cover = f"#{_cover_colour(theme)} {_picture(_draw_cover(theme))}"
    part = f"#{_section_colour(theme)} {_picture(_draw_section(theme))}"
    return f"""\
section {{ margin: 0; padding: 0; overflow: hidden; position: relative; display: block; font: {sizes.body:g}pt {body};
  line-height: 1.2; color: #{palette.ink}; background: #{palette.background} {_picture(_draw_page(theme))}; }}
section.cover {{ background: {cover}; color: #{palette.on_cover}; }}
section.section {{ background: {part}; color: #{palette.on_cover}; }}
section.rtl {{ direction: rtl; }}
section > * {{ position: absolute; margin: 0; padding: 0; border: 0; box-sizing: border-box; text-align: start;
  unicode-bidi: plaintext; overflow-wrap: anywhere; }}
section h1, section h2, section h3 {{ font-family: {heading}; font-weight: {weight}; color: inherit; }}
section h1, section h2 {{ display: flex; flex-direction: column; justify-content: flex-end; text-wrap: balance; }}
section.cover h1, section.cover p, section.cover h6 {{ text-align: {align}; }}
section h3 {{ font-size: {sizes.body:g}pt; font-weight: bold; background: #{palette.surface}; }}
section h6 {{ font: {sizes.foot:g}pt {body}; color: #{palette.muted}; display: flex; flex-direction: column;
  justify-content: flex-end; }}
section.cover h6 {{ color: #{palette.on_cover_muted}; }}
section.section h6 {{ color: #{palette.on_cover_muted}; font-family: {heading}; font-weight: bold; }}
section p {{ color: #{palette.muted}; }}
section.cover p, section.section p {{ color: #{palette.on_cover_muted}; }}
section.facts h3 + p {{ color: #{palette.ink}; }}
section ul, section ol {{ list-style: none; }}
section li {{ position: relative; margin: 0 0 var(--gap, .55em); padding: 0; padding-inline-start: 1.1em; }}
section li:last-child {{ margin-bottom: 0; }}
section li::before {{ content: "•"; position: absolute; inset-inline-start: 0; color: #{palette.accent}; }}
section ol li {{ counter-increment: list-item; padding-inline-start: 1.8em; }}
section ol li::before {{ content: counter(list-item); font-weight: bold; }}
section blockquote, section blockquote p {{ font-family: {heading}; color: #{palette.ink}; margin: 0; }}
section blockquote {{ display: flex; align-items: center; background: none; quotes: none; }}
section blockquote::before {{ content: "“"; position: absolute; left: -76pt; top: 4pt;
  font: bold 110pt/1 {heading}; color: #{palette.accent}; }}
section blockquote::after {{ content: none; }}
section pre {{ font-family: {mono}; line-height: 1.2; white-space: pre-wrap; background: #{palette.surface};
  color: #{palette.ink}; direction: ltr; text-align: left; border-radius: 0; }}
section pre code {{ font: inherit; color: inherit; background: none; padding: 0; white-space: inherit; }}
section .hljs-keyword, section .hljs-literal, section .hljs-type, section .hljs-tag {{ color: #{keyword}; }}
section .hljs-string, section .hljs-regexp, section .hljs-addition {{ color: #{string}; }}
section .hljs-number, section .hljs-meta, section .hljs-symbol {{ color: #{number}; }}
section .hljs-title, section .hljs-built_in, section .hljs-attr, section .hljs-name {{ color: #{name}; }}
section .hljs-comment, section .hljs-quote {{ color: #{palette.muted}; font-style: italic; }}
section table {{ display: table; border-collapse: collapse; table-layout: fixed; background: none; }}
section tr, section th, section td {{ background: none; border: 0; color: #{palette.ink}; }}
section th, section td {{ padding: 6pt 9pt; border-bottom: .75pt solid #{palette.line}; vertical-align: middle;
  text-align: start; }}
section th {{ color: #{palette.accent}; border-bottom: 1.75pt solid #{palette.accent}; vertical-align: bottom; }}
section td:first-child {{ font-weight: bold; }}
section p > img {{ width: 100%; height: 100%; object-fit: contain; display: block; }}
section mjx-container {{ color: #{palette.ink}; width: 100%; }}
section g[data-mml-node="merror"] * {{ fill: currentColor; stroke: none; }}
section g[data-mml-node="merror"] > rect {{ fill: none; }}
section footer {{ {place(FOOTER)} font-size: {sizes.foot:g}pt; line-height: {FOOTER.height:g}pt;
  color: #{palette.muted}; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }}
section::after {{ position: absolute; {place(NUMBER)} right: auto; bottom: auto; padding: 0;
  font-size: {sizes.foot:g}pt; line-height: {NUMBER.height:g}pt; color: #{palette.muted}; text-align: right;
  background: none; }}
section.cover h1 {{ {place(look.cover_title)} }}
section.section h1 {{ {place(look.section_title)} }}
section h2 {{ {place(HEADLINE)} }}
"""


def place(box: Box) -> str:
    return f"left: {box.x:.1f}pt; top: {box.y:.1f}pt; width: {box.width:.1f}pt; height: {box.height:.1f}pt;"


def data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _family(font: Font, language: str) -> str:
    tag = language.lower()
    asian = ASIAN.get(tag) or ASIAN.get(tag.split("-")[0], "KR")
    last = "monospace" if "Mono" in font.free else "serif" if font.free == "Caladea" else "sans-serif"
    names = (font.name, font.free, f"Noto Sans CJK {asian}", "Noto Sans", "Noto Sans Arabic", "Noto Color Emoji")
    return ", ".join([*(f"'{name}'" for name in names), last])


def _picture(shapes: str) -> str:
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {PAGE_WIDTH:g} {PAGE_HEIGHT:g}">{shapes}</svg>'
    return f'url("{data_uri(svg.encode(), "svg+xml")}") 0 0 / 100% 100% no-repeat'


def _rectangle(box: Box, colour: str) -> str:
    return f'<rect x="{box.x:g}" y="{box.y:g}" width="{box.width:g}" height="{box.height:g}" fill="#{colour}"/>'


def _ellipse(box: Box, colour: str, opacity: float) -> str:
    rx, ry = box.width / 2, box.height / 2
    middle = f'cx="{box.x + rx:g}" cy="{box.y + ry:g}" rx="{rx:g}" ry="{ry:g}"'
    return f'<ellipse {middle} fill="#{colour}" fill-opacity="{opacity:g}"/>'


def _draw_page(theme: Theme) -> str:
    wide = PAGE_WIDTH - 2 * MARGIN
    mark = {"bar": Box(MARGIN, 26, 44, 5), "rule": Box(MARGIN, 119, wide, 1), "edge": Box(0, 0, 8, PAGE_HEIGHT)}
    foot = _rectangle(Box(MARGIN, 504, wide, 0.75), theme.palette.line)
    return _rectangle(mark[theme.mark], theme.palette.accent) + foot


def _draw_section(theme: Theme) -> str:
    return _rectangle(Box(0, 0, 14, PAGE_HEIGHT), theme.palette.accent)


def _section_colour(theme: Theme) -> str:
    return theme.palette.surface if theme.cover == "rule" else theme.palette.cover


def _cover_colour(theme: Theme) -> str:
    return theme.palette.background if theme.cover == "band" else theme.palette.cover


def _draw_cover(theme: Theme) -> str:
    palette = theme.palette
    match theme.cover:
        case "band":
            half, wide = PAGE_HEIGHT / 2, (PAGE_WIDTH - 660) / 2
            rx, ry, cx, cy = wide / 2, half / 2, 660 + wide / 2, half / 2
            pie = f"M{cx:g},{cy:g} L{cx + rx:g},{cy:g} A{rx:g},{ry:g} 0 1 1 {cx:g},{cy - ry:g} Z"
            left = 660 + wide
            return "".join(
                [
                    _rectangle(Box(0, 0, 660, PAGE_HEIGHT), palette.cover),
                    _rectangle(Box(660, 0, 2 * wide, PAGE_HEIGHT), palette.surface),
                    _rectangle(Box(660, half, wide, half), palette.series[0]),
                    _rectangle(Box(left, 0, wide, half), palette.accent),
                    f'<polygon points="{left:g},{half:g} {left:g},540 960,540" fill="#{palette.series[2]}"/>',
                    f'<path d="{pie}" fill="#{palette.series[3]}" fill-opacity="0.9"/>',
                    _rectangle(Box(MARGIN, 128, 60, 6), palette.accent),
                ]
            )
        case "full":
            first = palette.series[0]
            second = palette.accent if palette.accent != first else palette.series[1]
            return "".join(
                [
                    _ellipse(Box(640, -120, 460, 460), first, 0.3),
                    _ellipse(Box(720, 250, 340, 340), second, 0.75),
                    _ellipse(Box(640, 380, 120, 120), palette.on_cover, 0.14),
                    _rectangle(Box(MARGIN, 128, 60, 6), second),
                ]
            )
        case "rule":
            return "".join(
                [
                    _rectangle(Box(0, 0, PAGE_WIDTH, 12), palette.accent),
                    _rectangle(Box(0, PAGE_HEIGHT - 12, PAGE_WIDTH, 12), palette.accent),
                    _rectangle(Box(PAGE_WIDTH / 2 - 60, 312, 120, 2), palette.series[1]),
                ]
            )
