"""What the lane timer observes: each lane and each graph, once at least, over any back end."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

import pytest

from sti.calibration.lane_timer import LONGEST_S, LaneTimer, take_turns
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
    assert {end.workload for end in seen.ends if end.name == "connect" and end.seconds > 0} == (
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
    assert {end.name for end in seen.ends} == {"embed", "connect", "head"}


def test_short_and_long_runs_are_timed_under_every_kind_of_threads() -> None:
    with PackReader.open(tiny_pack()) as reader:
        _, seen = observed(reader)
        layers = reader.manifest.dimensions.layers
        widths_of = {model.width for model in reader.manifest.submodels}
    assert {run.plan.threads for run in seen.runs} == set(CHOICES)
    for threads in CHOICES:
        steps = {len(run.plan.steps) for run in seen.runs if run.plan.threads == threads}
        assert min(steps) * layers >= max(steps)
        widths = {run.plan.width for run in seen.runs if run.plan.threads == threads}
        assert widths == {min(widths_of), max(widths_of)}
    for run in seen.runs:
        assert set(run.busy_s) == set(LANES)
        assert 0 < run.busy_s["compute"] <= run.plan.threads.compute * run.total_s


class Clock:
    """A clock that is set to another time now and then."""

    def __init__(self, jumps: dict[int, float]) -> None:
        self._jumps, self._calls, self._ahead = jumps, 0, 0.0

    def __call__(self) -> float:
        self._calls += 1
        self._ahead += self._jumps.get(self._calls % 997, 0.0)
        return monotonic() + self._ahead


def test_samples_during_which_the_clock_was_set_are_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock({400: 3_600.0, 700: -7_200.0, 900: 3_600.0})
    for module in ("lane_timer", "read_timer"):
        monkeypatch.setattr(f"sti.calibration.{module}.perf_counter", clock)
    monkeypatch.setattr("sti.pipeline.batch_work.perf_counter", clock)
    monkeypatch.setattr("sti.pipeline.executor.perf_counter", clock)
    with PackReader.open(tiny_pack()) as reader:
        timer = LaneTimer(reader, NumpyBackend(reader, lanes=2), CHOICES)
        try:
            seen = timer.observe(0.0)
            for _ in range(30):
                timer.observe(0.01)
        finally:
            timer.close()
    times = [item.seconds for item in (*seen.reads, *seen.rows, *seen.tokens, *seen.ends)]
    times += [time for step in seen.steps for time in (step.decode_s, step.compute_s)]
    times += [run.total_s for run in seen.runs]
    assert min(times) > 0.0 and max(times) <= LONGEST_S
    assert seen.reads and seen.steps and seen.runs


def test_measuring_ends_although_the_clock_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sti.calibration.lane_timer.perf_counter", lambda: 5.0)
    done = list[str]()
    work = {name: (lambda name=name: done.append(name)) for name in ("reads", "runs")}
    take_turns(work, {"reads": 1.0, "runs": 3.0}, 6.0)
    assert done.count("runs") == pytest.approx(3 * done.count("reads"), rel=0.01)


def test_kinds_of_samples_take_turns_until_the_time_is_used_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, done = [0.0], list[str]()
    monkeypatch.setattr("sti.calibration.lane_timer.perf_counter", lambda: now[0])

    def work(name: str, seconds: float) -> Callable[[], None]:
        def once() -> None:
            now[0] += seconds
            done.append(name)

        return once

    take_turns({"a": work("a", 0.1), "b": work("b", 0.3)}, {"a": 0.5, "b": 0.5}, 6.05)
    assert 5.9 < now[0] <= 6.05
    assert done.count("a") * 0.1 == pytest.approx(done.count("b") * 0.3, abs=0.35)
    assert "b" in done[:3] and "b" in done[-6:]
