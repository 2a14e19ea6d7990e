"""Formulas as pictures, set by matplotlib's own TeX: it needs no LaTeX, and knows most of its mathematics."""

import io

DPI = 300


def draw_formula(latex: str, colour: str) -> bytes:
    """A PNG with a clear background, 100 pixels for each em; empty where the formula cannot be set.

    Args:
        colour: RRGGBB
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return b""
    text = latex.strip().strip("$").strip()
    figure, output = Figure(figsize=(0.1, 0.1)), io.BytesIO()
    figure.text(0, 0, f"${text}$", size=100 * 72 / DPI, color=f"#{colour}", math_fontfamily="stix")
    try:
        figure.savefig(output, dpi=DPI, format="png", transparent=True, bbox_inches="tight", pad_inches=0.02)
    except (ValueError, RuntimeError):
        return b""
    return output.getvalue()
