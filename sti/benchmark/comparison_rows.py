"""A comparison of systems as rows of a table: what `sti bench --against` and benchmarks print.

In: the ``Figures`` of every system. Out: JSON objects, cells of a table, and whether there was
anything to compare with. Knows nothing of how the figures were measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sti.benchmark.comparison import Figures
from sti.errors import RunError
from sti.report.tables import figure, megabytes

HEADER = (
    *("system", "threads", "open ms", "cold ms", "p95 ms", "warm ms", "p95 ms", "after a wait ms"),
    *("peak growth", "steady growth", "read cold", "read warm", "J a run", "cosine"),
)
OURS = "STI"
"""The name of the pack's own system; variants of it begin with it."""


def rows_of(found: Sequence[Figures]) -> list[dict[str, Any]]:
    """Every system's figures, with the cosine of its answers to the first model's."""
    reference = next((item for item in found if item.system.module.endswith("onnx_model")), None)
    rows = []
    for item in found:
        cosine = None if reference is None else item.cosine(reference)
        rows.append({**item.to_json(), "cosine": None if cosine is None else round(cosine, 4)})
    return rows


def cells_of(row: dict[str, Any]) -> list[str]:
    """A system's line under ``HEADER``."""
    times = ("open_ms", "cold_ms", "cold_p95_ms", "warm_ms", "warm_p95_ms", "rested_ms")
    sizes = ("peak_growth_bytes", "steady_growth_bytes", "cold_bytes_read", "warm_bytes_read")
    return [
        row["system"],
        "default" if row["threads"] is None else str(row["threads"]),
        *(figure(row[name]) for name in times),
        *(megabytes(row[name]) for name in sizes),
        figure(row["warm_joules"], ".2f"),
        figure(row["cosine"], ".4f"),
    ]


def nothing_to_compare_with(found: Sequence[Figures]) -> RunError | None:
    """The error to report where every system but the pack itself failed, else None."""
    others = [item for item in found if not item.system.name.startswith(OURS)]
    if not others or not all(item.failed for item in others):
        return None
    return RunError(f"no other system could be measured: {others[0].failed}")
