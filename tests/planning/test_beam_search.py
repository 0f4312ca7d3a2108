"""The search keeps the simulator's time, and its multipliers bound every loss from below."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import cache
from itertools import accumulate
from random import Random
from statistics import median

import numpy as np
import pytest

from sti.device.lanes import PIPELINED, SEQUENTIAL, LaneThreads, shared
from sti.model.fidelity import groups_of, missing_of, uniform_counts
from sti.model.group_layout import group_ranges
from sti.model.manifest import Manifest
from sti.model.workload import Workload
from sti.planning.beam_search import Search, SearchProblem
from sti.planning.cost_model import FIRST_STEPS, deadline_s, run_costs
from sti.planning.labels import SimulatedRun
from sti.planning.lagrange import find_multipliers
from sti.planning.lane_threads import measured_choices
from sti.planning.plan import Target
from sti.planning.prediction import Run, simulate_run
from sti.planning.preload_placement import place
from sti.planning.variants import narrow_missing, rounding_loss
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

KINDS = (SEQUENTIAL, PIPELINED, shared(1), shared(2), shared(3))


def task_of(instance: Instance) -> SearchProblem:
    """The search for the full model that the planner would start, of a profile of one kind."""
    profile = instance.profile
    (threads,) = measured_choices(profile)
    deadline = deadline_s(profile, instance.target, threads)
    assert deadline is not None
    full = instance.manifest.submodels[0]
    costs = run_costs(instance.manifest, profile, instance.workload, full.width, threads=threads)
    return SearchProblem(
        groups=groups_of(instance.manifest, full),
        width=full.width,
        costs=costs,
        limit_s=deadline - costs.fixed_s - costs.head_s,
        preload_bytes=instance.target.preload_bytes,
        read_ahead=instance.read_ahead,
        rounding=rounding_loss(instance.manifest),
    )


def state(task: SearchProblem, run: Run, steps: int) -> tuple[list[float], list[float]]:
    """When reading, and when each thread that decodes, can go on after so many steps of a run.

    Threads that compute beside others are free when the token embeddings are there.
    """
    threads = task.costs.threads
    storing = threads.compute + threads.decode if threads.storage else 0
    decoding = [threads.compute] if threads.decode else range(threads.compute)
    rows_s = run.schedule.spans[1].end_s
    ends_s = dict.fromkeys(range(threads.compute + 2), rows_s)
    for thread, span in zip(run.schedule.threads[:steps], run.schedule.spans, strict=False):
        ends_s[thread] = max(rows_s, span.end_s)
    return [ends_s[storing]], sorted(ends_s[thread] for thread in decoding)


@pytest.mark.parametrize("threads", KINDS, ids=str)
@pytest.mark.parametrize("seed", range(16))
def test_a_label_is_where_the_simulator_is(seed: int, threads: LaneThreads) -> None:
    rng = Random(seed)
    task = task_of(random_instance(rng, threads))
    options = Search(task).options  # the same whatever is preloaded
    chosen = [rng.choice(np.flatnonzero(np.isfinite(loss)).tolist()) for loss in options.loss]
    counts = [options.counts(k, option) for k, option in enumerate(chosen)]
    # Budgets that end where a request ends, or just beside it, are where mistakes would be.
    ranges = [item for g, c in zip(task.groups, counts, strict=True) for item in group_ranges(g, c)]
    ends = [0, *accumulate(item.length for item in ranges)]
    for budget in {max(0, end + beside) for end in ends for beside in (-1, 0, 1, 5000)}:
        course = replace(task, preload_bytes=budget).course
        simulated = SimulatedRun(options, course, task.costs)
        items = place(task.groups, counts, budget, task.costs.variants)
        run = simulate_run(task.costs, task.groups, items, read_ahead=task.read_ahead)
        labels = simulated.start(budget)
        steps = FIRST_STEPS
        for k, option in enumerate(chosen):
            labels = simulated.advance(labels, k, np.array([option]))
            group = task.groups[k]
            steps += 1 + 2 * task.costs.share_counts[group.kind] + task.costs.ends_block(group)
            storage_s, free_s = state(task, run, steps)
            assert labels.storage.tolist() == pytest.approx(storage_s, rel=1e-12)
            assert [end[0] for end in labels.free] == pytest.approx(free_s, rel=1e-12)
            if task.costs.ends_block(group):
                assert labels.ready[0] == pytest.approx(run.schedule.spans[steps - 1].end_s)
        assert labels.read[0] == run.read_bytes
        assert labels.preload[0] == budget - sum(item.preload_bytes for item in items)


def lost(task: SearchProblem, instance: Instance, counts: list[tuple[int, ...]]) -> float:
    """What a choice loses: the planes that it lacks, and products that are narrow."""
    manifest = instance.manifest
    steps = place(task.groups, counts, 0, task.costs.variants)
    missing = missing_of(manifest.submodels[0], task.groups, counts)
    return missing + narrow_missing(manifest, task.groups, steps)


@pytest.mark.parametrize("threads", KINDS, ids=str)
def test_no_choice_in_time_has_less_loss_than_the_bound_and_few_have_much_more(
    threads: LaneThreads,
) -> None:
    rng = Random(11)
    shares = []
    for _ in range(40):
        instance = random_instance(rng, threads)
        task = task_of(instance)
        beam = Search(task)
        counts = Search(task).run(np.inf)
        if counts is None:
            continue
        simulated = beam.simulated
        bound = find_multipliers(
            beam.course,
            beam.options,
            simulated.bytes_s,
            simulated.requests_s,
            task.preload_bytes,
        ).bound
        loss = lost(task, instance, counts)
        assert beam.bound == max(0.0, bound - beam.tie)
        assert beam.bound <= loss
        if loss > 0.0:
            shares.append(bound / loss)
    assert len(shares) > 15
    # Few groups, large steps: the bound lies well below.
    assert median(shares) > (0.25 if threads.compute == 1 else 0.1)


@pytest.mark.parametrize(
    ("threads", "limit_s", "most"),
    [(SEQUENTIAL, 0.16, 1.05), (PIPELINED, 0.07, 1.05), (shared(2), 0.06, 1.15)],
    ids=str,
)
def test_on_real_shapes_the_best_choice_is_close_to_the_bound(
    threads: LaneThreads, limit_s: float, most: float
) -> None:
    manifest = make_manifest(Random(1), ladder=LADDER, orders="ranked", **BERT_BASE)
    profile, workload = make_profile(kinds=(threads,)), Workload(1, 128)
    instance = Instance(manifest, profile, workload, Target(limit_s, 0), 3)
    task = replace(task_of(instance), limit_s=limit_s)
    beam = Search(task)
    multipliers = find_multipliers(
        beam.course, beam.options, beam.simulated.bytes_s, beam.simulated.requests_s, 0
    )
    counts = Search(task).run(np.inf)
    assert counts is not None
    loss = lost(task, instance, counts)
    assert multipliers.bound <= loss <= most * multipliers.bound
    assert Search(task).run(0.99 * multipliers.bound) is None


@cache
def model(name: str) -> Manifest:
    shape, gains = name.split()
    sizes = {"BERT": BERT_BASE, "MiniLM": MINILM}[shape]
    manifest = make_manifest(Random(1), ladder=LADDER, orders="ranked", **sizes)
    return with_equal_gains(manifest) if gains == "equal" else manifest


MODELS = ("BERT ranked", "BERT equal", "MiniLM ranked", "MiniLM equal")
REAL_KINDS = (SEQUENTIAL, PIPELINED, shared(2))
STORAGE_BINDS = ("storage", "storage and decode", "all alike")


# Where storage is far faster than the other lanes, what is preloaded makes no difference.
@pytest.mark.parametrize(
    ("machine", "preload_share"),
    [*((name, 0.0) for name in MACHINES), *((name, 0.1) for name in STORAGE_BINDS)],
)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("threads", REAL_KINDS, ids=str)
def test_no_search_is_far_from_its_bound_or_behind_a_uniform_choice_or_one_in_less_time(
    name: str, machine: str, preload_share: float, threads: LaneThreads
) -> None:
    """Whatever binds. A ring that was not priced once held up all that the search had kept."""
    manifest, profile = model(name), make_machine(machine, (threads,))
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
        loss = lost(task, instance, counts)
        items = place(task.groups, counts, preload)
        run = simulate_run(task.costs, task.groups, items, read_ahead=1)
        assert run.total_s <= latency_s * (1 + 1e-9)
        for bits in LADDER:
            if uniform_s[bits] <= latency_s:
                uniform = [uniform_counts(group, full.width, bits) for group in task.groups]
                assert loss <= missing_of(full, task.groups, uniform) * (1 + 1e-9)
        # Else the bound is far below what a far longer search finds.
        # What several threads do at once is bounded by less than they can do.
        if preload == 0 and share > 0.1 and threads.compute == 1:
            assert loss <= 1.5 * beam.bound
        assert loss <= 1.02 * before
        before = loss


@pytest.mark.parametrize("threads", KINDS, ids=str)
def test_a_choice_of_two_uniform_parts_is_in_time_and_as_good_as_any_of_its_kind(
    threads: LaneThreads,
) -> None:
    rng = Random(4)
    found = 0
    for _ in range(20):
        instance = random_instance(rng, threads)
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
            items = place(task.groups, counts, task.preload_bytes, task.costs.variants)
            run = simulate_run(task.costs, task.groups, items, read_ahead=task.read_ahead)
            if run.total_s - task.costs.fixed_s - task.costs.head_s <= task.limit_s:
                least = min(least, lost(task, instance, counts))
        assert (np.inf if simple is None else simple.loss) == pytest.approx(least, rel=1e-9)
        found += simple is not None
    assert found > 6


@pytest.mark.parametrize("threads", REAL_KINDS, ids=str)
def test_more_preload_never_costs_much_quality(threads: LaneThreads) -> None:
    for name, machine in itertools.product(MODELS, MACHINES):
        manifest = model(name)
        total = sum(group.length for group in manifest.groups)
        instance = Instance(
            manifest, make_machine(machine, (threads,)), Workload(1, 64), Target(None, 0), 3
        )
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
