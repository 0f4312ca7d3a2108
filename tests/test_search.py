"""The search keeps the same time as the simulator, and its prices bound every loss from below."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate
from random import Random
from statistics import median

import numpy as np
import pytest

from sti.costs import FIRST_STEPS, STEPS_PER_BLOCK, deadline_s, run_costs
from sti.plan import Workload
from sti.prediction import blocks_of, loss_of, place, simulate_run
from sti.prices import find_prices
from sti.reads import block_ranges
from sti.search import Task, _Beam, search
from tests.brute_force import Instance, random_instance
from tests.synthetic import BERT_BASE, LADDER, make_manifest, make_profile


def task_of(instance: Instance) -> Task:
    """The search for the full model that the planner would start."""
    profile, deadline = instance.profile, deadline_s(instance.profile, instance.target)
    assert deadline is not None
    full = instance.manifest.submodels[0]
    threads = profile.decoders
    costs = run_costs(instance.manifest, profile, instance.workload, full.width, threads=threads)
    return Task(
        blocks=blocks_of(instance.manifest, full),
        width=full.width,
        costs=costs,
        limit_s=deadline - costs.fixed_s - costs.head_s,
        preload_bytes=instance.target.preload_bytes,
        read_ahead=instance.read_ahead,
    )


@pytest.mark.parametrize("seed", range(40))
def test_a_label_is_where_the_simulator_is(seed: int) -> None:
    rng = Random(seed)
    task = task_of(random_instance(rng))
    options = _Beam(task).options
    chosen = [rng.choice(np.flatnonzero(np.isfinite(loss)).tolist()) for loss in options.loss]
    counts = [options.counts(k, option) for k, option in enumerate(chosen)]
    # Budgets that end where a request ends, or just beside it, are where mistakes would be.
    ranges = [item for b, c in zip(task.blocks, counts, strict=True) for item in block_ranges(b, c)]
    ends = [0, *accumulate(item.length for item in ranges)]
    for budget in {max(0, end + beside) for end in ends for beside in (-1, 0, 1, 5000)}:
        beam = _Beam(replace(task, preload_bytes=budget))
        items = place(task.blocks, counts, budget)
        run = simulate_run(task.costs, task.blocks, items, read_ahead=task.read_ahead)
        labels = beam._start()
        for k, option in enumerate(chosen):
            labels = beam._advance(labels, k, np.array([option]))
            first = FIRST_STEPS + STEPS_PER_BLOCK * k
            ends_s = [span.end_s for span in run.schedule.spans[first : first + STEPS_PER_BLOCK]]
            found_s = [labels.storage[0], labels.decode[0], labels.compute[0]]
            assert found_s == pytest.approx(ends_s, rel=1e-12)
        assert labels.read[0] == run.read_bytes
        assert labels.preload[0] == budget - sum(item.preload_bytes for item in items)


def test_no_choice_in_time_has_less_loss_than_the_bound_and_few_have_much_more() -> None:
    rng = Random(11)
    shares = []
    for _ in range(60):
        instance = random_instance(rng)
        task = task_of(instance)
        beam = _Beam(task)
        counts = search(task, ceiling=np.inf)
        if counts is None:
            continue
        bound = find_prices(
            beam.course, beam.options, beam.bytes_s, beam.requests_s, task.preload_bytes
        ).bound
        loss = loss_of(instance.manifest.submodels[0], task.blocks, counts)
        assert bound <= loss + beam.tie
        if loss > 0.0:
            shares.append(bound / loss)
    assert len(shares) > 20
    assert median(shares) > 0.25  # few blocks, large steps: the bound lies well below


def test_on_real_shapes_the_best_choice_is_close_to_the_bound() -> None:
    manifest = make_manifest(Random(1), ladder=LADDER, orders="ranked", **BERT_BASE)
    costs = run_costs(manifest, make_profile(), Workload(1, 128), 12, threads=1)
    blocks = blocks_of(manifest, manifest.submodels[0])
    task = Task(blocks, 12, costs, limit_s=0.07, preload_bytes=0, read_ahead=3)
    beam = _Beam(task)
    prices = find_prices(beam.course, beam.options, beam.bytes_s, beam.requests_s, 0)
    counts = search(task, ceiling=np.inf)
    assert counts is not None
    loss = loss_of(manifest.submodels[0], blocks, counts)
    assert prices.bound <= loss <= 1.05 * prices.bound
    assert search(task, ceiling=0.99 * prices.bound) is None


def test_a_limit_out_of_reach_is_seen_before_anything_is_tried() -> None:
    task = task_of(random_instance(Random(0)))
    for limit_s in (-1.0, 0.0, 1e-6):
        shorter = replace(task, limit_s=limit_s)
        assert not _Beam(shorter).reachable
        assert search(shorter, ceiling=np.inf) is None
