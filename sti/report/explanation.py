"""Why a plan is as it is, as text and as JSON. Pure.

In: what ``sti.planning`` says of a plan's blocks and lanes, and plans for other targets. Out:
tables that fit a terminal of 80 columns, or JSON members. Knows nothing of how plans are made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sti.device.lanes import LANES
from sti.model.manifest import Manifest
from sti.model.quality import INDISTINCT
from sti.model.workload import Workload
from sti.planning.lane_limits import WAITING, LaneLimits
from sti.planning.next_planes import BlockBits, PlaneChange
from sti.planning.plan import QUALITY, Plan
from sti.report.outcomes import Outcome, outcomes_text
from sti.report.tables import aligned
from sti.report.wording import show_metric
from sti.units import exact_share, format_time

_DIGITS = {"accuracy": 2, "spearman": 4}
"""Behind the point, of a difference that a single block makes in a metric."""
_REASONS = {"asked": "asked for", "unnoticed": "not noticed"}
"""Reasons whose words are others."""
_DIFFERS = 0.01
"""Share by which a given plan's own prediction may differ before that is said."""
GIVEN = "not compared, because its fidelities were given"
"""Why a plan is compared with none for other targets."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a plan is as it is."""

    manifest: Manifest
    plan: Plan
    """Has a prediction."""
    made_for: Workload
    """What the plan was decided for; one plan for all lengths may be shown for another."""
    blocks: Sequence[BlockBits]
    """In the order of execution."""
    limits: LaneLimits
    outcomes: Sequence[Outcome] | None
    """Of other targets; None where the plan or its fidelities were given."""

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        limits = self.limits
        given = self.outcomes is None
        return {
            "made_for": self.made_for._asdict(),
            "blocks": [_block_json(block) for block in self.blocks],
            "limits": {
                **limits._asdict(),
                "lanes": {lane: use._asdict() for lane, use in limits.lanes.items()},
                "waits": [wait._asdict() for wait in limits.waits],
            },
            "targets": [outcome.to_json(self.plan) for outcome in self.outcomes or ()],
            "no_targets": GIVEN if given else None,
        }

    def to_text(self) -> str:
        """Tables with what they say above them."""
        parts = [self._more(), self._less(), *self._limits(), self._targets()]
        return "\n".join(part for part in parts if part).rstrip("\n")

    def block_table(self) -> tuple[list[str], list[list[str]]]:
        """What one plane more would buy and cost: header and a row for each block."""
        header = ["layer", "block", "bits", "range", "plane", *self._units(), "why no more"]
        rows = [
            [
                *_named(block),
                f"{block.bits:.2f}",
                _range(block),
                *self._change(block.more),
                _why(block),
            ]
            for block in self.blocks
        ]
        return header, rows

    def _more(self) -> str:
        header, rows = self.block_table()
        title = "One plane more for a block: what it would buy, what it costs a run, why not"
        notes = "".join(f"{note}\n" for note in self.block_notes())
        return f"{title}\n\n{aligned(header, rows)}{notes}"

    def block_notes(self) -> list[str]:
        """What the reasons in ``block_table`` mean, where that needs to be said."""
        found, quality = {block.reason for block in self.blocks}, self.manifest.quality
        notes = []
        if quality is None:
            notes.append("loss %: of what the submodel loses with the lowest bits throughout")
        if "late" in found:
            share = exact_share(self.plan.target.quantile)
            notes.append(f"late: in what is promised of {share} of the runs, not in a usual one")
            if self.made_for != self.plan.workload:
                notes.append(f"and with {self.made_for.words}, for which the plan was made")
        if "unnoticed" in found and quality is not None:
            least = show_metric(
                quality.metric,
                INDISTINCT * quality.residual,
                difference=True,
                digits=_DIGITS[quality.metric],
            )
            notes.append(
                f"not noticed: alone it would raise the {quality.metric} by {least} at most"
            )
        elif "unnoticed" in found:
            notes.append("not noticed: alone it would not lower the expected loss")
        if "not considered" in found:
            notes.append(
                "not considered: in time, but no plan that was compared has just this more"
            )
        return notes

    def _less(self) -> str:
        rows = [[*_named(block), *self._change(block.less)] for block in self.blocks if block.less]
        if not rows:
            return "One plane less: there is none; every block has the lowest\n"
        header = ["layer", "block", "plane", *self._units()]
        others = "" if len(rows) == len(self.blocks) else "other blocks have the lowest alone\n"
        title = "One plane less: what it would lose, what it saves a run"
        return f"{title}\n\n{aligned(header, rows)}{others}"

    def _units(self) -> list[str]:
        quality = self.manifest.quality
        if quality is None:
            return ["loss %", "KB", "ms"]
        return ["points" if quality.metric == "accuracy" else quality.metric, "KB", "ms"]

    def _change(self, change: PlaneChange | None) -> list[str]:
        """Plane, quality, bytes and time."""
        if change is None:
            return ["-"] * 4
        if change.metric is None:
            value = _signed(100.0 * change.loss_share, 2)
        elif self._units()[0] == "points":
            value = _signed(100.0 * change.metric, _DIGITS["accuracy"])
        else:
            value = _signed(change.metric, _DIGITS["spearman"])
        size, took = _signed(change.bytes_read / 1e3, 1), _signed(1e3 * change.total_s, 2)
        return [str(change.bits), value, size, took]

    def lane_table(self) -> tuple[list[str], list[list[str]]]:
        """How long each lane works and waits: header and rows, the whole run in the last."""
        limits = self.limits
        header = ["", "busy ms", "waiting ms", "longest chain ms"]
        rows = [[lane, *(_ms(seconds) for seconds in use)] for lane, use in limits.lanes.items()]
        rows.append(["tokenizer", "-", "-", _ms(limits.text_s)])
        rows.append([WAITING, "-", "-", _ms(limits.beyond_s)])
        rows.append(["together", "-", "-", _ms(limits.total_s)])
        return header, rows

    def limit_words(self) -> str:
        """What limits the run."""
        predicted, lane = self.plan.predicted, self.limits.limited_by
        assert predicted is not None, "plans that are explained have predictions"
        if predicted.limited_by == QUALITY:
            return f"Nothing better is in the pack; what it takes is limited by {lane}"
        return f"The run is limited by {lane}"

    def _limits(self) -> list[str]:
        limits, predicted, said = self.limits, self.plan.predicted, self.limit_words()
        assert predicted is not None, "plans that are explained have predictions"
        header, rows = self.lane_table()
        notes = (
            "longest chain: each part waits for the one before; together they are the run\n"
            f"{WAITING}: what runs take beyond their lanes, by what was measured\n"
        )
        if abs(limits.total_s - predicted.total_s) > _DIFFERS * predicted.total_s:
            notes += (
                f"the plan says {format_time(predicted.total_s)}, of when or where it was made\n"
            )
        return [f"{said}\n\n{aligned(header, rows)}{notes}", self._waits()]

    def _waits(self) -> str:
        waits = self.limits.waits
        if not waits:
            return "The caller never waits for another thread\n"
        total = format_time(sum(wait.wait_s for wait in waits))
        rows = [
            [
                "-" if wait.layer is None else str(wait.layer),
                wait.kind or "head",
                _ms(wait.wait_s),
                *(_ms(wait.lanes[lane]) if lane in wait.lanes else "-" for lane in LANES),
            ]
            for wait in waits
        ]
        header = ["layer", "block", "ms", *(f"for {lane}" for lane in LANES)]
        return f"The caller waits {total} for other threads\n\n{aligned(header, rows)}"

    def _targets(self) -> str:
        if self.outcomes is None:
            return f"Other targets: {GIVEN}\n"
        table = outcomes_text(self.manifest, self.plan, self.outcomes)
        heading = "Other targets: the plans for them; quality, reads and time as what they change"
        return f"{heading}\n\n{table}"


def _block_json(block: BlockBits) -> dict[str, Any]:
    changes = {"more": block.more, "less": block.less}
    members = {name: change and change._asdict() for name, change in changes.items()}
    return {**block._asdict(), **members}


def _named(block: BlockBits) -> list[str]:
    return [str(block.layer), block.kind]


def _range(block: BlockBits) -> str:
    if block.least_bits == block.most_bits:
        return str(block.least_bits)
    return f"{block.least_bits}-{block.most_bits}"


def _why(block: BlockBits) -> str:
    if block.late_s is not None:
        return f"late by {format_time(block.late_s)}"
    return _REASONS.get(block.reason, block.reason)


def _signed(value: float, digits: int) -> str:
    """A difference with its sign; 0 where it is rounded to that."""
    shown = f"{value:+.{digits}f}"
    return shown if any(digit in shown for digit in "123456789") else "0"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.2f}"
