"""Charts as SVG, in the colours of the theme: the same that PowerPoint draws in the PPTX from the same data."""

import math
from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape, quoteattr

from .chart_scale import Scale, show
from .deck import Chart
from .metrics import Face, find_face
from .pptx_charts import is_labelled
from .pptx_look import Box
from .themes import Theme

GAP = 8.0
_ROUND = {"pie", "doughnut"}


def draw_chart(chart: Chart, box: Box, theme: Theme) -> str:
    """An SVG as large as the box. Blocks: measures text."""
    drawing = _Drawing(chart, theme)
    area = Box(0, 0, box.width, box.height).inset(2)
    if chart.kind in _ROUND:
        drawing.draw_round(area)
    else:
        if len(chart.series) > 1:
            area = drawing.draw_legend(area)
        if chart.kind == "bar":
            drawing.draw_bars(area)
        else:
            drawing.draw_upright(area)
    fonts = ", ".join(f"'{name}'" for name in (theme.body.name, theme.body.free))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{box.width:g}pt" height="{box.height:g}pt" '
        f'viewBox="0 0 {box.width:g} {box.height:g}" font-family="{fonts}, sans-serif">{"".join(drawing.parts)}</svg>'
    )


class _Drawing:
    def __init__(self, chart: Chart, theme: Theme) -> None:
        self.chart = chart
        self.parts: list[str] = []
        self._palette = theme.palette
        self._size = theme.sizes.small
        self._small = theme.sizes.small - 2
        self._face: Face = find_face(theme.body.name)
        self._values = [value for series in chart.series for value in series.values if value is not None]
        self._labelled = is_labelled(chart)

    # --- Kinds --------------------------------------------------------------------------------------------------------

    def draw_upright(self, area: Box) -> None:
        """Columns, lines, areas and points, over an axis at the foot."""
        chart = self.chart
        scale = Scale.over(
            self._values, from_zero=chart.kind in {"column", "area"} or min(self._values, default=0) >= 0
        )
        across = Scale.over([float(c) for c in chart.categories], from_zero=False) if chart.kind == "scatter" else None
        labels = [show(tick) for tick in scale.ticks]
        left = max(self._width(label, self._small) for label in labels) + GAP
        top = self._size + 4 if self._labelled else self._small / 2
        if chart.y_title:
            left += self._small + GAP
        bottom = self._small + GAP * 1.5 + (self._small + GAP if chart.x_title else 0)
        slot = (area.width - left) / len(chart.categories)
        tilted = across is None and self._is_crowded(slot)
        if tilted:
            bottom += min(60.0, max(self._width(c, self._small) for c in chart.categories) * 0.7)
        right = self._width(show(across.ticks[-1]), self._small) / 2 + GAP if across else GAP
        plot = Box(area.x + left, area.y + top, area.width - left - right, area.height - top - bottom)
        for tick, label in zip(scale.ticks, labels, strict=True):
            y = plot.y + plot.height * (1 - scale.share(tick))
            self._line(plot.x, y, plot.x + plot.width, y)
            self._text(label, plot.x - GAP, y + self._small * 0.35, self._small, anchor="end")
        if across:
            for tick in across.ticks:
                x = plot.x + plot.width * across.share(tick)
                self._text(show(tick), x, plot.y + plot.height + self._small + GAP, self._small, anchor="middle")
        else:
            self._name_categories(plot, tilted=tilted)
        if chart.x_title:
            self._text(chart.x_title, plot.x + plot.width / 2, area.y + area.height - 3, self._small, anchor="middle")
        if chart.y_title:
            x, y = area.x + self._small, plot.y + plot.height / 2
            self._text(chart.y_title, x, y, self._small, anchor="middle", turn=-90)
        {"column": self._columns, "scatter": self._points}.get(chart.kind, self._lines)(plot, scale, across)

    def draw_bars(self, area: Box) -> None:
        """Bars from the left, the first category at the top."""
        chart = self.chart
        scale = Scale.over(self._values, from_zero=True)
        left = min(max(self._width(name, self._small) for name in chart.categories), area.width * 0.35) + GAP
        right = (
            max((self._width(show(v), self._size) for v in self._values), default=0.0) + 6 if self._labelled else GAP
        )
        bottom = self._small + GAP * 1.5 + (self._small + GAP if chart.y_title else 0)
        plot = Box(area.x + left, area.y, area.width - left - right, area.height - bottom)
        for tick in scale.ticks:
            x = plot.x + plot.width * scale.share(tick)
            self._line(x, plot.y, x, plot.y + plot.height)
            self._text(show(tick), x, plot.y + plot.height + self._small + GAP, self._small, anchor="middle")
        if chart.y_title:
            self._text(chart.y_title, plot.x + plot.width / 2, area.y + area.height - 3, self._small, anchor="middle")
        slot = plot.height / len(chart.categories)
        thick = slot * 0.64 / len(chart.series)
        every = max(1, math.ceil(self._small * 1.1 / slot))
        for index, category in enumerate(chart.categories):
            middle = plot.y + slot * (index + 0.5)
            if index % every == 0:
                name = self._shorten(category, left - GAP, self._small)
                self._text(name, plot.x - GAP, middle + self._small * 0.35, self._small, anchor="end")
            for number, series in enumerate(chart.series):
                if (value := series.values[index]) is None:
                    continue
                start, end = sorted((scale.share(0.0), scale.share(value)))
                y = middle + (number - len(chart.series) / 2) * thick
                bar = Box(plot.x + plot.width * start, y + 0.5, plot.width * (end - start), thick - 1)
                self._rectangle(bar, self._colour(number))
                if self._labelled:
                    x = bar.x + bar.width + 4 if value >= 0 else bar.x - 4
                    anchor = "start" if value >= 0 else "end"
                    self._text(show(value), x, y + thick / 2 + self._size * 0.35, self._size, anchor=anchor, bold=True)

    def draw_round(self, area: Box) -> None:
        """Slices, from the top and to the right, with their names beside them."""
        values = [max(0.0, value or 0.0) for value in self.chart.series[0].values]
        total = sum(values) or 1.0
        radius = min(area.height / 2 - 4, area.width * 0.3)
        names = area.width - 2 * radius - 40
        wide = max(self._width(name, self._size) for name in self.chart.categories) + self._size * 1.3
        left = max(0.0, (area.width - 2 * radius - 28 - min(wide, names)) / 2)
        cx, cy = area.x + left + radius, area.y + area.height / 2
        angle = 0.0
        for index, value in enumerate(values):
            sweep = value / total * 2 * math.pi
            self._slice(cx, cy, radius, angle, sweep, self._colour(index))
            if self._labelled and sweep > 0.25:
                at = radius * (0.78 if self.chart.kind == "doughnut" else 0.66)
                x, y = cx + at * math.sin(angle + sweep / 2), cy - at * math.cos(angle + sweep / 2)
                share, ink = f"{value / total:.0%}", self._palette.background
                y += self._size * 0.35
                self._text(share, x, y, self._size, anchor="middle", bold=True, colour=ink)
            angle += sweep
        if self.chart.kind == "doughnut":
            hole = f'r="{radius * 0.55:.1f}" fill="#{self._palette.background}"'
            self.parts.append(f'<circle cx="{cx:.1f}" cy="{cy:.1f}" {hole}/>')
        step = min(self._size * 1.9, area.height / len(values))
        size = min(self._size, step / 1.2)
        for index, name in enumerate(self.chart.categories):
            y = cy + (index - (len(values) - 1) / 2) * step
            x = cx + radius + 28
            self._rectangle(Box(x, y - size * 0.4, size * 0.8, size * 0.8), self._colour(index))
            self._text(
                self._shorten(name, names, size), x + size * 1.3, y + size * 0.35, size, colour=self._palette.ink
            )

    def draw_legend(self, area: Box) -> Box:
        """The names of the series in a line above the plot; returns what is left."""
        room = area.width / len(self.chart.series) - self._size * 2.2
        names = [self._shorten(series.name, room, self._size) for series in self.chart.series]
        widths = [self._width(name, self._size) + self._size * 2.2 for name in names]
        x, y = area.x + (area.width - sum(widths)) / 2, area.y + self._size
        for index, (name, width) in enumerate(zip(names, widths, strict=True)):
            self._rectangle(Box(x, y - self._size * 0.75, self._size * 0.8, self._size * 0.8), self._colour(index))
            self._text(name, x + self._size * 1.15, y, self._size, colour=self._palette.ink)
            x += width
        return area.cut_top(self._size * 1.6, gap=6)[1]

    # --- Marks --------------------------------------------------------------------------------------------------------

    def _columns(self, plot: Box, scale: Scale, _: Scale | None) -> None:
        slot = plot.width / len(self.chart.categories)
        wide = slot * (0.64 if len(self.chart.series) == 1 else 0.7) / len(self.chart.series)
        for number, series in enumerate(self.chart.series):
            for index, value in enumerate(series.values):
                if value is None:
                    continue
                low, high = sorted((scale.share(0.0), scale.share(value)))
                x = plot.x + slot * (index + 0.5) + (number - len(self.chart.series) / 2) * wide
                bar = Box(x + 0.5, plot.y + plot.height * (1 - high), wide - 1, plot.height * (high - low))
                self._rectangle(bar, self._colour(number))
                if self._labelled:
                    y = bar.y - 4 if value >= 0 else bar.y + bar.height + self._size
                    self._text(show(value), x + wide / 2, y, self._size, anchor="middle", bold=True)

    def _lines(self, plot: Box, scale: Scale, _: Scale | None) -> None:
        slot = plot.width / len(self.chart.categories)
        floor = plot.y + plot.height * (1 - min(1.0, max(0.0, scale.share(0.0))))
        for number, series in enumerate(self.chart.series):
            colour = self._colour(number)
            points = [
                None if v is None else (plot.x + slot * (i + 0.5), plot.y + plot.height * (1 - scale.share(v)), v)
                for i, v in enumerate(series.values)
            ]
            for run in _runs(points):
                path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in run)
                if self.chart.kind == "area":
                    shape = f"{run[0][0]:.1f},{floor:.1f} {path} {run[-1][0]:.1f},{floor:.1f}"
                    self.parts.append(f'<polygon points="{shape}" fill="#{colour}" fill-opacity="0.85"/>')
                    continue
                self.parts.append(
                    f'<polyline points="{path}" fill="none" stroke="#{colour}" stroke-width="2.75" '
                    'stroke-linejoin="round" stroke-linecap="round"/>'
                )
                for x, y, value in run:
                    self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="#{colour}"/>')
                    if self._labelled:
                        self._text(show(value), x, y - 9, self._size, anchor="middle", bold=True)

    def _points(self, plot: Box, scale: Scale, across: Scale | None) -> None:
        assert across
        for number, series in enumerate(self.chart.series):
            for category, value in zip(self.chart.categories, series.values, strict=True):
                if value is not None:
                    x = plot.x + plot.width * across.share(float(category))
                    y = plot.y + plot.height * (1 - scale.share(value))
                    mark = f'cx="{x:.1f}" cy="{y:.1f}" r="5" fill="#{self._colour(number)}"'
                    self.parts.append(f'<circle {mark} fill-opacity="0.85"/>')

    def _slice(self, cx: float, cy: float, radius: float, start: float, sweep: float, colour: str) -> None:
        edge = f'fill="#{colour}" stroke="#{self._palette.background}" stroke-width="1.5"'
        if sweep >= 2 * math.pi - 1e-6:
            self.parts.append(f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="{radius:.1f}" {edge}/>')
        elif sweep > 0:
            (x1, y1), (x2, y2) = (
                (cx + radius * math.sin(angle), cy - radius * math.cos(angle)) for angle in (start, start + sweep)
            )
            path = f"M{cx:.1f},{cy:.1f} L{x1:.1f},{y1:.1f} A{radius:.1f},{radius:.1f} 0 {int(sweep > math.pi)} 1"
            self.parts.append(f'<path d="{path} {x2:.1f},{y2:.1f} Z" {edge}/>')

    # --- Parts --------------------------------------------------------------------------------------------------------

    def _name_categories(self, plot: Box, *, tilted: bool) -> None:
        names = self.chart.categories
        slot = plot.width / len(names)
        every = max(1, math.ceil(self._small * 1.3 / slot)) if tilted else 1
        y = plot.y + plot.height + self._small + GAP
        for index in range(0, len(names), every):
            x = plot.x + slot * (index + 0.5)
            if tilted:
                name = self._shorten(names[index], 84, self._small)
                self._text(name, x + 4, y - self._small * 0.4, self._small, anchor="end", turn=-42)
            else:
                self._text(self._shorten(names[index], slot, self._small), x, y, self._small, anchor="middle")

    def _is_crowded(self, slot: float) -> bool:
        return any(self._width(name, self._small) > slot - 4 for name in self.chart.categories)

    def _width(self, text: str, size: float) -> float:
        return self._face.width(text) * size

    def _shorten(self, text: str, room: float, size: float) -> str:
        if self._width(text, size) <= room:
            return text
        while text and self._width(text + "…", size) > room:
            text = text[:-1]
        return text.rstrip() + "…"

    def _colour(self, index: int) -> str:
        return self._palette.series[index % len(self._palette.series)]

    def _line(self, x1: float, y1: float, x2: float, y2: float) -> None:
        place = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
        self.parts.append(f'<line {place} stroke="#{self._palette.line}" stroke-width="0.75"/>')

    def _rectangle(self, box: Box, colour: str) -> None:
        place = f'x="{box.x:.1f}" y="{box.y:.1f}" width="{max(0.0, box.width):.1f}" height="{max(0.0, box.height):.1f}"'
        self.parts.append(f'<rect {place} fill="#{colour}"/>')

    def _text(
        self,
        text: str,
        x: float,
        y: float,
        size: float,
        *,
        anchor: str = "start",
        bold: bool = False,
        colour: str = "",
        turn: float = 0,
    ) -> None:
        ink = colour or (self._palette.ink if bold else self._palette.muted)
        turned = f' transform="rotate({turn:g} {x:.1f} {y:.1f})"' if turn else ""
        weight = ' font-weight="bold"' if bold else ""
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" text-anchor={quoteattr(anchor)} fill="#{ink}"'
            f"{weight}{turned}>{escape(text)}</text>"
        )


def _runs(points: Sequence[tuple[float, float, float] | None]) -> Iterator[list[tuple[float, float, float]]]:
    """The pieces of a line between its gaps."""
    run: list[tuple[float, float, float]] = []
    for point in (*points, None):
        if point is not None:
            run.append(point)
        elif run:
            yield run
            run = []
