"""From what was measured of each plan and baseline to the cells of an evaluation. Pure.

In: planned cells, answers by precision, latencies by what was executed. Out: entries and cells.
Knows nothing of how anything was measured, or of formats.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

from shard_tools.evaluation.answers import Answers
from shard_tools.evaluation.baselines import Baseline, Contender, memory_bytes
from shard_tools.evaluation.cells import Cell, Comparison, Entry, Forecast, Scope, forecast
from shard_tools.evaluation.planned_evaluation import PlannedCell
from shard_tools.evaluation.timing import Latency
from shard_tools.measuring.forward import Precision, precision_of
from shard_tools.measuring.metrics import Score
from sti.model.manifest import Manifest
from sti.planning.prediction import mean_bits


@dataclass(frozen=True, slots=True)
class Findings:
    """What was measured of everything that was run."""

    manifest: Manifest
    answers: Mapping[Precision, Answers]
    latencies: Mapping[Hashable, Latency]
    """By ``Contender.execution``."""

    def entry(self, name: str, contender: Contender) -> Entry:
        """What was found of one plan."""
        return Entry(
            name=name,
            depth=contender.plan.depth,
            width=contender.plan.width,
            bits=mean_bits(self.manifest, contender.plan),
            expected=contender.quality,
            measured=self._score(contender).value,
            latency=self.latencies[contender.execution],
            bytes_read=contender.bytes_read,
            memory_bytes=memory_bytes(self.manifest, contender),
            scope=self._scope(contender),
        )

    def cell(self, planned: PlannedCell) -> Cell:
        """What was found of a cell's plan and its baselines."""
        target, plan = planned.target, planned.plan
        assert target.latency_s is not None
        return Cell(
            latency_s=target.latency_s,
            preload_bytes=target.preload_bytes,
            plan=None if plan is None else self.entry("plan", plan),
            needed_s=planned.needed_s,
            baselines=tuple(self._compared(item, plan) for item in planned.baselines),
        )

    def forecast_of(self, contenders: Iterable[Contender]) -> Forecast | None:
        """Expected against measured quality, of contenders that differ in what they compute."""
        distinct = {precision_of(item.plan, self.manifest): item for item in contenders}
        return forecast(
            (item.quality, self.answers[precision].score.value)
            for precision, item in distinct.items()
        )

    def _compared(self, baseline: Baseline, plan: Contender | None) -> Comparison:
        entry = ahead = error = None
        if baseline.best is not None:
            entry = self.entry(baseline.name, baseline.best)
            if plan is not None:
                ahead, error = self._score(plan).ahead(self._score(baseline.best))
        return Comparison(baseline.name, baseline.in_paper, entry, baseline.why_not, ahead, error)

    def _answers(self, contender: Contender) -> Answers:
        return self.answers[precision_of(contender.plan, self.manifest)]

    def _score(self, contender: Contender) -> Score:
        return self._answers(contender).score

    def _scope(self, contender: Contender) -> Scope | None:
        found, rejection = self._answers(contender).confidences, self.manifest.rejection
        if found is None or rejection is None:
            return None
        return found.scope(rejection.threshold(contender.loss))
