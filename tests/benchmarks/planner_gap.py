"""The planner against brute force on random small models, and how long it takes on real shapes.

    python -m tests.benchmarks.planner_gap --instances 500 --seed 0 --output md

Brute force is the specification: every staircase of every block of every submodel, in the order of
their losses, through the simulator, until one is in time. The gap is how much larger the planner's
loss is than the least. On real shapes, where brute force cannot go, the gap is to the Lagrangian
bound, which no plan can be below and which the best may be well above.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random
from statistics import median
from time import perf_counter

import numpy as np

from sti.costs import BlockWork, RunCosts, deadline_s, run_costs, run_steps
from sti.errors import InfeasibleError
from sti.manifest import Block, Manifest, Submodel
from sti.plan import Target, Workload, check_plan, fidelities
from sti.planner import make_plan, predict, uniform_plan
from sti.prediction import blocks_of, loss_of
from sti.profile import DeviceProfile
from sti.reads import block_ranges, skip, total_bytes
from sti.simulate import simulate
from tests.synthetic import BERT_BASE, LADDER, MINILM, make_manifest, make_profile

PACK = "0123456789abcdef"


@dataclass(frozen=True, slots=True)
class Instance:
    """One planning problem."""

    manifest: Manifest
    profile: DeviceProfile
    workload: Workload
    target: Target
    read_ahead: int


def random_instance(rng: Random) -> Instance:
    """A model of 2 to 4 blocks, 2 or 3 slices and 2 or 3 planes, on a random machine."""
    blocks, slices = rng.choice((2, 3, 4)), rng.choice((2, 3))
    layers = (blocks + 1) // 2
    ladder = rng.choice(((2, 4), (2, 8), (2, 3, 4), (2, 4, 8), (3, 6, 8)))
    sizes = [(n, m) for n in range(1, layers + 1) for m in range(1, slices + 1)][:-1]
    smaller = [
        (n, m, rng.uniform(0.0, blocks * slices * 0.3)) for n, m in sizes if rng.random() < 0.3
    ]
    manifest = make_manifest(
        rng,
        layers=layers,
        slices=slices,
        ladder=ladder,
        attention_weights=rng.choice((1, 2, 4, 8)) * 65536,
        ffn_weights=rng.choice((1, 2, 4, 8)) * 65536,
        submodels=smaller,
        ranked=rng.random() < 0.3,
    )
    manifest = replace(manifest, blocks=manifest.blocks[:blocks])
    profile = make_profile(
        rng,
        ladder=ladder,
        decoders=rng.choice((1, 2)),
        contention=rng.uniform(1.0, 1.4),
        jitter=rng.uniform(1.0, 1.3),
    )
    workload = Workload(rng.choice((1, 4)), rng.choice((16, 64, 128)))
    whole = sum(block.length for block in manifest.blocks)
    preload = rng.choice((0, 0, rng.randrange(whole // 4), rng.randrange(whole)))
    target, read_ahead = Target(None, preload), rng.choice((1, 2, 3))
    low, high = (
        _total_s(Instance(manifest, profile, workload, target, read_ahead), bits)
        for bits in (ladder[0], ladder[-1])
    )
    latency = max(1e-6, low + rng.uniform(-0.3, 1.05) * (high - low)) * profile.jitter
    return Instance(manifest, profile, workload, Target(latency, preload), read_ahead)


def _total_s(instance: Instance, bits: int) -> float:
    plan = uniform_plan(
        instance.manifest,
        PACK,
        instance.workload,
        bits=bits,
        target=instance.target,
        profile=instance.profile,
        read_ahead=instance.read_ahead,
    )
    assert plan.predicted is not None
    return plan.predicted.total_s


def brute_force(instance: Instance) -> float | None:
    """The least loss of any plan that meets the target; None where none does."""
    found = [
        _brute_force_one(instance, submodel) for submodel in instance.manifest.submodels
    ]
    return min((loss for loss in found if loss is not None), default=None)


def _staircases(block: Block, width: int) -> Iterator[tuple[int, ...]]:
    """Every counts that read the first ``width`` slices and fall in slices in use."""
    ranges = [range(len(plane.order) + 1) for plane in block.planes[1:]]
    for rest in itertools.product(*ranges):
        counts = (width, *rest)
        used = [
            sum(index < width for index in plane.order[:count])
            for plane, count in zip(block.planes, counts, strict=True)
        ]
        if all(low >= high for low, high in itertools.pairwise(used)):
            yield counts


def _brute_force_one(instance: Instance, submodel: Submodel) -> float | None:
    profile, target = instance.profile, instance.target
    costs = run_costs(
        instance.manifest, profile, instance.workload, submodel.width, threads=profile.decoders
    )
    blocks = blocks_of(instance.manifest, submodel)
    tables = []
    for block in blocks:
        every = list(_staircases(block, submodel.width))
        loss = [loss_of(replace(submodel, loss=0.0), [block], [counts]) for counts in every]
        bits = [fidelities(block, counts) for counts in every]
        tables.append(list(zip(loss, every, bits, strict=True)))
    losses = np.zeros(1)
    for table in tables:
        losses = np.add.outer(losses, [row[0] for row in table]).ravel()
    shape = [len(table) for table in tables]
    deadline = deadline_s(profile, target)
    assert deadline is not None
    for place in np.argsort(losses, kind="stable"):
        picks = np.unravel_index(place, shape)
        chosen = [table[int(pick)] for table, pick in zip(tables, picks, strict=True)]
        if _run_s(instance, costs, blocks, [row[1:] for row in chosen]) <= deadline:
            return submodel.loss + float(losses[place])
    return None


def _run_s(
    instance: Instance,
    costs: RunCosts,
    blocks: list[Block],
    chosen: list[tuple[tuple[int, ...], tuple[int, ...]]],
) -> float:
    budget = instance.target.preload_bytes
    works = []
    for block, (counts, bits) in zip(blocks, chosen, strict=True):
        ranges = block_ranges(block, counts)
        left = skip(ranges, budget)
        budget -= total_bytes(ranges) - total_bytes(left)
        storage_s = costs.storage.read_s(len(left), total_bytes(left))
        works.append(BlockWork(block.kind, storage_s, costs.decode_s(block, bits), counts[0]))
    steps = run_steps(costs, works, read_ahead=instance.read_ahead)
    return simulate(costs.lanes, steps).spans[-1].end_s + costs.fixed_s


def gap(instance: Instance) -> float | None:
    """Relative excess of the planner's loss; None where both find the target infeasible.

    Raises:
        AssertionError: only one of the two finds it infeasible, or the plan misses its target.
    """
    least = brute_force(instance)
    try:
        plan = make_plan(
            instance.manifest,
            PACK,
            instance.profile,
            instance.workload,
            instance.target,
            read_ahead=instance.read_ahead,
        )
    except InfeasibleError:
        assert least is None, "a plan exists, the planner found none"
        return None
    assert least is not None, "the planner's plan is not among all plans"
    check_plan(plan, instance.manifest, PACK, where="plan")
    predicted = predict(instance.manifest, instance.profile, plan)
    assert predicted == plan.predicted
    assert instance.target.latency_s is not None
    assert predicted.total_s * instance.profile.jitter <= instance.target.latency_s
    assert predicted.loss >= least * (1.0 - 1e-9), "less loss than any plan can have"
    return max(0.0, predicted.loss - least) / least if least > 0.0 else predicted.loss


def measure(instances: int, seed: int) -> dict[str, object]:
    """Gaps of ``instances`` random problems."""
    rng = Random(seed)
    gaps = [gap(random_instance(rng)) for _ in range(instances)]
    known = [value for value in gaps if value is not None]
    return {
        "instances": instances,
        "infeasible, agreed": len(gaps) - len(known),
        "equal": sum(value <= 1e-9 for value in known),
        "worse": sum(value > 1e-9 for value in known),
        "largest gap, %": 100.0 * max(known, default=0.0),
        "mean gap, %": 100.0 * sum(known) / max(1, len(known)),
    }


if __name__ == "__main__":
    t = perf_counter()
    print(measure(int(sys.argv[1]), int(sys.argv[2])), perf_counter() - t)
