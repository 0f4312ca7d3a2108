"""Small files of ``/proc`` and ``/sys`` as plain values; None or nothing where one cannot be read.

In: a path. Out: its text, a number or a table. Android denies many of these files, and what they
hold differs by kernel, so nothing here raises.
"""

from __future__ import annotations

import io
import re
from pathlib import Path

_DIGITS = 20
"""Of the largest number of 64 bits; Python refuses to convert very long ones."""
_LINES_OF_TABLE = re.compile(r"^([^:\n]*):[ \t]+([0-9]+)[ \t]+kB[ \t]*$", re.MULTILINE).findall


def read_text(path: Path) -> str | None:
    """The text, without what surrounds it; None where there is none."""
    try:
        with io.open(path, "rb", buffering=0) as file:  # noqa: UP020  some are read all the time
            raw = file.read()
        return raw.decode("utf-8", errors="replace").strip("\0 \n") or None
    except (OSError, ValueError):  # a path with a NUL is a ValueError
        return None


def read_number(path: Path) -> int | None:
    """The number that the file holds; None for anything else, such as ``max``."""
    return whole_number(read_text(path) or "")


def whole_number(text: str) -> int | None:
    """The number that a text is; None for anything else."""
    return int(text) if _is_number(text) else None


def read_words(path: Path) -> dict[str, int]:
    """``name 123`` lines."""
    pairs = (line.split() for line in (read_text(path) or "").splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and _is_number(pair[1])}


def read_table(path: Path) -> dict[str, int]:
    """``Name: 123 kB`` lines as bytes."""
    lines = _LINES_OF_TABLE(read_text(path) or "")
    return {name: int(size) * 1024 for name, size in lines if len(size) <= _DIGITS}


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _DIGITS
