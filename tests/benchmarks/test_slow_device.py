"""Emulated slower devices: the same answers, as much later as they are slower."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

import sti
from benchmarks import slow_device
from benchmarks.slow_device import emulated, slow_options, slowed
from sti.backend.interface import Backend
from sti.device.emulated_storage import parse_storage
from sti.device.lanes import COMPUTE, DECODE, LANES, SEQUENTIAL, STORAGE, by_work
from sti.device.profile import DeviceProfile
from sti.engine.options import EngineOptions
from sti.errors import InputError
from sti.model.workload import Workload
from sti.pack.pack_reader import PackReader
from sti.planning.plan import EXACT, PlanRequest
from sti.planning.uniform import uniform_plan
from tests.support.numpy_backend import NumpyBackend
from tests.support.packs import PROFILE, TEXTS, tiny_pack


class Clock:
    """Time that passes where somebody works or sleeps, alone."""

    def __init__(self) -> None:
        self.now = self.worked = 0.0
        self.late = self.waited = 0.0

    def perf_counter(self) -> float:
        return self.now

    def thread_time(self) -> float:
        return self.worked

    def sleep(self, seconds: float) -> None:
        self.now += seconds + self.late

    def work(self, seconds: float) -> None:
        self.worked += seconds
        self.now += seconds + self.waited


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    for name in ("perf_counter", "thread_time", "sleep"):
        monkeypatch.setattr(slow_device, name, getattr(found, name))
    return found


def working(clock: Clock) -> Any:
    """A back end that gives nothing, after 3 seconds of work for each computation."""

    def work(*_: object, **__: object) -> None:
        clock.work(3.0)

    state = SimpleNamespace(step=work, connect=work, finish=work)

    def start(*_: object, **__: object) -> Any:
        work()
        return state

    return SimpleNamespace(start=start, decoder=lambda _: SimpleNamespace(decode=work))


CALLS: dict[str, Callable[[Any, Any], object]] = {
    "start": lambda backend, _: backend.start(None, None, ()),
    "step": lambda _, state: state.step(None, 1),
    "connect": lambda _, state: state.connect(0, "ffn"),
    "finish": lambda _, state: state.finish(),
    "decode": lambda backend, _: backend.decoder(EXACT).decode(None, None, None, ()),
}


@pytest.mark.parametrize("call", CALLS)
def test_all_that_computes_takes_as_many_times_as_long(clock: Clock, call: str) -> None:
    backend = slowed(working(clock), 4.0)
    state = backend.start(None, None, ())  # type: ignore[arg-type]
    assert clock.now == 12.0
    CALLS[call](backend, state)
    assert (clock.now, clock.worked) == (24.0, 6.0)


def test_sleeping_too_long_is_made_good_by_the_next_sleep(clock: Clock) -> None:
    backend = slowed(working(clock), 4.0)
    clock.late = 0.01
    for turn in range(1, 4):
        CALLS["start"](backend, None)
        assert clock.now == pytest.approx(12.0 * turn + 0.01)


def test_waiting_for_a_core_is_part_of_the_time(clock: Clock) -> None:
    backend = slowed(working(clock), 4.0)
    clock.waited = 5.0
    CALLS["start"](backend, None)
    assert clock.now == 12.0
    clock.waited = 20.0  # which nothing makes good: a little of it at most
    CALLS["start"](backend, None)
    assert clock.now == 12.0 + 23.0
    clock.waited = 0.0
    CALLS["start"](backend, None)
    assert 46.9 < clock.now < 47.0


def test_a_device_that_is_not_slower_is_refused() -> None:
    for times in (0.5, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="at least 1"):
            slowed(working(Clock()), times)
        with pytest.raises(ValueError, match="at least 1"):
            emulated(PROFILE, times=times)


def test_answers_of_an_engine_on_a_slower_device_are_equal_to_the_bit() -> None:
    pack, target = tiny_pack(), sti.TargetSpec(fidelity=4)
    storage = parse_storage("ufs3")
    with sti.Engine.open(pack, target, threads=1, profile=PROFILE) as engine:
        expected = engine.run(TEXTS).embeddings
    for options in (
        slow_options(pack, PROFILE, times=2.0),
        slow_options(pack, PROFILE, times=1.5, storage=storage, history=False),
    ):
        options.validate()
        with sti.Engine(PackReader.open(pack), target, options) as engine:
            for mode in ("planned", "sequential"):
                found = engine.run(TEXTS, mode=mode).embeddings
                assert found.tobytes() == expected.tobytes()


class Closing(NumpyBackend):
    """Notes when it is closed."""

    def close(self) -> None:
        super().close()
        self.note("close", 0, "")


def test_a_wrapped_back_end_computes_and_is_closed_with_its_engine() -> None:
    asked = list[NumpyBackend]()

    def wrap(_: Backend) -> Backend:
        asked.append(Closing(reader))
        return asked[-1]

    reader = PackReader.open(tiny_pack())
    options = EngineOptions(threads=1, profile=PROFILE, wrap_backend=wrap)
    with sti.Engine(reader, sti.TargetSpec(fidelity=4), options) as engine:
        engine.run(TEXTS)
    (backend,) = asked
    assert ("connect", 2, "ffn") in backend.asked
    assert backend.asked[-1][0] == "close"


def test_a_wrapped_back_end_needs_a_profile() -> None:
    with pytest.raises(InputError, match="needs a profile"):
        EngineOptions(wrap_backend=lambda backend: backend).validate()


def predicted_s(profile: DeviceProfile) -> dict[str, float]:
    with PackReader.open(tiny_pack()) as reader:
        request = PlanRequest(reader.manifest, reader.pack_id, Workload(1, 8))
        plan = uniform_plan(request, bits=4, profile=profile, threads=SEQUENTIAL)
    assert plan.predicted is not None
    return by_work(plan.predicted.busy_s)


def test_predictions_for_a_slower_device_are_as_many_times_longer() -> None:
    before = predicted_s(PROFILE)
    assert predicted_s(emulated(PROFILE, times=10.0)) == pytest.approx(
        {
            STORAGE: before[STORAGE],
            DECODE: 10 * before[DECODE],
            COMPUTE: 10 * before[COMPUTE],
        }
    )


def test_storage_is_emulated_with_the_processor() -> None:
    storage = parse_storage("microsd")
    device = emulated(PROFILE, times=3.0, storage=storage)
    assert device.storage.bytes_per_s == storage.bytes_per_s < PROFILE.storage.bytes_per_s
    assert device.decode.shard_s == 3 * PROFILE.decode.shard_s
    assert "3 times slower" in device.device


def test_less_work_at_a_time_leaves_less_contention() -> None:
    contended = replace(
        PROFILE,
        runs={
            name: replace(run, contention=dict.fromkeys(LANES, 1.5))
            for name, run in PROFILE.runs.items()
        },
    )
    for run in emulated(contended, times=5.0).runs.values():
        assert run.contention == {STORAGE: 1.5, DECODE: 1.1, COMPUTE: 1.1}
