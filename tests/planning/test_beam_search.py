"""The search keeps the simulator's time, and its multipliers bound every loss from below."""

from __future__ import annotations

import itertools
from dataclasses import replace
from itertools import accumulate
from random import Random
from statistics import median

import numpy as np
import pytest

from sti.model.fidelity import groups_of, missing_of, uniform_counts
from sti.model.group_layout import group_ranges
from sti.model.manifest import Manifest
from sti.model.workload import Workload
from sti.planning.beam_search import Search, SearchProblem
from sti.planning.cost_model import FIRST_STEPS, STEPS_PER_GROUP, deadline_s, run_costs
from sti.planning.lagrange import find_multipliers
from sti.planning.plan import Target
from sti.planning.prediction import simulate_run
from sti.planning.preload_placement import place
from tests.support.brute_force import Instance, random_instance
from tests.support.synthetic import (
    BERT_BASE,
    LADDER,
    MACHINES,
    MINILM,
    make_machine,
    make_manifest,
    make_profile,
    with_equal_gains,
)


def task_of(instance: Instance) -> SearchProblem:
    """The search for the full model that the planner would start."""
    profile, deadline = instance.profile, deadline_s(instance.profile, instance.target)
    assert deadline is not None
    full = instance.manifest.submodels[0]
    threads = profile.decoders
    costs = run_costs(instance.manifest, profile, instance.workload, full.width, threads=threads)
    return SearchProblem(
        groups=groups_of(instance.manifest, full),
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
    options = Search(task).options
    chosen = [rng.choice(np.flatnonzero(np.isfinite(loss)).tolist()) for loss in options.loss]
    counts = [options.counts(k, option) for k, option in enumerate(chosen)]
    # Budgets that end where a request ends, or just beside it, are where mistakes would be.
    ranges = [item for g, c in zip(task.groups, counts, strict=True) for item in group_ranges(g, c)]
    ends = [0, *accumulate(item.length for item in ranges)]
    for budget in {max(0, end + beside) for end in ends for beside in (-1, 0, 1, 5000)}:
        beam = Search(replace(task, preload_bytes=budget))
        items = place(task.groups, counts, budget)
        run = simulate_run(task.costs, task.groups, items, read_ahead=task.read_ahead)
        labels = beam.pipeline.start(budget)
        for k, option in enumerate(chosen):
            labels = beam.pipeline.advance(labels, k, np.array([option]))
            first = FIRST_STEPS + STEPS_PER_GROUP * k
            ends_s = [span.end_s for span in run.schedule.spans[first : first + STEPS_PER_GROUP]]
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
        beam = Search(task)
        counts = Search(task).run(np.inf)
        if counts is None:
            continue
        bound = find_multipliers(
            beam.course,
            beam.options,
            beam.pipeline.bytes_s,
            beam.pipeline.requests_s,
            task.preload_bytes,
        ).bound
        loss = missing_of(instance.manifest.submodels[0], task.groups, counts)
        assert beam.bound == max(0.0, bound - beam.tie)
        assert beam.bound <= loss
        if loss > 0.0:
            shares.append(bound / loss)
    assert len(shares) > 20
    assert median(shares) > 0.25  # few groups, large steps: the bound lies well below


def test_on_real_shapes_the_best_choice_is_close_to_the_bound() -> None:
    manifest = make_manifest(Random(1), ladder=LADDER, orders="ranked", **BERT_BASE)
    costs = run_costs(manifest, make_profile(), Workload(1, 128), 12, threads=1)
    groups = groups_of(manifest, manifest.submodels[0])
    task = SearchProblem(groups, 12, costs, limit_s=0.07, preload_bytes=0, read_ahead=3)
    beam = Search(task)
    multipliers = find_multipliers(
        beam.course, beam.options, beam.pipeline.bytes_s, beam.pipeline.requests_s, 0
    )
    counts = Search(task).run(np.inf)
    assert counts is not None
    loss = missing_of(manifest.submodels[0], groups, counts)
    assert multipliers.bound <= loss <= 1.05 * multipliers.bound
    assert Search(task).run(0.99 * multipliers.bound) is None


def model(name: str) -> Manifest:
    shape, gains = name.split()
    sizes = {"BERT": BERT_BASE, "MiniLM": MINILM}[shape]
    manifest = make_manifest(Random(1), ladder=LADDER, orders="ranked", **sizes)
    return with_equal_gains(manifest) if gains == "equal" else manifest


MODELS = ("BERT ranked", "BERT equal", "MiniLM ranked", "MiniLM equal")


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("preload_share", [0.0, 0.1])
def test_no_search_is_far_from_its_bound_or_behind_a_uniform_choice_or_one_in_less_time(
    name: str, machine: str, preload_share: float
) -> None:
    """Whatever binds. A ring that was not priced once held up all that the search had kept."""
    manifest, profile = model(name), make_machine(machine)
    preload = int(preload_share * sum(group.length for group in manifest.groups))
    instance = Instance(manifest, profile, Workload(1, 64), Target(None, preload), 1)
    full = manifest.submodels[0]
    uniform_s = {bits: instance.uniform_s(bits) for bits in LADDER}
    low, high = uniform_s[LADDER[0]], uniform_s[LADDER[-1]]
    before = np.inf
    for share in (0.05, 0.2, 0.4, 0.6, 0.8, 0.81):
        latency_s = low * (1 + 1e-6) + share * (high - low)
        task = task_of(replace(instance, target=Target(latency_s, preload)))
        beam = Search(task)
        counts = beam.run(np.inf)
        assert counts is not None
        loss = missing_of(full, task.groups, counts)
        items = place(task.groups, counts, preload)
        run = simulate_run(task.costs, task.groups, items, read_ahead=1)
        assert run.total_s <= latency_s * (1 + 1e-9)
        for bits in LADDER:
            if uniform_s[bits] <= latency_s:
                uniform = [uniform_counts(group, full.width, bits) for group in task.groups]
                assert loss <= missing_of(full, task.groups, uniform) * (1 + 1e-9)
        if (
            preload == 0 and share > 0.1
        ):  # else the bound is far below what a far longer search finds
            assert loss <= 1.5 * beam.bound
        assert loss <= 1.02 * before
        before = loss


def test_a_choice_of_two_uniform_parts_is_in_time_and_as_good_as_any_of_its_kind() -> None:
    rng = Random(4)
    found = 0
    for _ in range(30):
        instance = random_instance(rng)
        task = task_of(instance)
        task = replace(task, limit_s=task.limit_s * (1 + 1e-9))  # where what is fastest just fits
        search, full = Search(task), instance.manifest.submodels[0]
        simple = None if search.hopeless else search.best_of_two_parts(np.inf)
        ladder, count = instance.manifest.ladder, len(task.groups)
        least = np.inf
        for first, then, split in itertools.product(ladder, ladder, range(count + 1)):
            bits = [first] * split + [then] * (count - split)
            counts = [
                uniform_counts(g, full.width, c) for g, c in zip(task.groups, bits, strict=True)
            ]
            items = place(task.groups, counts, task.preload_bytes)
            run = simulate_run(task.costs, task.groups, items, read_ahead=task.read_ahead)
            if run.total_s - task.costs.fixed_s - task.costs.head_s <= task.limit_s:
                least = min(least, missing_of(full, task.groups, counts))
        assert (np.inf if simple is None else simple.loss) == pytest.approx(least, rel=1e-9)
        found += simple is not None
    assert found > 10


def test_more_preload_never_costs_much_quality() -> None:
    for name, machine in itertools.product(MODELS, MACHINES):
        manifest = model(name)
        total = sum(group.length for group in manifest.groups)
        instance = Instance(manifest, make_machine(machine), Workload(1, 64), Target(None, 0), 1)
        low, high = instance.uniform_s(LADDER[0]), instance.uniform_s(LADDER[-1])
        before = np.inf
        for preload in (0, total // 20, total // 8, total // 2):
            target = Target(low + 0.4 * (high - low), preload)
            predicted = replace(instance, target=target).plan().predicted
            assert predicted is not None
            assert predicted.loss <= 1.02 * before
            before = predicted.loss


def test_a_limit_out_of_reach_is_seen_before_anything_is_tried() -> None:
    task = task_of(random_instance(Random(0)))
    for limit_s in (-1.0, 0.0, 1e-6):
        shorter = replace(task, limit_s=limit_s)
        assert Search(shorter).hopeless
        assert Search(shorter).run(np.inf) is None
