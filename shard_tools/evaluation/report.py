"""An evaluation for people: Markdown with tables and a summary. Pure.

In: an ``Evaluation``. Out: text that ends with a newline; numbers carry their units.
"""

from __future__ import annotations

from dataclasses import astuple

from shard_tools.evaluation.cells import (
    SIGNIFICANT,
    Cell,
    Comparison,
    Entry,
    Evaluation,
    Forecast,
    Summary,
)
from sti.report.tables import markdown
from sti.report.wording import show_metric
from sti.units import format_size, format_time

_NONE = "-"


def as_markdown(found: Evaluation) -> str:
    """Headings, tables (plans, the best baselines, all of them, fidelities), and a summary."""
    parts = [
        f"# {found.pack}: plans and baselines",
        _preamble(found),
        "## Plans",
        _plans(found),
        "## Against the best baseline",
        "The best is chosen in hindsight, as measured. Differences"
        f"{' in points' if found.metric == 'accuracy' else ''}, ± one standard error "
        "(paired bootstrap).",
        _best_baselines(found),
        f"## All baselines: {found.metric}",
        _all_baselines(found),
        f"## One fidelity throughout: {found.metric}",
        _uniform(found),
    ]
    if found.full.scope is not None:
        parts += ["## Out-of-scope texts", _scopes(found)]
    parts += ["## Summary", _summary(found)]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def size_of(preload_bytes: int) -> str:
    """A preload, for tables and plots."""
    return format_size(preload_bytes) if preload_bytes else "none"


def _preamble(found: Evaluation) -> str:
    full = found.full
    cut = f" ({found.truncated} of them cut to what the model takes)" if found.truncated else ""
    how = "simulated"
    if found.runs:
        how = f"measured in {found.runs} runs each, except those of the layer pipeline"
    return (
        f"{found.metric.capitalize()} on {found.examples} examples of {found.data}{cut}, pack "
        f"{found.pack_id}. Each run is one text of up to {found.tokens} tokens on {found.device}; "
        f"times are {how}. "
        f"The full model, every shard at {full.bits:.0f} bits: "
        f"{show_metric(found.metric, full.measured)} in {format_time(full.latency.median_s)}, "
        f"reading {format_size(full.bytes_read)}. Targets are for 98 of 100 runs, so a median may "
        f"take at most the target divided by up to {found.jitter:.2f}. Memory is calculated: the "
        "lanes' buffers, the preload buffer and, for baselines, the weights held in memory."
    )


def _plans(found: Evaluation) -> str:
    clock = "" if found.runs else "simulated "
    header = ("target", "preload", "plan", "bits", "expected", "measured", f"{clock}median")
    rows = [[*_limits(cell), *_plan_row(cell, found.metric)] for cell in found.cells]
    return markdown([*header, f"{clock}95th percentile", "read", "memory"], rows)


def _plan_row(cell: Cell, metric: str) -> list[str]:
    entry = cell.plan
    if entry is None:
        return [needed(cell), *(_NONE for _ in range(7))]
    low, high = (show_metric(metric, value) for value in (entry.expected.low, entry.expected.high))
    return [
        _size(entry),
        f"{entry.bits:.2f}",
        f"{show_metric(metric, entry.expected.value)} ({low.removesuffix(' %')} to {high})",
        show_metric(metric, entry.measured),
        format_time(entry.latency.median_s),
        format_time(entry.latency.p95_s),
        format_size(entry.bytes_read),
        format_size(entry.memory_bytes),
    ]


def _best_baselines(found: Evaluation) -> str:
    """Each cell's plan beside the best of the paper's baselines, and the best of all."""
    header = ["target", "preload", "plan"]
    for whose in ("best of the paper's", "best with ours, too"):
        header += [whose, "submodel", found.metric, "plan ahead by"]
    rows = []
    for cell in found.cells:
        row = [*_limits(cell), _measured(cell.plan, found.metric)]
        for in_paper in (True, False):
            row += _compared(cell.best(in_paper=in_paper), found.metric)
        rows.append(row)
    return markdown(header, rows)


def _compared(comparison: Comparison | None, metric: str) -> list[str]:
    """A baseline, what it ran, its metric, and how far the plan is ahead."""
    if comparison is None or comparison.entry is None:
        return ["none fits", _NONE, _NONE, _NONE]
    entry = comparison.entry
    measured = show_metric(metric, entry.measured)
    return [comparison.name, _size(entry), measured, _ahead(comparison, metric)]


def _ahead(comparison: Comparison, metric: str) -> str:
    if comparison.ahead is None or comparison.error is None:
        return _NONE
    return f"{_points(comparison.ahead, metric, sign='+')} ± {_points(comparison.error, metric)}"


def _unit(metric: str) -> str:
    return " points" if metric == "accuracy" else ""


def _points(value: float, metric: str, *, sign: str = "") -> str:
    """A difference: in points of a percent for an accuracy."""
    return f"{value * 100:{sign}.2f}" if metric == "accuracy" else f"{value:{sign}.4f}"


def _all_baselines(found: Evaluation) -> str:
    """A table for each preload: a line for each baseline, a column for each target."""
    parts = []
    for preload in dict.fromkeys(cell.preload_bytes for cell in found.cells):
        cells = [cell for cell in found.cells if cell.preload_bytes == preload]
        header = [f"preload {size_of(preload)}", *(format_time(cell.latency_s) for cell in cells)]
        rows = [["plan", *(_measured(cell.plan, found.metric) for cell in cells)]]
        for lines in zip(*(cell.baselines for cell in cells), strict=True):
            rows.append([lines[0].name, *(_measured(item.entry, found.metric) for item in lines)])
        parts.append(markdown(header, rows))
    return "\n".join(parts)


def _uniform(found: Evaluation) -> str:
    """A line for each submodel, a column for each fidelity, the best first."""
    bits = sorted({round(entry.bits) for entry in found.uniform}, reverse=True)
    lines: dict[str, dict[int, str]] = {}
    for entry in reversed(found.uniform):
        shown = show_metric(found.metric, entry.measured)
        lines.setdefault(_size(entry), {})[round(entry.bits)] = shown
    rows = [[size, *(line[number] for number in bits)] for size, line in lines.items()]
    return markdown(["submodel", *(f"{number} bits" for number in bits)], rows)


def _scopes(found: Evaluation) -> str:
    """What the thresholds of the pack do, plan by plan."""
    rows = [["full model", "", *_scope_row(found.full)]]
    rows += [[*_limits(cell), *_scope_row(cell.plan)] for cell in found.cells]
    header = ["target", "preload", "in scope, accepted", "out of scope, recognised"]
    header.append("recognised where 95 % are accepted")
    return markdown(header, rows)


def _scope_row(entry: Entry | None) -> list[str]:
    if entry is None or entry.scope is None:
        return [_NONE, _NONE, _NONE]
    return [f"{share * 100:.1f} %" for share in astuple(entry.scope)]


def _measured(entry: Entry | None, metric: str) -> str:
    """A dash where nothing fits."""
    return _NONE if entry is None else show_metric(metric, entry.measured)


def _limits(cell: Cell) -> list[str]:
    return [format_time(cell.latency_s), size_of(cell.preload_bytes)]


def _size(entry: Entry) -> str:
    return f"{entry.depth} x {entry.width}"


def needed(cell: Cell) -> str:
    """What to say where a cell has no plan."""
    return "infeasible" if cell.needed_s is None else f"needs {format_time(cell.needed_s)}"


def _summary(found: Evaluation) -> str:
    lines = [
        _summed("The paper's baselines", found.against_paper, found),
        _summed("All baselines, with our pipeline at one fidelity", found.against_all, found),
    ]
    if found.runs:
        plans, medians, slowest = found.kept
        lines.append(
            f"Measured times of {plans} plans: the median meets the target in {medians}, the 95th "
            f"percentile in {slowest}."
        )
    for what, judged in (("plans", found.forecast_plans), ("all runs", found.forecast_all)):
        if judged is not None:
            lines.append(_forecast(what, judged, found.metric))
    return "\n".join(f"- {line}" for line in lines)


def _summed(baselines: str, summary: Summary, found: Evaluation) -> str:
    text = (
        f"{baselines}: better than the plan by more than {SIGNIFICANT:.0f} standard errors "
        f"in {summary.beaten} of {summary.compared} cells"
    )
    if summary.alone:
        text += f" (in {summary.alone} more, none of them fits)"
    if summary.advantage is None:
        return f"{text}; nowhere is the best of them far below the full model."
    unit = _unit(found.metric)
    return (
        f"{text}; in the {summary.hard} where the best of them is more than 2 points below the "
        f"full model, the plan is ahead by {_points(summary.advantage, found.metric)}{unit} on "
        f"average, {_points(summary.median_advantage or 0.0, found.metric)} in the median."
    )


def _forecast(what: str, judged: Forecast, metric: str) -> str:
    return (
        f"Expected against measured, {what} ({judged.plans} different): mean absolute error "
        f"{_points(judged.mean_error, metric)}{_unit(metric)}; {judged.inside} within the interval."
    )
