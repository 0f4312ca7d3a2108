"""What ``sti bench`` prints, whatever it measured: facts and rows as Markdown, CSV or JSON.

In: facts about a measurement, rows of figures. Out: one document on stdout, and cells of tables.
Knows nothing of what was measured.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from typing import Any

import numpy as np

from sti.backend.onnxruntime.session import ort_version
from sti.report.tables import comma_separated
from sti.version import __version__


def software() -> str:
    """What runs here, in one line."""
    return (
        f"sti {__version__}, Python {platform.python_version()}, onnxruntime {ort_version()}, "
        f"numpy {np.__version__}"
    )


def print_rows(facts: dict[str, str], rows: Sequence[dict[str, Any]], form: str) -> bool:
    """Print ``json`` or ``csv`` whole, or for ``md`` the facts that stand above the tables.

    Returns:
        Whether the tables are still to be printed.
    """
    if form == "json":
        print(json.dumps({**facts, "rows": rows}))
    elif form == "csv":
        cells = [["" if v is None else str(v) for v in row.values()] for row in rows]
        print(comma_separated(list(rows[0]), cells), end="")
    else:
        for name, value in facts.items():
            print(f"{name}: {value}")
    return form == "md"


def figure(value: float | None, form: str = ".1f") -> str:
    """A cell with a number; a dash where there is none."""
    return "-" if value is None else format(value, form)


def megabytes(value: float | None) -> str:
    """A cell with bytes; a dash where there is none."""
    return "-" if value is None else f"{value / 1e6:.1f} MB"
