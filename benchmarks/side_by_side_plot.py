"""The side-by-side comparison as a picture: cold start, warm run and memory of every system.

In: the figures of a compare. Out: SVG text, the same to the byte for the same figures.
"""

from __future__ import annotations

from collections.abc import Sequence

from sti.benchmark.comparison import Figures
from sti.report.svg.bars import BarPanel, Part, stacked_bars

_PARTS = (Part("STI", "blue"), Part("other systems", "grey"))
_PANELS = (
    ("cold_ms", 1.0, "cold start, ms"),
    ("warm_ms", 1.0, "warm run, ms"),
    ("peak_growth_bytes", 1e6, "growth of memory, MB"),
)


def as_svg(found: Sequence[Figures]) -> str:
    """Draw horizontal bars, a panel a figure, systems in the order given from the top."""
    rows = [item.to_json() for item in found if not item.failed]
    names = [row["system"] for row in rows]

    def parts(name: str, value: float | None, unit: float) -> tuple[float, float] | None:
        if value is None:
            return None
        return (value / unit, 0.0) if name.startswith("STI") else (0.0, value / unit)

    panels = [
        BarPanel(title, [parts(row["system"], row[key], unit) for row in rows], ".0f")
        for key, unit, title in _PANELS
    ]
    return stacked_bars(
        names,
        _PARTS,
        panels,
        title="STI and other systems",
        description="Bars of the time of a cold start, the time of a warm run, and the growth of "
        "memory, for each system. Less is better.",
    )
