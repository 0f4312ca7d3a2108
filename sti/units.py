"""Times and sizes as people write them: ``200ms``, ``1.5s``, ``4MB``, ``2MiB``.

In: text from a command line, a configuration file or a keyword argument. Out: seconds as float,
bytes as int; and the way back, rounded for tables and messages or exact for options. A number needs
a unit: without one nobody knows whether seconds or milliseconds are meant. Decimal units are powers
of 1000 (``MB`` is 10**6), binary units powers of 1024 (``MiB`` is 2**20).
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
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_SHARE = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*%\s*", re.ASCII)
_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([A-Za-z]*)\s*", re.ASCII)


_LEAST_S = 1e-12
"""Of a time: of less there are too few digits to read it back."""


def parse_time(value: str, *, name: str = "time") -> float:
    """Seconds, from a number with its unit (``us``, ``ms``, ``s``).

    Args:
        value: what the caller wrote.
        name: what it is, for messages, e.g. ``"latency"`` or ``"--latency"``.

    Raises:
        InputError: not a time, without a unit, or not above zero.
    """
    hint = f"{name} must be a time above zero, such as 200ms or 1.5s"
    number, unit = _split(value, hint)
    if not unit:
        digits = value.strip()
        remedy = f'it has no unit; write "{digits}ms" or "{digits}s"'
        raise InputError(f"{hint}; found {_shown(value)}: {remedy}")
    if unit not in TIME_UNITS:
        raise InputError(f"{hint}; found {_shown(value)}: its unit {unit!r:.20} is unknown")
    seconds = number * TIME_UNITS[unit]
    if not (math.isfinite(seconds) and seconds >= _LEAST_S):
        raise InputError(f"{hint}; found {_shown(value)}")
    return seconds


def parse_size(value: str, *, name: str = "size") -> int:
    """Bytes, from a number with its unit: ``B``, ``KB`` to ``TB``, ``KiB`` to ``TiB``.

    The text ``"0"`` needs no unit: it is as many bytes in every one. Fractions of a byte are
    rounded.

    Raises:
        InputError: not a size, without a unit, or below zero.
    """
    hint = f"{name} must be a size, such as 4MB, 512KB or 2MiB"
    _refuse_integer(value, hint)
    number, unit = _split(value, hint)
    size = number * SIZE_UNITS.get(unit, 1)
    if not math.isfinite(size):
        raise InputError(f"{hint}; found {_shown(value)}")
    if number and not unit:
        raise InputError(f"{hint}; found {_shown(value)}: {_with_unit(round(size))}")
    if unit and unit not in SIZE_UNITS:
        raise InputError(f"{hint}; found {_shown(value)}: its unit {unit!r:.20} is unknown")
    return round(size)


def _refuse_integer(value: object, hint: str) -> None:
    if type(value) is int and value >= 0:
        raise InputError(f"{hint}; found {_shown(value)}: {_with_unit(value)}")


def _with_unit(size: int) -> str:
    spelled = dict.fromkeys((f"{size}B", exact_size(size)))
    return "it has no unit; write " + " or ".join(f'"{text:.40}"' for text in spelled)


def parse_share(value: object, *, name: str = "share") -> float:
    """A share of one, from a number with a percent sign: ``"98%"`` is 0.98.

    Raises:
        InputError: not such a number, or not above 0 % and at most 100 %.
    """
    hint = f"{name} must be a share in percent, such as 95%"
    match = _SHARE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        spelled = ""
        if isinstance(value, int | float) and value is not True and 0.0 < value <= 1.0:
            spelled = f': write "{exact_share(value)}"'
        raise InputError(f"{hint}; found {_shown(value)}{spelled}")
    share = float(f"{match[1]}e-2")
    if not 0.0 < share <= 1.0:
        raise InputError(f"{hint}, above 0 and at most 100; found {_shown(value)}")
    return share


def exact_share(share: float) -> str:
    """A share above 0 and up to 1 as ``parse_share`` reads it back: ``95%``, ``99.9%``."""
    shortest = repr(float(share))
    whole, _, digits = (f"{share:.40f}" if "e" in shortest else shortest).partition(".")
    digits = digits.ljust(2, "0")  # the point moves two places to the right
    number = f"{int(whole + digits[:2])}.{digits[2:]}".rstrip("0").rstrip(".")
    return f"{number}%"


def exact_time(seconds: float) -> str:
    """A time above zero as ``parse_time`` reads it back to the bit: ``200ms``, ``1.5s``."""
    best = "s" if seconds >= 1 else "ms" if seconds >= 1e-3 else "us"
    for unit in (best, "ms", "s"):
        text = f"{seconds / TIME_UNITS[unit]:.12f}".rstrip("0").rstrip(".")
        if float(text) * TIME_UNITS[unit] == seconds:
            return text + unit
    shortest = repr(seconds)
    return f"{f'{seconds:.40f}' if 'e' in shortest else shortest}s"


def exact_size(size: int) -> str:
    """A size as ``parse_size`` reads it back: ``4MB``, ``4KiB``, ``12345B``."""
    for unit in ("TB", "TiB", "GB", "GiB", "MB", "MiB", "KB", "KiB"):
        count, rest = divmod(size, SIZE_UNITS[unit.lower()])
        if count and not rest:
            return f"{count}{unit}"
    return f"{size}B"


def format_time(seconds: float) -> str:
    """A time with three digits and its unit: ``1.23 s``, ``56.1 ms``, ``7.50 us``."""
    if abs(seconds) >= 1.0:
        return f"{_digits(seconds)} s"
    if abs(seconds) >= 1e-3 or seconds == 0:
        return f"{_digits(seconds * 1e3)} ms"
    return f"{_digits(seconds * 1e6)} us"


def format_size(size: int) -> str:
    """A size with three digits and its decimal unit: ``2.10 MB``; below 1000: ``512 B``."""
    for unit, scale in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if abs(size) >= scale:
            return f"{_digits(size / scale)} {unit}"
    return f"{size} B"


def rounded_up(value: float) -> float:
    """A number above zero rounded up to three digits: a remedy that is shown must be enough."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 2)
    return math.ceil(value / unit) * unit


def _split(text: str, hint: str) -> tuple[float, str]:
    match = _QUANTITY.fullmatch(text) if isinstance(text, str) else None
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
