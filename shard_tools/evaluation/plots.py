"""An evaluation as a picture: accuracy against the latency target, a panel for each preload.

In: an ``Evaluation``. Out: SVG text, the same to the byte for the same evaluation. Needs matplotlib
(extra ``plot``), which nothing else imports.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

from shard_tools.evaluation.cells import Cell, Comparison, Evaluation
from shard_tools.evaluation.report import size_of
from sti.errors import InputError
from sti.report.installation import missing

# Okabe and Ito's colours, which the colour-blind tell apart; line styles and markers differ, too.
_PLAN, _PAPER, _STRONGER, _FULL = "#0072B2", "#D55E00", "#009E73", "#555555"
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "sti",
    "font.family": "sans-serif",
    "font.size": 9.0,
    "figure.titlesize": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_PANEL_WIDTH, _HEIGHT = 3.1, 3.8


def require_matplotlib() -> None:
    """See that plots can be drawn, before anything is measured for them.

    Raises:
        InputError: matplotlib is missing.
    """
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise InputError(f"plots cannot be drawn: {missing('matplotlib')}") from error


def svg_of(figure: Any) -> str:
    """A matplotlib figure as SVG text, without what changes from day to day; inside ``STYLE``."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return stream.getvalue()


def as_svg(found: Evaluation) -> str:
    """Draw it.

    Raises:
        InputError: matplotlib is missing.
    """
    require_matplotlib()
    import matplotlib as mpl
    from matplotlib.figure import Figure

    preloads = list(dict.fromkeys(cell.preload_bytes for cell in found.cells))
    with mpl.rc_context(STYLE):
        size = (max(4.6, _PANEL_WIDTH * len(preloads) + 0.6), _HEIGHT)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(1, len(preloads), sharey=True, squeeze=False)[0]
        for panel, preload in zip(panels, preloads, strict=True):
            cells = [cell for cell in found.cells if cell.preload_bytes == preload]
            _draw(panel, sorted(cells, key=lambda cell: cell.latency_s), found)
            panel.set_title(f"preload: {size_of(preload)}", loc="left", fontsize=9.0)
            panel.set_xlabel(f"latency target{'' if found.runs else ' (simulated)'}, ms")
        unit = ", %" if found.metric == "accuracy" else ""
        panels[0].set_ylabel(f"{found.metric} on {found.data}{unit}")
        figure.suptitle(f"{found.pack} on {found.device}")
        handles, labels = panels[-1].get_legend_handles_labels()
        # Two rows: what the plan does, above what it is compared with.
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
        return svg_of(figure)


def _draw(panel: Any, cells: Sequence[Cell], found: Evaluation) -> None:
    scale = 100.0 if found.metric == "accuracy" else 1.0
    times = [cell.latency_s * 1e3 for cell in cells]

    def scaled(values: Iterable[float | None]) -> list[float]:
        return [math.nan if value is None else value * scale for value in values]

    full = found.full.measured * scale
    plans = [cell.plan for cell in cells]
    # What comes first stands first in the legend; what is on top is drawn last.
    measured = scaled(None if plan is None else plan.measured for plan in plans)
    panel.plot(times, measured, "-o", color=_PLAN, markersize=5, zorder=4, label="plan, measured")
    low = scaled(None if plan is None else plan.expected.low for plan in plans)
    high = scaled(None if plan is None else plan.expected.high for plan in plans)
    panel.fill_between(
        times, low, high, color=_PLAN, alpha=0.15, linewidth=0, label="plan, expected (95 %)"
    )
    panel.axhline(full, color=_FULL, linestyle=(0, (6, 4)), linewidth=1, label="full model")
    for in_paper, color, style, name in (
        (True, _PAPER, "--s", "best of the paper's baselines"),
        (False, _STRONGER, ":^", "best at one fidelity, our pipeline too"),
    ):
        values = scaled(_measured(cell.best(in_paper=in_paper)) for cell in cells)
        panel.plot(times, values, style, color=color, markersize=4, zorder=3, label=name)
    panel.set_xscale("log")
    panel.set_xticks(times, [f"{time:.3g}" for time in times])
    panel.set_xticks([], minor=True)
    panel.grid(axis="y", alpha=0.25, linewidth=0.6)


def _measured(baseline: Comparison | None) -> float | None:
    return None if baseline is None or baseline.entry is None else baseline.entry.measured
