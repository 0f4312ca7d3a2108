"""An evaluation for programs: JSON and CSV. Pure.

In: an ``Evaluation``. Out: text that ends with a newline. Times are in seconds, sizes in bytes,
accuracies between 0 and 1.
"""

from __future__ import annotations

from dataclasses import asdict, astuple
from typing import Any

from shard_tools.evaluation.cells import Entry, Evaluation
from shard_tools.evaluation.report import needed
from sti.report.json_document import json_document
from sti.report.tables import comma_separated

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
    "recall",
    "recall_at_95",
    "why_not",
)


def as_json(found: Evaluation) -> str:
    """Everything, as one JSON document."""
    document: dict[str, Any] = {
        **asdict(found),
        "against_paper": asdict(found.against_paper),
        "against_all": asdict(found.against_all),
    }
    return json_document(document) + "\n"


def as_csv(found: Evaluation) -> str:
    """One line for each plan and baseline of each cell; what does not fit has ``why_not``."""
    rows: list[tuple[str, ...]] = []
    for cell in found.cells:
        limits = (repr(cell.latency_s), str(cell.preload_bytes))
        why_not = needed(cell) if cell.plan is None else ""
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
    """From ``depth`` to ``recall_at_95``."""
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
