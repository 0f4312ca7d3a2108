"""The side-by-side comparison as a picture: cold start, warm run and memory of every system.

In: the figures of a compare. Out: SVG text, the same to the byte for the same figures.
"""

from __future__ import annotations

from collections.abc import Sequence

from shard_tools.evaluation.plots import STYLE, svg_of
from sti.benchmark.comparison import Figures

_OURS, _OTHERS = "#0072B2", "#999999"
_PANELS = (
    ("cold_ms", 1.0, "cold start, ms"),
    ("warm_ms", 1.0, "warm run, ms"),
    ("peak_growth_bytes", 1e6, "growth of memory, MB"),
)


def as_svg(found: Sequence[Figures]) -> str:
    """Draw horizontal bars, a panel a figure, systems in the order given from the top."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    rows = [item.to_json() for item in found if not item.failed][::-1]
    names = [row["system"] for row in rows]
    colours = [_OURS if name.startswith("STI") else _OTHERS for name in names]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.4, 0.6 + 0.27 * len(rows)), layout="constrained")
        for place, (key, unit, title) in enumerate(_PANELS):
            axes = figure.add_subplot(1, len(_PANELS), place + 1)
            values = [0.0 if row[key] is None else row[key] / unit for row in rows]
            axes.barh(range(len(rows)), values, color=colours, height=0.7)
            for line, value in enumerate(values):
                axes.text(value, line, f" {value:.0f}", va="center", fontsize=8)
            axes.set_yticks(range(len(rows)), names if place == 0 else [""] * len(rows))
            axes.set_xlim(0, max(values) * 1.18)
            axes.set_title(title, fontsize=9, loc="left")
            axes.tick_params(axis="y", length=0)
        return svg_of(figure)
