"""Axes of numbers, and numbers as text, for charts that we draw ourselves."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

MAX_TICKS = 6


@dataclass(frozen=True, slots=True)
class Scale:
    """An axis of numbers: round ones, from the lowest to the highest."""

    ticks: tuple[float, ...]

    @classmethod
    def over(cls, values: Sequence[float], *, from_zero: bool) -> "Scale":
        low, high = min(values, default=0.0), max(values, default=1.0)
        if from_zero:
            low, high = min(low, 0.0), max(high, 0.0)
        if high <= low:
            low, high = low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2
        rough = (high - low) / (MAX_TICKS - 1)
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        return cls(tuple(number * step for number in range(first, last + 1)))

    def share(self, value: float) -> float:
        """Where on the axis the value is, from 0 to 1."""
        return (value - self.ticks[0]) / (self.ticks[-1] - self.ticks[0])


def show(value: float) -> str:
    """A number as people read it."""
    if value and (abs(value) >= 1e15 or abs(value) < 1e-4):
        return f"{value:.3g}"
    return f"{value:,.4f}".rstrip("0").rstrip(".") if abs(value) < 10 else f"{value:,.2f}".rstrip("0").rstrip(".")
