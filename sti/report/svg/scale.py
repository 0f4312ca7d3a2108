"""Scales, linear and logarithmic, and round numbers along them. Pure.

In: values. Out: where they are between the ends of a scale, and ticks with their labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from sti.errors import InputError
from sti.report.svg.text import text_width

_DIGITS = ((1, 2, 5), (1, 3), (1,))
"""Leading digits of logarithmic ticks: the first that are not too many."""
_APART = 8.0
"""Pixels between labels."""


@dataclass(frozen=True, slots=True)
class Scale:
    """From the least to the greatest value that is shown, ``low`` below ``high``."""

    low: float
    high: float
    log: bool = False

    @classmethod
    def around(cls, values: Iterable[float], *, log: bool = False, margin: float = 0.0) -> Scale:
        """The scale of some values, and a share of their range beyond them at both ends.

        Raises:
            InputError: there is no value, one is not finite, or one has no logarithm.
        """
        found = list(values)
        if not found or not all(map(math.isfinite, found)):
            raise InputError("a scale needs values, all of them finite")
        if log and min(found) <= 0:
            raise InputError(f"a logarithmic scale needs values above zero, not {min(found):g}")
        low, high = (math.log(end) if log else end for end in (min(found), max(found)))
        if high - low <= 1e-9 * max(abs(low), abs(high)):
            apart = 0.5 if log else abs(low) * 0.1 or 1.0
            low, high = low - apart, high + apart
        beyond = (high - low) * margin
        low, high = low - beyond, high + beyond
        return cls(math.exp(low), math.exp(high), log) if log else cls(low, high)

    def share(self, value: float) -> float:
        """Where a value is: 0 at ``low``, 1 at ``high``."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self, most: int) -> tuple[float, ...]:
        """Round values on the scale, rising, at most so many."""
        return (log_ticks if self.log else linear_ticks)(self.low, self.high, most)


def linear_ticks(low: float, high: float, most: int) -> tuple[float, ...]:
    """Multiples of 1, 2 or 5 times a power of ten between two values: at most ``most``, rising.

    With ``most`` of 5 or more there are at least two.
    """
    power = math.floor(math.log10((high - low) / max(1, most))) - 1
    while True:
        for digit in (1, 2, 5):
            step = digit * 10.0**power
            first = math.ceil(low / step - 1e-9)
            last = math.floor(high / step + 1e-9)
            if last - first < most:
                # Divided, not multiplied, below one: 3 / 10 is 0.3, and 3 * 0.1 is not.
                unit = 10.0 ** abs(power)
                numbers = (number * digit for number in range(first, last + 1))
                return tuple(number * unit if power >= 0 else number / unit for number in numbers)
        power += 1


def log_ticks(low: float, high: float, most: int) -> tuple[float, ...]:
    """Few-digit values between two above zero: at most ``most``, rising.

    Where less than a decade holds fewer than two, those of a linear scale.
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    choices = [(digits, 1) for digits in _DIGITS] + [((1,), stride) for stride in range(2, 620)]
    for digits, stride in choices:
        ticks = tuple(
            tick
            for power in range(first, last + 1)
            if power % stride == 0
            for digit in digits
            if low <= (tick := digit * 10.0**power) <= high
        )
        if len(ticks) <= most:
            return ticks if len(ticks) > 1 else linear_ticks(low, high, most)
    return ()


def tick_label(value: float) -> str:
    """A tick as text."""
    return f"{value:.6g}"


def spread_out(
    ticks: Callable[[int], Sequence[float]], place: Callable[[float], float], most: int
) -> Sequence[float]:
    """The most ticks whose centred labels do not touch.

    Args:
        ticks: the ticks where at most so many are wanted.
        place: where a tick is, in pixels.
        most: where to begin.
    """
    for number in range(most, 1, -1):
        found = ticks(number)
        if all(
            place(right) - place(left)
            >= (text_width(tick_label(left)) + text_width(tick_label(right))) / 2 + _APART
            for left, right in pairwise(found)
        ):
            return found
    return ticks(1)
