"""What the lane timer observes: each lane and each graph, once at least, over any back end."""

from __future__ import annotations

from sti.calibration.lane_timer import LaneTimer
from sti.calibration.observations import Observations
from sti.device.lanes import LANES
from sti.pack.pack_reader import PackReader
from sti.planning.lane_threads import lane_choices
from sti.planning.variants import variant_of
from tests.support.numpy_backend import NumpyBackend
from tests.support.packs import tiny_pack

CHOICES = lane_choices(2, cores=2)


def observed(reader: PackReader) -> tuple[NumpyBackend, Observations]:
    backend = NumpyBackend(reader, lanes=2)
    timer = LaneTimer(reader, backend, CHOICES)
    try:
        return backend, timer.observe(0.0)
    finally:
        timer.close()


def test_connect_is_timed_for_every_workload_that_steps_are_timed_for() -> None:
    with PackReader.open(tiny_pack()) as reader:
        _, seen = observed(reader)
    workloads = {time.workload for time in seen.steps}
    assert {work for end, work, seconds in seen.ends if end == "connect" and seconds > 0} == (
        workloads
    )


def test_every_fidelity_is_decoded_and_every_lane_and_variant_is_seen() -> None:
    with PackReader.open(tiny_pack()) as reader:
        backend, seen = observed(reader)
        ladder, kinds = reader.manifest.ladder, {kind.name for kind in reader.manifest.kinds}
        assert {time.bits for time in seen.steps} == set(ladder)
        found = {(time.kind, time.variant) for time in seen.steps}
        assert found == {(kind, variant) for kind in kinds for variant in backend.variants}
        for time in seen.steps:
            assert time.variant in {variant_of([time.bits], backend.variants), backend.variants[0]}
    assert {end for end, _, _ in seen.ends} == {"embed", "connect", "head"}


def test_short_and_long_runs_are_timed_under_every_kind_of_threads() -> None:
    with PackReader.open(tiny_pack()) as reader:
        _, seen = observed(reader)
        layers = reader.manifest.dimensions.layers
    assert {run.plan.threads for run in seen.runs} == set(CHOICES)
    for threads in CHOICES:
        steps = {len(run.plan.steps) for run in seen.runs if run.plan.threads == threads}
        assert min(steps) * layers >= max(steps)
    for run in seen.runs:
        assert set(run.busy_s) == set(LANES)
        assert 0 < run.busy_s["compute"] <= run.plan.threads.compute * run.total_s
