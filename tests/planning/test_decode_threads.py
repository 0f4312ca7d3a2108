"""How many threads decode, by the one rule that profiles, plans and the engine follow."""

from __future__ import annotations

from random import Random

import pytest

from sti.model.workload import Workload
from sti.planning.check import check_plan
from sti.planning.decode_threads import decode_threads
from sti.planning.plan import PlanRequest, Target
from sti.planning.planner import make_plan
from sti.planning.uniform import uniform_plan
from tests.support.synthetic import make_manifest, make_profile


@pytest.mark.parametrize(
    ("slices", "cores", "compute", "expected"),
    [(12, 1, 1, 1), (12, 2, 1, 1), (12, 4, 1, 3), (12, 64, 4, 4), (2, 64, 4, 2), (12, 2, 8, 1)],
)
def test_the_cores_left_decode_at_least_1_at_most_4_at_most_the_slices(
    slices: int, cores: int, compute: int, expected: int
) -> None:
    manifest = make_manifest(Random(0), slices=slices)
    assert decode_threads(manifest, cores=cores, compute_threads=compute) == expected


@pytest.mark.parametrize(("slices", "expected"), [(2, 2), (12, 4)])
def test_plans_ask_for_no_more_than_the_rule_whatever_the_profile_says(
    slices: int, expected: int
) -> None:
    manifest = make_manifest(Random(0), slices=slices, ladder=(2, 3, 4, 6, 8))
    profile, workload = make_profile(decoders=9), Workload(1, 16)
    planned = make_plan(PlanRequest(manifest, "pack", workload, Target(10.0)), profile)
    uniform = uniform_plan(PlanRequest(manifest, "pack", workload), bits=4, profile=profile)
    given = uniform_plan(PlanRequest(manifest, "pack", workload), bits=4, decode_threads=9)
    for plan in (planned, uniform, given):
        assert plan.decode_threads == expected
        check_plan(plan, manifest, "pack", where="test")
