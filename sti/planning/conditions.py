"""What the times of a plan follow from: a machine, a workload, what runs take beyond it. Pure.

In: a device profile, a workload, the terms of a target. Out: typical and promised seconds of
simulated runs. Plans that change are decided under the conditions they are predicted with; one plan
for all lengths of text is decided under others.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

from sti.device.lanes import LaneThreads
from sti.device.profile import DeviceProfile
from sti.model.fidelity import groups_of
from sti.model.manifest import Manifest
from sti.model.workload import Workload
from sti.planning.choice import Terms
from sti.planning.cost_model import run_costs, spread
from sti.planning.expected_loss import submodel_of
from sti.planning.extra_time import Extra
from sti.planning.plan import Plan, Prediction, Target
from sti.planning.prediction import Run, predict, simulate_run

_NONE = Extra()


class Conditions(NamedTuple):
    """What a plan was predicted with, or decided with."""

    profile: DeviceProfile
    """The machine, with its lanes as fast as they were taken to be."""
    workload: Workload
    terms: Terms
    """Of the target; its ``most_loss`` is not used here."""

    def run(self, manifest: Manifest, plan: Plan, threads: LaneThreads | None = None) -> Run:
        """Simulate a run of a plan, without what runs take beyond it.

        Args:
            plan: one that fits the manifest (``sti.planning.check.check_plan``).
            threads: who runs it; None: whom the plan names.

        Raises:
            PlanError: the plan's submodel is not in the pack.
            ProfileError: the profile lacks a graph or a fidelity of the pack, or the threads.
        """
        by = threads or plan.threads
        costs = run_costs(manifest, self.profile, self.workload, plan.width, threads=by)
        groups = groups_of(manifest, submodel_of(manifest, plan))
        return simulate_run(costs, groups, plan.steps, read_ahead=plan.read_ahead)

    def predict(self, manifest: Manifest, plan: Plan) -> Prediction:
        """What is expected of a plan, with typical seconds; raises what ``run`` does."""
        found = predict(manifest, self.profile, replace(plan, workload=self.workload))
        extra = self.terms.extras.get(plan.threads.name, _NONE)
        return replace(found, total_s=extra.total_s(found.total_s))

    def spread(self, threads: LaneThreads) -> float:
        """Promised seconds over typical ones, of runs under these threads; at least 1."""
        return self.terms.spreads.get(threads.name, 1.0)

    def typical_s(self, run: Run) -> float:
        """Typical seconds of such a run."""
        return self.terms.extras.get(run.costs.threads.name, _NONE).total_s(run.total_s)

    def promised_s(self, run: Run) -> float:
        """Seconds within which the target's share of them end."""
        return self.typical_s(run) * self.spread(run.costs.threads)


def as_measured(profile: DeviceProfile, workload: Workload, target: Target) -> Conditions:
    """Those of a machine of which nothing is known but its profile."""
    spreads = {name: spread(profile, target.quantile, name) for name in profile.runs}
    return Conditions(profile, workload, Terms(target.latency_s, {}, spreads, math.inf))
