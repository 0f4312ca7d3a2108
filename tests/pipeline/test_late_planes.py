"""Planes that would come too late: left out on every kind of threads, recorded, and replayable."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from time import perf_counter, sleep

import numpy as np
import pytest
from numpy.typing import NDArray

from sti.codec.pieces import Fault
from sti.device.emulated_storage import SlowReader, with_storage
from sti.device.lane_profiles import StorageProfile
from sti.device.lanes import PIPELINED, SEQUENTIAL, LaneThreads, shared
from sti.model.workload import Workload
from sti.pack.header import VOCABULARY
from sti.pack.pack_reader import PackReader
from sti.pipeline.runner import Mode, Outcome, Runner
from sti.pipeline.trace import Recorder
from sti.planning.downgrade import AS_PLANNED, DAMAGED, LATE, Adapt, downgraded
from sti.planning.plan import Plan, PlanRequest, Target
from sti.planning.prediction import predict
from sti.planning.step_jobs import prepare
from sti.planning.uniform import uniform_plan
from sti.storage.byte_ranges import ByteRange
from sti.storage.file_reader import FileReader
from sti.text.tokenizer import Tokenizer
from sti.text.tokenizer_spec import TokenizerSpec
from tests.pipeline.test_runner import Finds
from tests.support.numpy_backend import NumpyBackend
from tests.support.packs import PROFILE, TEXTS, tiny_pack

THREADS = (SEQUENTIAL, PIPELINED, shared(1), shared(2), shared(4))
every_kind = pytest.mark.parametrize("threads", THREADS, ids=str)
LATENCY_S = 0.4
STALL_S = 1.2 * LATENCY_S
"""After it everything is late."""
SOON_S = LATENCY_S / 4
"""The latency where nothing has to be in time."""
SLOW = replace(PROFILE.storage, request_s=1e-4, bytes_per_s=1e6)
"""The storage of these runs: what planes cost is most of what they take."""
FAST = replace(SLOW, request_s=0.0, bytes_per_s=1e12)
MACHINE = with_storage(PROFILE, SLOW)


class Stalls:
    """Slow storage that sleeps for ``stalls[n]`` seconds before its n-th read."""

    def __init__(
        self, pack: PackReader, stalls: dict[int, float], pace: StorageProfile = SLOW
    ) -> None:
        self._inner = SlowReader(FileReader(pack.path, descriptor=pack.descriptor), pace)
        self.stalls, self.reads = stalls, 0

    direct = False

    def read(self, item: ByteRange, out: NDArray[np.uint8]) -> None:
        sleep(self.stalls.get(self.reads, 0.0))
        self.reads += 1
        self._inner.read(item, out)

    def read_rows(self, base: int, rows: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        self._inner.read_rows(base, rows, out)

    def close(self) -> None:
        self._inner.close()


@pytest.fixture(scope="module")
def reader() -> Iterator[PackReader]:
    with PackReader.open(tiny_pack()) as opened:
        yield opened


def plan_of(reader: PackReader, threads: LaneThreads, *, preload: int = 0) -> Plan:
    target = Target(LATENCY_S, preload)
    request = PlanRequest(reader.manifest, reader.pack_id, Workload(8, 8), target)
    profile = replace(MACHINE, threads=threads.compute)
    plan = replace(uniform_plan(request, bits=8, profile=profile), threads=threads, predicted=None)
    return replace(plan, predicted=predict(reader.manifest, profile, plan))


Run = Callable[..., Outcome]


@pytest.fixture
def run(reader: PackReader) -> Run:
    """Runs a plan in a runner of its own, with storage that is slow and stalls.

    Where nothing is late and lateness changes nothing, storage need not be slow.
    """
    tokenizer = Tokenizer(
        TokenizerSpec.from_json(reader.manifest.tokenizer), reader.resident(VOCABULARY).tobytes()
    )

    def found(
        plan: Plan,
        stalls: dict[int, float] | None = None,
        *,
        adapt: bool = True,
        backend: type[NumpyBackend] = NumpyBackend,
        mode: Mode = "planned",
        damaged: bool = False,
        latency_s: float = LATENCY_S,
    ) -> Outcome:
        storage = Stalls(reader, {}, SLOW if adapt or stalls else FAST)
        runner = Runner(reader, backend(reader, lanes=4), storage=storage)
        jobs = prepare(plan, reader.manifest, reader.group_offset)
        try:
            runner.preloading.hold(jobs, plan)
            assert runner.preloading.wait_held(10.0)
            storage.reads, storage.stalls = 0, stalls or {}
            now = perf_counter()
            return runner.run(
                jobs,
                plan,
                [tokenizer.encode(text) for text in TEXTS],
                mode=mode,
                recorder=Recorder(now),
                adapt=Adapt(damaged, now + latency_s) if adapt else AS_PLANNED,
            )
        finally:
            runner.close()

    return found


@every_kind
def test_after_a_stall_fewer_planes_are_read_and_the_plan_as_run_repeats_the_answer(
    reader: PackReader, run: Run, threads: LaneThreads
) -> None:
    plan = plan_of(reader, threads)
    whole = run(plan)
    assert whole.trace.downgrades == ()
    np.testing.assert_array_equal(whole.outputs, run(plan, adapt=False).outputs)
    late = run(plan, {3: STALL_S})
    left_out = {item.step: item.bits for item in late.trace.downgrades}
    names = [step.name for step in plan.steps]
    # In the order of the steps, and nothing of what was read before it was late.
    assert list(left_out) == [name for name in names[4:] if name in left_out]
    assert left_out
    assert {(item.reason, item.slice) for item in late.trace.downgrades} == {(LATE, None)}
    less = downgraded(plan, reader.manifest, late.trace.downgrades)
    assert less.steps[:4] == plan.steps[:4]
    again = run(less, adapt=False)
    np.testing.assert_array_equal(late.outputs, again.outputs)
    assert again.trace.downgrades == ()
    assert (np.array(late.outputs) != np.array(whole.outputs)).any()
    np.testing.assert_array_equal(
        run(replace(less, threads=SEQUENTIAL), adapt=False).outputs, late.outputs
    )


@every_kind
def test_late_planes_are_waited_for_where_that_is_asked(
    reader: PackReader, run: Run, threads: LaneThreads
) -> None:
    plan = plan_of(reader, threads)
    stalls, soon = {1: 1.2 * SOON_S}, partial(run, latency_s=SOON_S)
    waited = run(plan, stalls, adapt=False)
    assert waited.trace.downgrades == ()
    np.testing.assert_array_equal(waited.outputs, run(plan, adapt=False).outputs)
    if threads != SEQUENTIAL:
        other = soon(plan, stalls, mode="sequential")
        assert other.trace.downgrades == ()  # its times are not those that were predicted
    unknown = soon(replace(plan, predicted=None), stalls)
    assert unknown.trace.downgrades == ()


@every_kind
def test_preloaded_planes_are_never_left_out(
    reader: PackReader, run: Run, threads: LaneThreads
) -> None:
    plan = plan_of(reader, threads, preload=10**6)
    whole = prepare(plan, reader.manifest, reader.group_offset)
    steps = []
    for number, (step, job) in enumerate(zip(plan.steps, whole, strict=True)):
        # All of every third step, two planes of the next one, none of the third.
        size = sum(item.length for item in job.ranges)
        two = sum(item.length for item in job.lowered(2).ranges)
        steps.append(step._replace(preload_bytes=(size, two, 0)[number % 3]))
    plan = replace(plan, steps=tuple(steps))
    profile = replace(MACHINE, threads=threads.compute)
    plan = replace(plan, predicted=predict(reader.manifest, profile, plan))
    late = run(plan, {0: STALL_S})
    less = downgraded(plan, reader.manifest, late.trace.downgrades)
    read = [sum(count > 0 for count in step.counts) for step in less.steps]
    assert all(found >= (5, 2, 1)[number % 3] for number, found in enumerate(read))
    assert min(read[1::3]) < 5 and min(read[2::3]) < 5
    np.testing.assert_array_equal(late.outputs, run(less, adapt=False).outputs)


@every_kind
def test_a_run_may_be_late_and_damaged(reader: PackReader, run: Run, threads: LaneThreads) -> None:
    plan = plan_of(reader, threads)
    found = run(plan, {len(plan.steps) - 2: STALL_S}, backend=FindsThird, damaged=True)
    assert {item.step for item in found.trace.downgrades} == {plan.steps[-1].name}
    less = downgraded(plan, reader.manifest, found.trace.downgrades)
    assert less.steps[-1].counts[2:] == (0, 0, 0)  # late, or damaged, or one after the other
    np.testing.assert_array_equal(found.outputs, run(less, adapt=False).outputs)
    found = run(plan, {2: STALL_S}, backend=FindsEarly, damaged=True)
    reasons = [(item.step, item.reason) for item in found.trace.downgrades]
    assert reasons[0] == (plan.steps[1].name, DAMAGED)
    assert {reason for _, reason in reasons[1:]} == {LATE}
    less = downgraded(plan, reader.manifest, found.trace.downgrades)
    np.testing.assert_array_equal(found.outputs, run(less, adapt=False).outputs)


class FindsThird(Finds):
    """Finds a fault in the third plane of the last step."""

    fault = Fault(1, 3, "checksum")


class FindsEarly(Finds):
    """Finds a fault in the second step."""

    which = 1


def test_a_trace_tells_what_came_too_late(reader: PackReader, run: Run) -> None:
    plan = plan_of(reader, PIPELINED)
    trace = run(plan, {3: STALL_S}).trace
    events = [event["name"] for event in trace.to_chrome(plan)["traceEvents"]]
    for item in trace.downgrades:
        assert f"{item.step}: from {item.bits} bits on left out: late" in events
    assert trace.downgrades
