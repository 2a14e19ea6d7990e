"""Charts that can be edited: PowerPoint's own, with their data in the file."""

from typing import Any

from pptx.chart.data import CategoryChartData, XyChartData
from pptx.enum.chart import (
    XL_AXIS_CROSSES,
    XL_CHART_TYPE,
    XL_LABEL_POSITION,
    XL_LEGEND_POSITION,
    XL_MARKER_STYLE,
    XL_TICK_LABEL_POSITION,
    XL_TICK_MARK,
)
from pptx.enum.dml import MSO_THEME_COLOR
from pptx.util import Pt

from .deck import Chart
from .pptx_look import Box, Look

KINDS = {
    "column": XL_CHART_TYPE.COLUMN_CLUSTERED,
    "bar": XL_CHART_TYPE.BAR_CLUSTERED,
    "line": XL_CHART_TYPE.LINE_MARKERS,
    "area": XL_CHART_TYPE.AREA,
    "pie": XL_CHART_TYPE.PIE,
    "doughnut": XL_CHART_TYPE.DOUGHNUT,
    "scatter": XL_CHART_TYPE.XY_SCATTER,
}
ACCENTS = [getattr(MSO_THEME_COLOR, f"ACCENT_{number}") for number in range(1, 7)]
MAX_LABELLED = 8  # values that are written beside their bars


def add_chart(slide: Any, box: Box, chart: Chart, look: Look) -> Any:
    """Returns the frame that holds it."""
    place = (Pt(box.x), Pt(box.y), Pt(box.width), Pt(box.height))
    frame = slide.shapes.add_chart(KINDS[chart.kind], *place, _data(chart))
    drawn = frame.chart
    drawn.has_title = False
    drawn.font.size = Pt(look.sizes.small)
    drawn.font.color.theme_color = MSO_THEME_COLOR.TEXT_1
    drawn.has_legend = len(chart.series) > 1 or chart.kind in {"pie", "doughnut"}
    if drawn.has_legend:
        drawn.legend.position = (
            XL_LEGEND_POSITION.RIGHT if chart.kind in {"pie", "doughnut"} else XL_LEGEND_POSITION.TOP
        )
        drawn.legend.include_in_layout = False
        drawn.legend.font.size = Pt(look.sizes.small)
    plot = drawn.plots[0]
    if chart.kind in {"pie", "doughnut"}:
        _style_slices(plot, len(chart.categories))
    else:
        _style_series(plot, chart)
        _style_axes(drawn, chart, look)
    if is_labelled(chart):
        _label_values(plot, chart, look)
    return frame


def describe(chart: Chart) -> str:
    """What the chart shows, for those who cannot see it."""
    series = "; ".join(
        f"{s.name or 'values'}: "
        + ", ".join(
            f"{category} {value:g}"
            for category, value in zip(chart.categories, s.values, strict=True)
            if value is not None
        )
        for s in chart.series
    )
    return f"{chart.kind.capitalize()} chart. {series}"[:1000]


def _data(chart: Chart) -> Any:
    new_data: Any = XyChartData if chart.kind == "scatter" else CategoryChartData
    data = new_data()
    if chart.kind == "scatter":
        for series in chart.series:
            added = data.add_series(series.name)
            for x, y in zip(chart.categories, series.values, strict=True):
                if y is not None:
                    added.add_data_point(float(x), y)
        return data
    data.categories = chart.categories
    for series in chart.series:
        data.add_series(series.name, series.values)
    return data


def _style_series(plot: Any, chart: Chart) -> None:
    if chart.kind in {"column", "bar"}:
        plot.gap_width, plot.overlap = (55 if len(chart.series) == 1 else 70), -5
    for index, series in enumerate(plot.series):
        colour = ACCENTS[index % len(ACCENTS)]
        if chart.kind == "line":
            series.format.line.width = Pt(2.75)
            series.format.line.color.theme_color = colour
            series.smooth = False
        if chart.kind in {"line", "scatter"}:
            series.marker.style, series.marker.size = XL_MARKER_STYLE.CIRCLE, 8
            series.marker.format.fill.solid()
            series.marker.format.fill.fore_color.theme_color = colour
            series.marker.format.line.fill.background()
            if chart.kind == "scatter":
                series.format.line.fill.background()
        else:
            series.format.fill.solid()
            series.format.fill.fore_color.theme_color = colour
            series.invert_if_negative = False if chart.kind in {"column", "bar"} else None


def _style_slices(plot: Any, count: int) -> None:
    for index in range(count):
        part = plot.series[0].points[index]
        part.format.fill.solid()
        part.format.fill.fore_color.theme_color = ACCENTS[index % len(ACCENTS)]
        part.format.line.color.theme_color = MSO_THEME_COLOR.BACKGROUND_1
        part.format.line.width = Pt(1.5)


def _style_axes(drawn: Any, chart: Chart, look: Look) -> None:
    for axis, title in ((drawn.category_axis, chart.x_title), (drawn.value_axis, chart.y_title)):
        axis.tick_labels.font.size = Pt(look.sizes.small - 2)
        axis.tick_labels.font.color.theme_color = MSO_THEME_COLOR.TEXT_2
        axis.major_tick_mark = axis.minor_tick_mark = XL_TICK_MARK.NONE
        axis.format.line.color.theme_color = MSO_THEME_COLOR.BACKGROUND_2
        axis.has_title = bool(title)
        if title:
            frame = axis.axis_title.text_frame
            frame.text = title
            font = frame.paragraphs[0].runs[0].font
            font.size, font.bold = Pt(look.sizes.small - 2), False
            font.color.theme_color = MSO_THEME_COLOR.TEXT_2
    drawn.category_axis.has_major_gridlines = False
    drawn.value_axis.has_major_gridlines = True
    drawn.value_axis.major_gridlines.format.line.color.theme_color = MSO_THEME_COLOR.BACKGROUND_2
    drawn.value_axis.format.line.fill.background()
    if chart.kind == "bar":  # the first category above, and the axis of the values below all the same
        drawn.category_axis.reverse_order = True
        drawn.category_axis.crosses = XL_AXIS_CROSSES.MAXIMUM
    if chart.kind in {"column", "bar"} and is_labelled(chart):  # the values stand beside the bars
        drawn.value_axis.has_major_gridlines = False
        drawn.value_axis.tick_label_position = XL_TICK_LABEL_POSITION.NONE


def _label_values(plot: Any, chart: Chart, look: Look) -> None:
    plot.has_data_labels = True
    labels = plot.data_labels
    labels.font.size, labels.font.bold = Pt(look.sizes.small), True
    if chart.kind in {"pie", "doughnut"}:
        labels.font.color.theme_color = MSO_THEME_COLOR.BACKGROUND_1
        labels.show_percentage, labels.show_value = True, False
        labels.number_format, labels.number_format_is_linked = "0%", False
        return
    labels.show_value = True
    labels.number_format, labels.number_format_is_linked = "#,##0.##" if _has_fractions(chart) else "#,##0", False
    if chart.kind in {"column", "bar"}:
        labels.position = XL_LABEL_POSITION.OUTSIDE_END
    elif chart.kind == "line":
        labels.position = XL_LABEL_POSITION.ABOVE


def is_labelled(chart: Chart) -> bool:
    return len(chart.categories) * len(chart.series) <= MAX_LABELLED and chart.kind not in {"scatter", "area"}


def _has_fractions(chart: Chart) -> bool:
    return any(value is not None and value != int(value) for series in chart.series for value in series.values)
