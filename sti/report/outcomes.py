"""What other targets would bring, as text and as JSON. Pure.

In: a plan, and for each other target the plan for it, or why there is none. Out: a table, or JSON
members. Knows nothing of how plans are made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sti.errors import InfeasibleError
from sti.model.manifest import Manifest
from sti.planning.nearby_targets import LESS_SHARE, plan_change
from sti.planning.plan import Plan, Target
from sti.planning.prediction import mean_bits
from sti.report.json_document import error_members
from sti.report.tables import aligned
from sti.report.wording import show_metric, signed
from sti.units import exact_share, format_size, format_time


class Outcome(NamedTuple):
    """What one other target would bring."""

    name: str
    """As ``sti.planning.nearby_targets`` names it."""
    target: Target
    found: Plan | InfeasibleError
    """The plan, with a prediction, or why there is none."""

    def to_json(self, plan: Plan) -> dict[str, Any]:
        """A JSON object. ``plan``: what it is compared with."""
        members: dict[str, Any] = {"name": self.name, "target": self.target._asdict()}
        if isinstance(self.found, InfeasibleError):
            code = self.found.exit_code
            return {**members, "plan": None, **error_members(self.found, str(self.found), code)}
        found = self.found.predicted
        assert found is not None, "plans that are compared have predictions"
        summary = {
            "depth": self.found.depth,
            "width": self.found.width,
            "total_s": found.total_s,
            "bytes_read": found.bytes_read,
            "loss": found.loss,
            "quality": None if found.quality is None else found.quality._asdict(),
            "change": plan_change(plan, self.found)._asdict(),
        }
        return {**members, "plan": summary, "error": None}


class OutcomeTable(NamedTuple):
    """A table with a row for each target, the one that was asked for first."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str]
    """What it does not show."""


def outcomes_text(manifest: Manifest, plan: Plan, outcomes: Sequence[Outcome]) -> str:
    """``outcome_table`` as text, the notes below the table."""
    header, rows, notes = outcome_table(manifest, plan, outcomes)
    return aligned(header, rows) + "".join(f"{line}\n" for line in notes)


def outcome_table(manifest: Manifest, plan: Plan, outcomes: Sequence[Outcome]) -> OutcomeTable:
    """What plans for other targets change in quality, reads and time."""
    quality = manifest.quality
    what = "loss" if quality is None else quality.metric
    held = "preload" if plan.target.memory_bytes is None else "memory"
    header = ["latency", held, "layers x slices", "bits", what, "reads", "predicted"]
    rows = [_row(manifest, plan, plan.target, None)]
    notes = []
    for outcome in outcomes:
        if isinstance(outcome.found, Plan):
            rows.append(_row(manifest, outcome.found, outcome.target, plan))
        else:
            rows.append([*_asked(outcome.target), "refused", *["-"] * (len(header) - 3)])
            notes.append(_refusal(outcome.target, outcome.found))
    if plan.target.latency_s is None:
        notes.append("no latency was asked for, so there is none to add")
        less = exact_share(LESS_SHARE)
        notes.append(f"the last target has {less} less than what is promised of the plan")
    return OutcomeTable(header, rows, notes)


def _row(manifest: Manifest, plan: Plan, target: Target, before: Plan | None) -> list[str]:
    """A plan, or with ``before`` what differs from it."""
    predicted = plan.predicted
    assert predicted is not None, "plans that are shown have predictions"
    fixed = [*_asked(target), f"{plan.depth} x {plan.width}", f"{mean_bits(manifest, plan):.2f}"]
    if before is None:
        value = f"{predicted.loss:.4g}"
        if predicted.quality is not None:
            value = show_metric(predicted.quality.metric, predicted.quality.value)
        reads, took = format_size(predicted.bytes_read), format_time(predicted.total_s)
        return [*fixed, value, reads, took]
    change = plan_change(before, plan)
    value = signed(change.loss, lambda loss: f"{loss:.4g}")
    if change.metric is not None and predicted.quality is not None:
        metric = predicted.quality.metric
        value = signed(change.metric, lambda size: show_metric(metric, size, difference=True))
    return [
        *fixed,
        value,
        signed(change.bytes_read, lambda size: format_size(int(size))),
        signed(change.total_s, format_time),
    ]


def _held_words(target: Target) -> str:
    if target.memory_bytes is not None:
        return f"{format_size(target.memory_bytes)} of memory"
    return f"{format_size(target.preload_bytes)} of preload" if target.preload_bytes else ""


def _asked(target: Target) -> list[str]:
    latency = "-" if target.latency_s is None else format_time(target.latency_s)
    held = target.preload_bytes if target.memory_bytes is None else target.memory_bytes
    return [latency, format_size(held) if held else "-"]


def _refusal(target: Target, error: InfeasibleError) -> str:
    """Why there is no plan, in a line."""
    asked = " and ".join(
        part
        for part in (
            "" if target.latency_s is None else format_time(target.latency_s),
            _held_words(target),
        )
        if part
    )
    if error.limit == "latency":
        return f"{asked}: refused, the least latency is {format_time(error.needed)}"
    if error.limit == "quality":
        return f"{asked}: refused, it leaves less than the floor"
    if error.limit == "memory":
        return f"{asked}: refused, the least memory is {format_size(round(error.needed))}"
    return f"{asked}: refused, memory does not hold the preload"
