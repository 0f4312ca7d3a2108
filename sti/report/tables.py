"""Tables as text (aligned, Markdown, CSV), table cells, and reports made of rows. Pure.

In: a header and rows of strings. Out: text that ends with a newline. Numbers are to be formatted
by the caller; columns of numbers are aligned to the right.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sti.report.json_document import json_document
from sti.text.control_characters import one_line

Row = Sequence[str]


def aligned(header: Row, rows: Sequence[Row]) -> str:
    """Columns aligned with spaces, two between."""
    header, *rows = _of_one_line((header, *rows))
    widths = _widths(header, rows)
    right = _numeric(header, rows)
    lines = [_pad(row, widths, right, "  ").rstrip() for row in (header, *rows)]
    return "\n".join(lines) + "\n"


def markdown(header: Row, rows: Sequence[Row]) -> str:
    """A Markdown table that reads well as plain text, too."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in _of_one_line((header, *rows))]
    widths = [max(3, width) for width in _widths(cells[0], cells[1:])]
    right = _numeric(header, rows)
    rule = [
        "-" * (width - 1) + ":" if to_right else "-" * width
        for width, to_right in zip(widths, right, strict=True)
    ]
    lines = [f"| {_pad(row, widths, right, ' | ')} |" for row in (cells[0], rule, *cells[1:])]
    return "\n".join(lines) + "\n"


def comma_separated(header: Row, rows: Sequence[Row]) -> str:
    """Comma-separated values with a header line."""
    import csv

    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([header, *rows])
    return stream.getvalue()


def figure(value: float | None, form: str = ".1f") -> str:
    """A cell with a number; a dash where there is none."""
    return "-" if value is None else format(value, form)


def megabytes(value: float | None) -> str:
    """A cell with bytes; a dash where there is none."""
    return "-" if value is None else f"{value / 1e6:.1f} MB"


def rows_report(
    form: str,
    facts: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    tables: Callable[[], str],
) -> str:
    """A measurement as ``json``, ``csv`` or ``md``.

    Args:
        facts: what holds for all rows; not in CSV. In Markdown, only texts are shown.
        rows: the same members in the same order in each; in CSV a mapping in them becomes columns
            ``name.key``.
        tables: what stands below the facts in Markdown.
    """
    if form == "json":
        return json_document({**facts, "rows": rows}) + "\n"
    if form == "csv":
        flat = [_flat(row) for row in rows]
        cells = [["" if cell is None else str(cell) for cell in row.values()] for row in flat]
        return comma_separated(list(flat[0]), cells)
    lines = [f"{name}: {value}\n" for name, value in facts.items() if isinstance(value, str)]
    return "".join(lines) + tables()


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """The members of a row, those of a mapping in it under ``name.key``."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        inner = isinstance(value, Mapping)
        flat |= {f"{name}.{key}": cell for key, cell in value.items()} if inner else {name: value}
    return flat


def _of_one_line(rows: Sequence[Row]) -> list[Row]:
    """Rows whose cells break no line."""
    return [[one_line(cell) for cell in row] for row in rows]


def _widths(header: Row, rows: Sequence[Row]) -> list[int]:
    return [max(map(len, column)) for column in zip(header, *rows, strict=True)]


def _numeric(header: Row, rows: Sequence[Row]) -> list[bool]:
    """Columns whose cells all start with a digit, a sign or a dash."""
    columns = list(zip(*rows, strict=True)) or [()] * len(header)
    return [all(cell[:1] in "0123456789+-." for cell in column) for column in columns]


def _pad(row: Row, widths: Sequence[int], right: Sequence[bool], between: str) -> str:
    return between.join(
        cell.rjust(width) if to_right else cell.ljust(width)
        for cell, width, to_right in zip(row, widths, right, strict=True)
    )
