"""What is held: the bytes that are read first, or whole groups all along."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from sti.device.lanes import PIPELINED, STORAGE
from sti.model.fidelity import groups_of, uniform_counts
from sti.model.group_layout import group_ranges
from sti.model.workload import Workload
from sti.planning.plan import PlanRequest, Target
from sti.planning.preload_placement import place, place_spread, placements
from sti.planning.uniform import uniform_plan
from sti.storage.byte_ranges import total_bytes
from tests.support.synthetic import make_manifest, make_profile

MANIFEST = make_manifest(Random(1), layers=24, slices=4)
GROUPS = groups_of(MANIFEST, MANIFEST.submodels[0])
BITS = MANIFEST.ladder[-1]
COUNTS = [uniform_counts(group, 4, BITS) for group in GROUPS]
SIZES = [total_bytes(group_ranges(group, c)) for group, c in zip(GROUPS, COUNTS, strict=True)]
WHOLE = sum(SIZES)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.25, 0.5, 0.75, 0.99, 1.0])
def test_both_placements_hold_as_much(share: float) -> None:
    budget = int(share * WHOLE)
    for placing in (place, place_spread):
        steps = placing(GROUPS, COUNTS, budget)
        assert sum(step.preload_bytes for step in steps) == budget
        assert all(step.preload_bytes <= size for step, size in zip(steps, SIZES, strict=True))
        assert [step.counts for step in steps] == COUNTS


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
def test_spread_groups_are_whole_the_first_one_is_and_none_wait_long(share: float) -> None:
    steps = place_spread(GROUPS, COUNTS, int(share * WHOLE))
    held = [step.preload_bytes == size for step, size in zip(steps, SIZES, strict=True)]
    assert held[0]
    partly = [0 < step.preload_bytes < size for step, size in zip(steps, SIZES, strict=True)]
    assert sum(partly) <= 1
    gaps, gap = [], 0
    for whole in held:
        gap = 0 if whole else gap + 1
        gaps.append(gap)
    assert max(gaps[:-1]) <= 2 / share


def test_there_is_nothing_to_compare_where_nothing_or_all_is_held() -> None:
    assert len(placements(GROUPS, COUNTS, 0)) == 1
    assert len(placements(GROUPS, COUNTS, WHOLE + 1)) == 1
    assert len(placements(GROUPS, COUNTS, WHOLE // 2)) == 2


def test_what_is_held_is_spread_where_storage_limits_a_run_and_never_makes_it_longer() -> None:
    quick = make_profile()
    storage = replace(quick.storage, bytes_per_s=2e8)
    slow = replace(quick, lanes={**quick.lanes, STORAGE: storage})
    spread = {}
    for name, profile in (("quick", quick), ("slow", slow)):
        for share in (0.25, 0.5, 0.75):
            held = int(share * WHOLE)
            request = PlanRequest(MANIFEST, "p", Workload(1, 16), Target(None, held))
            plan = uniform_plan(request, bits=BITS, profile=profile, threads=PIPELINED)
            usual = place(GROUPS, COUNTS, held)
            assert plan.predicted is not None
            spread[name, share] = [step.preload_bytes for step in plan.steps] != [
                step.preload_bytes for step in usual
            ]
    assert any(spread["slow", share] for share in (0.25, 0.5, 0.75))
    assert not any(spread["quick", share] for share in (0.25, 0.5, 0.75))
