"""Times and sizes as people write them: ``200ms``, ``1.5s``, ``4MB``, ``2MiB``.

In: text from a command line, a configuration file or a keyword argument, or a plain number.
Out: seconds as float, bytes as int; and the way back, for tables and messages. Decimal units are
powers of 1000 (``MB`` is 10**6), binary units powers of 1024 (``MiB`` is 2**20).
"""

from __future__ import annotations

import math
import re

from sti.errors import InputError

TIME_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
SIZE_UNITS = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
}
_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([A-Za-z]*)\s*", re.ASCII)


def parse_time(value: str | float, *, name: str = "time") -> float:
    """Seconds. Text needs a unit (``us``, ``ms``, ``s``); a number is seconds already.

    Args:
        value: what the caller wrote.
        name: what it is, for messages, e.g. ``"latency"`` or ``"--latency"``.

    Raises:
        InputError: not a time, without a unit, or not above zero.
    """
    hint = f"{name} must be a time above zero, such as 200ms or 1.5s"
    if isinstance(value, str):
        number, unit = _split(value, hint)
        if unit not in TIME_UNITS:
            fault = "it has no unit" if not unit else f"its unit {unit!r} is unknown"
            raise InputError(f"{hint}; found {_shown(value)}: {fault}")
        seconds = number * TIME_UNITS[unit]
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{hint}; found {_shown(value)}")
    else:
        seconds = float(value)
    if not (math.isfinite(seconds) and seconds > 0):
        raise InputError(f"{hint}; found {_shown(value)}")
    return seconds


def parse_size(value: str | int, *, name: str = "size") -> int:
    """Bytes. Text may have a unit (``B``, ``KB``, ``MB``, ``GB``, ``KiB``, ``MiB``, ``GiB``).

    Fractions of a byte are rounded. Zero is a size.

    Raises:
        InputError: not a size, or below zero.
    """
    hint = f"{name} must be a size, such as 4MB, 512KB or 2MiB"
    if isinstance(value, str):
        number, unit = _split(value, hint)
        if unit and unit not in SIZE_UNITS:
            raise InputError(f"{hint}; found {_shown(value)}: its unit {unit!r} is unknown")
        size = number * SIZE_UNITS.get(unit, 1)
        if not math.isfinite(size):
            raise InputError(f"{hint}; found {_shown(value)}")
        return round(size)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InputError(f"{hint}; found {_shown(value)}")
    return value


def format_time(seconds: float) -> str:
    """A time with three digits and its unit: ``1.23 s``, ``56.1 ms``, ``7.50 us``."""
    if abs(seconds) >= 1.0:
        return f"{_digits(seconds)} s"
    if abs(seconds) >= 1e-3 or seconds == 0:
        return f"{_digits(seconds * 1e3)} ms"
    return f"{_digits(seconds * 1e6)} us"


def format_size(size: int) -> str:
    """A size with three digits and its decimal unit: ``2.10 MB``; below 1000: ``512 B``."""
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if abs(size) >= scale:
            return f"{_digits(size / scale)} {unit}"
    return f"{size} B"


def _split(text: str, hint: str) -> tuple[float, str]:
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise InputError(f"{hint}; found {_shown(text)}")
    return float(match[1]), match[2].lower()


def _shown(value: object) -> str:
    return f"{value!r:.60}"


def _digits(value: float) -> str:
    size = abs(value)
    if size >= 99.95:
        return f"{value:.0f}"
    return f"{value:.1f}" if size >= 9.995 else f"{value:.2f}"
