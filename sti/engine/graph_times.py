"""What runs through a graph take: estimated before they have run, then as they were.

In: the plan that is held, the workload of a run, what runs took. Out: the seconds that the next one
usually takes, and at most; the plan as it is predicted to run. Knows nothing of files or sessions.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from sti.device.lanes import COMPUTE, SEQUENTIAL
from sti.engine.machine import Machine
from sti.model.manifest import Manifest
from sti.model.workload import Workload
from sti.pipeline.trace import BLOCKS
from sti.planning.plan import Plan, Target
from sti.planning.span import Span

_KEPT = 32
"""Runs whose times say what the next one takes."""
_SHARE, _ROOM = 0.9, 1.1
"""The next run takes at most what this share of them took, times this factor."""


class GraphTimes:
    """The times of one plan's runs through its graph. Not thread-safe.

    Args:
        manifest: of the pack.
        machine: says what a run would take.
    """

    def __init__(self, manifest: Manifest, machine: Machine) -> None:
        self._manifest, self._machine = manifest, machine
        self._estimates: dict[Workload, float] = {}
        self._ratios: deque[float] = deque(maxlen=_KEPT)
        self._is_fresh = False

    def forget(self) -> None:
        """Another plan is held from now on."""
        self._estimates.clear()
        self._ratios.clear()

    def opened(self) -> None:
        """The graph was opened: its next run reads the weights from their file, and says nothing of
        later ones.
        """
        self._is_fresh = True

    def planned(self, plan: Plan, workload: Workload, limits: Target) -> Plan | None:
        """The plan as its run is predicted; None where that may take longer than the latency.

        Args:
            plan: that is held.
            limits: what the run aims at.
        """
        usual_s, most_s = self._times(plan, workload)
        if limits.latency_s is not None and most_s > limits.latency_s:
            return None
        predicted = plan.predicted
        if predicted is not None:
            predicted = replace(
                predicted,
                total_s=usual_s,
                stall_s=0.0,
                bytes_read=0,
                limited_by=COMPUTE,
                lanes={COMPUTE: (Span(0.0, usual_s, BLOCKS),)},
            )
        return replace(plan, workload=workload, predicted=predicted, target=limits)

    def note(self, workload: Workload, run_s: float) -> None:
        """Take note of what a run took.

        Args:
            workload: as of ``planned``.
            run_s: seconds, without those of planning.
        """
        estimate_s = self._estimates.get(workload)
        if self._is_fresh:
            self._is_fresh = False
        elif estimate_s:
            self._ratios.append(run_s / estimate_s)

    def _times(self, plan: Plan, workload: Workload) -> tuple[float, float]:
        """Seconds that a run usually takes, and at most."""
        estimate_s = self._estimates.get(workload)
        if estimate_s is None:
            from sti.planning.prediction import predict  # few engines hold a graph

            alone = replace(plan, workload=workload, threads=SEQUENTIAL, predicted=None)
            found = predict(self._manifest, self._machine.speeds.profile, alone)
            estimate_s = self._estimates[workload] = found.busy_s[COMPUTE]
        if not self._ratios:
            return estimate_s, estimate_s * _ROOM
        ordered = sorted(self._ratios)
        most = ordered[int(_SHARE * (len(ordered) - 1))]
        return estimate_s * ordered[len(ordered) // 2], estimate_s * most * _ROOM
