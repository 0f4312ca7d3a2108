"""An evaluation as text: Markdown for people, CSV and JSON for programs. Pure.

In: an ``Evaluation``. Out: text that ends with a newline. In CSV and JSON times are in seconds,
sizes in bytes, accuracies between 0 and 1; in Markdown they carry their units.
"""

from __future__ import annotations

import json
from dataclasses import asdict, astuple
from typing import Any

from shard_tools.evaluation.cells import (
    SIGNIFICANT,
    Cell,
    Comparison,
    Entry,
    Evaluation,
    Forecast,
    Summary,
)
from sti.report.tables import comma_separated, markdown
from sti.report.wording import show_metric
from sti.units import format_size, format_time

_NONE = "-"
_CSV_HEADER = (
    "latency_target_s",
    "preload_bytes",
    "name",
    "in_paper",
    "depth",
    "width",
    "bits",
    "expected",
    "expected_low",
    "expected_high",
    "measured",
    "plan_ahead",
    "plan_ahead_error",
    "latency_median_s",
    "latency_p95_s",
    "latency_measured",
    "bytes_read",
    "memory_bytes",
    "accepted",
    "recalled",
    "recalled_at_95",
    "why_not",
)


def as_json(found: Evaluation) -> str:
    """Everything, as one JSON document."""
    document: dict[str, Any] = {
        **asdict(found),
        "against_paper": asdict(found.against_paper),
        "against_all": asdict(found.against_all),
    }
    return json.dumps(document, ensure_ascii=False, allow_nan=False, indent=1) + "\n"


def as_csv(found: Evaluation) -> str:
    """One line for each plan and baseline of each cell; what does not fit has ``why_not``."""
    rows: list[tuple[str, ...]] = []
    for cell in found.cells:
        limits = (repr(cell.latency_s), str(cell.preload_bytes))
        why_not = _needed(cell) if cell.plan is None else ""
        rows.append((*limits, "plan", "", *_csv_entry(cell.plan, None, None), why_not))
        rows += [
            (
                *limits,
                baseline.name,
                str(baseline.in_paper).lower(),
                *_csv_entry(baseline.entry, baseline.ahead, baseline.error),
                baseline.why_not,
            )
            for baseline in cell.baselines
        ]
    return comma_separated(_CSV_HEADER, rows)


def _csv_entry(entry: Entry | None, ahead: float | None, error: float | None) -> list[str]:
    """From ``depth`` to ``recalled_at_95``."""
    if entry is None:
        return [""] * (len(_CSV_HEADER) - 5)
    expected, latency, scope = entry.expected, entry.latency, entry.scope
    return [
        str(entry.depth),
        str(entry.width),
        f"{entry.bits:.4f}",
        *(f"{value:.6f}" for value in (expected.value, expected.low, expected.high)),
        f"{entry.measured:.6f}",
        *("" if value is None else f"{value:.6f}" for value in (ahead, error)),
        f"{latency.median_s:.6f}",
        f"{latency.p95_s:.6f}",
        str(latency.measured).lower(),
        str(entry.bytes_read),
        str(entry.memory_bytes),
        *([""] * 3 if scope is None else (f"{share:.6f}" for share in astuple(scope))),
    ]


def as_markdown(found: Evaluation) -> str:
    """Headings, tables (plans, the best baselines, all of them, fidelities), and a summary."""
    parts = [
        f"# {found.pack}: plans and baselines",
        _preamble(found),
        "## Plans",
        _plans(found),
        "## Against the best baseline",
        f"Best as measured, in hindsight. Differences{_unit(found.metric)}, ± one standard error "
        "(paired bootstrap).",
        _duels(found),
        f"## All baselines: {found.metric}",
        _all_baselines(found),
        f"## One fidelity throughout: {found.metric}",
        _uniform(found),
    ]
    if found.full.scope is not None:
        parts += ["## Texts out of scope", _scopes(found)]
    parts += ["## Summary", _summary(found)]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def size_of(preload_bytes: int) -> str:
    """A preload, for tables and plots."""
    return format_size(preload_bytes) if preload_bytes else "none"


def _preamble(found: Evaluation) -> str:
    full = found.full
    cut = f" ({found.truncated} of them cut to what the model takes)" if found.truncated else ""
    how = "the clock is simulated"
    if found.runs:
        how = f"the clock is real, {found.runs} runs each, but for the layer pipeline's"
    return (
        f"{found.metric.capitalize()} on {found.examples} examples of {found.data}{cut}, pack "
        f"{found.pack_id}. One text of up to {found.tokens} tokens a run on {found.device}; {how}. "
        f"The full model, every shard at {full.bits:.0f} bits: "
        f"{show_metric(found.metric, full.measured)} in {format_time(full.latency.median_s)}, "
        f"reading {format_size(full.bytes_read)}. Targets hold for 95 of 100 runs: a median may "
        f"take the target divided by {found.jitter:.2f}. Memory is what the lanes' buffers, the "
        "preload and, for baselines, the held weights come to; it is computed."
    )


def _plans(found: Evaluation) -> str:
    clock = "" if found.runs else "simulated "
    header = ("target", "preload", "plan", "bits", "expected", "measured", f"{clock}median")
    rows = [[*_limits(cell), *_plan_row(cell, found.metric)] for cell in found.cells]
    return markdown([*header, f"{clock}95th percentile", "read", "memory"], rows)


def _plan_row(cell: Cell, metric: str) -> list[str]:
    entry = cell.plan
    if entry is None:
        return [_needed(cell), *(_NONE for _ in range(7))]
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


def _duels(found: Evaluation) -> str:
    header = ["target", "preload", "plan"]
    for whose in ("best of the paper's", "best with ours, too"):
        header += [whose, "submodel", found.metric, "plan ahead by"]
    rows = []
    for cell in found.cells:
        row = [*_limits(cell), _measured(cell.plan, found.metric)]
        for in_paper in (True, False):
            row += _duel(cell.best(in_paper=in_paper), found.metric)
        rows.append(row)
    return markdown(header, rows)


def _duel(baseline: Comparison | None, metric: str) -> list[str]:
    if baseline is None or baseline.entry is None:
        return ["none fits", _NONE, _NONE, _NONE]
    entry = baseline.entry
    return [
        baseline.name,
        _size(entry),
        show_metric(metric, entry.measured),
        _ahead(baseline, metric),
    ]


def _ahead(baseline: Comparison, metric: str) -> str:
    if baseline.ahead is None or baseline.error is None:
        return _NONE
    return f"{_points(baseline.ahead, metric, sign='+')} ± {_points(baseline.error, metric)}"


def _unit(metric: str) -> str:
    return " in points" if metric == "accuracy" else ""


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
            rows.append([lines[0].name, *(_measured(r.entry, found.metric) for r in lines)])
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
    header = ["target", "preload", "in scope, accepted", "out of scope, told"]
    header.append("told where 95 % are accepted")
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


def _needed(cell: Cell) -> str:
    return "infeasible" if cell.needed_s is None else f"needs {format_time(cell.needed_s)}"


def _summary(found: Evaluation) -> str:
    lines = [
        _summed("the paper's baselines", found.against_paper, found),
        _summed("all baselines, our pipeline at one fidelity included", found.against_all, found),
    ]
    if found.runs:
        plans, medians, slowest = found.kept
        lines.append(
            f"Targets of {plans} plans, on the real clock: kept by the median in {medians}, by the "
            f"95th percentile in {slowest}."
        )
    for what, judged in (("plans", found.forecast_plans), ("all that was run", found.forecast_all)):
        if judged is not None:
            lines.append(_forecast(what, judged, found.metric))
    return "\n".join(f"- {line}" for line in lines)


def _summed(whom: str, summary: Summary, found: Evaluation) -> str:
    text = (
        f"Against {whom}: better than the plan by more than {SIGNIFICANT:.0f} standard errors in "
        f"{summary.beaten} of {summary.compared} cells"
    )
    if summary.alone:
        text += f" (in {summary.alone} more, none of them fits)"
    if summary.advantage is None:
        return f"{text}; nowhere is the best of them far below the full model."
    unit = " points" if found.metric == "accuracy" else ""
    return (
        f"{text}; in the {summary.hard} where the best of them is more than 2 points below the "
        f"full model, the plan is ahead by {_points(summary.advantage, found.metric)}{unit} on "
        f"average, {_points(summary.median_advantage or 0.0, found.metric)} in the median."
    )


def _forecast(what: str, judged: Forecast, metric: str) -> str:
    unit = " points" if metric == "accuracy" else ""
    return (
        f"Expected against measured, {what} ({judged.plans} different): mean absolute error "
        f"{_points(judged.mean_error, metric)}{unit}; {judged.inside} within the interval."
    )
