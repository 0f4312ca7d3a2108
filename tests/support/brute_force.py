"""The specification of the planner: tries all plans by increasing loss until one is in time.

Random small planning problems, and the least loss that any staircases of any submodel can have on
them. Uses the simulator and the byte ranges of the run time, but none of the planner's search.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import comb, prod
from random import Random

import numpy as np

from sti.arrays import Float64Array
from sti.device.lanes import PIPELINED, LaneThreads
from sti.device.profile import DeviceProfile
from sti.errors import InfeasibleError
from sti.model.fidelity import fidelities, groups_of, missing_of, uniform_counts
from sti.model.group_layout import group_ranges
from sti.model.manifest import Manifest, SliceGroup, Submodel
from sti.model.workload import Workload
from sti.planning.check import check_plan
from sti.planning.cost_model import (
    RunCosts,
    StepWork,
    deadline_s,
    promised_s,
    run_costs,
    run_steps,
)
from sti.planning.lane_threads import measured_choices
from sti.planning.plan import Plan, PlanRequest, Target
from sti.planning.planner import make_plan
from sti.planning.prediction import predict
from sti.planning.preload_placement import bare_plan, place
from sti.planning.timeline import simulate
from sti.planning.variants import narrow_missing, variants_of
from sti.storage.byte_ranges import skip, total_bytes
from tests.support.synthetic import Order, make_manifest, make_profile, slice_shares

PACK = "0123456789abcdef"
ORDERS: tuple[Order, ...] = ("random", "ranked", "slices")
MOST_PLANS = 10_000
"""Of the full model of a random instance: brute force tries them all where none is in time."""
Fidelities = tuple[int, ...]
Row = tuple[float, tuple[int, ...], Fidelities, str]
"""Missing gains, counts, fidelities and variant of one staircase."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One planning problem."""

    manifest: Manifest
    profile: DeviceProfile
    workload: Workload
    target: Target
    read_ahead: int

    @property
    def request(self) -> PlanRequest:
        """What the planner is asked."""
        return PlanRequest(self.manifest, PACK, self.workload, self.target)

    def plan(self) -> Plan:
        """The planner's answer."""
        return make_plan(self.request, self.profile, read_ahead=self.read_ahead)

    def uniform_s(self, bits: int) -> float:
        """Seconds within which 98 of 100 runs of the full model end, every shard at ``bits``, with
        what is read first held.
        """
        manifest, full = self.manifest, self.manifest.submodels[0]
        groups = groups_of(manifest, full)
        counts = [uniform_counts(group, full.width, bits) for group in groups]
        held, variants = self.target.preload_bytes, variants_of(manifest, self.profile)
        steps = place(groups, counts, held, variants)
        return min(
            promised_s(
                self.profile,
                predict(
                    manifest,
                    self.profile,
                    bare_plan(self.request, full, steps, threads, self.read_ahead),
                ).total_s,
                threads,
            )
            for threads in measured_choices(self.profile)
        )


def random_instance(rng: Random, kind: LaneThreads = PIPELINED) -> Instance:
    """A model of 2 to 4 blocks, 2 to 4 slices and 2 or 3 planes, on a random machine.

    Each kind of block has 1 to 3 groups of slices, of different sizes where they do not come out
    even. Every other machine computes narrow products faster. Most submodels, the full model among
    them, have a curve from missing gains to loss. The latency lies between what the lowest and the
    highest fidelity need, and now and then beyond one of them.
    """
    ladder = rng.choice(((2, 4), (2, 8), (2, 3, 4), (2, 4, 8), (3, 6, 8)))
    blocks, slices, groups = _shape(rng, planes=len(ladder))
    layers = (blocks + 1) // 2
    sizes = [(n, m) for n in range(1, layers + 1) for m in range(1, slices + 1)][:-1]
    loss = blocks * slices * 0.3
    manifest = make_manifest(
        rng,
        layers=layers,
        slices=slices,
        ladder=ladder,
        attention_weights=rng.choice((1, 2, 4, 8)) * 65536,
        ffn_weights=rng.choice((1, 2, 4, 8)) * 65536,
        groups=groups,
        submodels=[(n, m, rng.uniform(0.0, loss)) for n, m in sizes if rng.random() < 0.3],
        orders=rng.choice(ORDERS),
    )
    count = sum(groups[block % 2] for block in range(blocks))
    manifest = with_curves(rng, manifest._replace(groups=manifest.groups[:count]), share=0.7)
    profile = make_profile(
        rng,
        ladder=ladder,
        kinds=(kind,),
        contention=rng.uniform(1.0, 1.4),
        jitter=rng.uniform(1.0, 1.3),
        narrow=rng.choice((None, 0.6)),
    )
    workload = Workload(rng.choice((1, 4)), rng.choice((16, 64, 128)))
    whole = sum(group.length for group in manifest.groups)
    preload = rng.choice((0, 0, rng.randrange(whole // 4), rng.randrange(whole)))
    instance = Instance(manifest, profile, workload, Target(None, preload), rng.choice((1, 2, 3)))
    low, high = instance.uniform_s(ladder[0]), instance.uniform_s(ladder[-1])
    total_s = max(1e-6, low + rng.uniform(-0.3, 1.05) * (high - low))
    return replace(instance, target=Target(total_s, preload))


def _shape(rng: Random, *, planes: int) -> tuple[int, int, tuple[int, int]]:
    """Blocks, slices and groups of each kind of block, for few enough plans."""
    while True:
        blocks, slices = rng.choice((2, 3, 4)), rng.choice((2, 3, 3, 4))
        groups = rng.randint(1, min(3, slices)), rng.randint(1, min(3, slices))
        plans = prod(
            comb(used + planes - 1, planes - 1)
            for block in range(blocks)
            for used in slice_shares(slices, groups[block % 2])
        )
        if plans <= MOST_PLANS:
            return blocks, slices, groups


def with_curves(rng: Random, manifest: Manifest, *, share: float) -> Manifest:
    """The manifest with random curves for that share of its submodels."""
    submodels = [
        _curved(rng, manifest, submodel) if rng.random() < share else submodel
        for submodel in manifest.submodels
    ]
    return manifest._replace(submodels=tuple(submodels))


def _curved(rng: Random, manifest: Manifest, submodel: Submodel) -> Submodel:
    """A curve with steep, flat and (often) no measured parts where much is missing."""
    groups = groups_of(manifest, submodel)
    lowest = [(group.used(submodel.width), *(0 for _ in group.planes[1:])) for group in groups]
    most = rng.uniform(0.4, 1.1) * missing_of(submodel, groups, lowest)
    missing = [0.0, *sorted(rng.uniform(0.01, 1.0) * most for _ in range(rng.randrange(5)))]
    losses = [submodel.loss]
    for low, high in itertools.pairwise(missing):
        slope = rng.choice((0.0, rng.lognormvariate(0.0, 1.0), rng.lognormvariate(0.0, 1.0)))
        losses.append(losses[-1] + slope * (high - low))
    return submodel._replace(missing=tuple(missing), losses=tuple(losses))


def expected_loss(submodel: Submodel, missing: Float64Array) -> Float64Array:
    """The loss at each of ``missing``, by the definition of the curve."""
    if not submodel.missing:
        return submodel.loss + missing
    places, values = np.array(submodel.missing), np.array(submodel.losses)
    slope = (values[-1] - values[-2]) / (places[-1] - places[-2]) if len(places) > 1 else 1.0
    beyond = np.maximum(missing - places[-1], 0.0)
    return np.asarray(np.interp(missing, places, values) + slope * beyond)


def gap(instance: Instance) -> float | None:
    """By which share of the least loss the planner's is above it; None where both refuse.

    Raises:
        AssertionError: only one of the two refuses, or the plan is not what it says.
    """
    least = least_loss(instance)
    try:
        plan = instance.plan()
    except InfeasibleError:
        assert least is None, "there is a plan, and the planner found none"
        return None
    assert least is not None, "the planner's plan is not among all plans"
    check_plan(plan, instance.manifest, PACK, where="plan")
    predicted = predict(instance.manifest, instance.profile, plan)
    assert predicted == plan.predicted
    assert instance.target.latency_s is not None
    promised = promised_s(instance.profile, predicted.total_s, plan.threads)
    assert promised <= instance.target.latency_s
    assert predicted.loss >= least * (1.0 - 1e-9), "less loss than any plan can have"
    return max(0.0, predicted.loss - least) / least if least > 0.0 else predicted.loss


def least_loss(instance: Instance) -> float | None:
    """The least loss of any plan that meets the target; None where there is none."""
    choices = measured_choices(instance.profile)
    found = [
        _least_loss(instance, submodel, threads)
        for submodel in instance.manifest.submodels
        for threads in choices
    ]
    return min((loss for loss in found if loss is not None), default=None)


def _least_loss(instance: Instance, submodel: Submodel, threads: LaneThreads) -> float | None:
    deadline = deadline_s(instance.profile, instance.target, threads)
    assert deadline is not None
    costs = run_costs(
        instance.manifest, instance.profile, instance.workload, submodel.width, threads=threads
    )
    groups = groups_of(instance.manifest, submodel)
    tables = [list(_rows(instance.manifest, group, submodel, costs)) for group in groups]
    missing = np.zeros(1)
    for table in tables:
        missing = np.add.outer(missing, [lacked for lacked, *_ in table]).ravel()
    shape = [len(table) for table in tables]
    for index in np.argsort(missing, kind="stable"):
        picks = np.unravel_index(index, shape)
        chosen = [table[int(pick)] for table, pick in zip(tables, picks, strict=True)]
        if _total_s(instance, costs, groups, chosen) <= deadline:
            return float(expected_loss(submodel, missing[index : index + 1])[0])
    return None


def _rows(
    manifest: Manifest, group: SliceGroup, submodel: Submodel, costs: RunCosts
) -> Iterator[Row]:
    """Every staircase of a group: slices in use never rise from plane to plane.

    Counts end with a slice in use: reading slices that are not run, so that what lies beyond them
    comes with the same request, is not a plan.
    """
    width = group.used(submodel.width)
    for rest in itertools.product(*(range(len(plane.order) + 1) for plane in group.planes[1:])):
        counts = (width, *rest)
        read = [plane.order[:n] for plane, n in zip(group.planes, counts, strict=True)]
        used = [sum(index < width for index in slices) for slices in read]
        falling = all(below >= above for below, above in itertools.pairwise(used))
        if falling and all(not slices or slices[-1] < width for slices in read):
            (step,) = place([group], [counts], 0, costs.variants)
            missing = missing_of(submodel, [group], [counts])
            missing += narrow_missing(manifest, [group], [step])
            yield missing, counts, fidelities(group, counts), step.variant


def _total_s(
    instance: Instance, costs: RunCosts, groups: list[SliceGroup], chosen: list[Row]
) -> float:
    budget = instance.target.preload_bytes
    works = []
    for group, (_, counts, bits, variant) in zip(groups, chosen, strict=True):
        ranges = group_ranges(group, counts)
        left = skip(ranges, budget)
        budget -= total_bytes(ranges) - total_bytes(left)
        storage_s = costs.read_s(len(left), total_bytes(left))
        decode_s = costs.decode_s(group, Counter(filter(None, bits)))
        compute_s = costs.compute_s(group, variant)
        works.append(StepWork(group, storage_s, decode_s, compute_s))
    steps = run_steps(costs, works, read_ahead=instance.read_ahead)
    return simulate(steps).spans[-1].end_s + costs.fixed_s
