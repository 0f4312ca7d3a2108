"""The runner and its executors with a back end of NumPy: nothing but the interface is used."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest
from numpy.typing import NDArray

from sti.backend.interface import Backend
from sti.backend.onnxruntime.compute import OrtBackend
from sti.codec.codebook import Codebook
from sti.codec.decoder import NumpyDecoder
from sti.codec.pieces import Fault, GroupDecoder
from sti.device.lanes import PIPELINED, SEQUENTIAL, LaneThreads, lane_of, same_work, shared
from sti.errors import PackCorruptError, RunError
from sti.model.workload import Workload
from sti.pack.header import VOCABULARY
from sti.pack.pack_reader import PackReader
from sti.pipeline.runner import Mode, Outcome, Runner
from sti.pipeline.trace import Recorder
from sti.planning.downgrade import AS_PLANNED, Adapt, Downgrade, downgraded
from sti.planning.lane_threads import shares_of
from sti.planning.plan import Plan, PlanRequest, Target, connect_name
from sti.planning.step_jobs import prepare
from sti.planning.uniform import uniform_plan
from sti.storage.byte_ranges import ByteRange
from sti.storage.file_reader import FileReader
from sti.text.tokenizer import Tokenizer
from sti.text.tokenizer_spec import TokenizerSpec
from tests.support.numpy_backend import NumpyBackend
from tests.support.packs import TEXTS, tiny_pack
from tests.support.paths import ROOT

MIXED = (*TEXTS, "the dog runs under the table " * 6)
"""Of such different lengths that they make several groups."""

THREADS = (SEQUENTIAL, PIPELINED, shared(1), shared(2), shared(3), shared(4), shared(5))
"""Blocks have two groups: from four threads on, each is computed in shares."""
LANES = 5
"""Of the back ends here: as many as the most threads that share steps."""
every_kind = pytest.mark.parametrize("threads", THREADS, ids=str)


class Failure(Exception):
    pass


class FailsOnce(NumpyBackend):
    """Fails once, at what ``at`` names."""

    at = ""

    def note(self, what: str, layer: int, kind: str) -> None:
        super().note(what, layer, kind)
        last = (layer, kind) == (self.residents.manifest.groups[-1].layer, "ffn")
        count = [asked[0] for asked in self.asked].count(what)
        here = {
            "first step": what == "step" and count == 1,
            "third step": what == "step" and count == 3,
            "first connect": what == "connect" and count == 1,
            "last connect": what == "connect" and last,
        }
        if here.get(self.at):
            self.at = ""
            raise Failure


class Finds(NumpyBackend):
    """Its decoder finds a fault in one group whenever it gets to see the piece."""

    fault = Fault(1, 2, "checksum")
    which = -1
    """The group; the last one."""

    def decoder(self, variant: str) -> GroupDecoder:
        sound, fault = super().decoder(variant), self.fault
        checksum = self.residents.manifest.groups[self.which].outlier_checksums[fault.row]

        class Decoder(NumpyDecoder):
            def decode(self, data, starts, shards, operands, **rest):  # type: ignore[no-untyped-def]
                found = sound.decode(data, starts, shards, operands, **rest)
                for row in shards[shards["row"] == fault.row]:
                    here = int(row["pieces"]["checksum"][0]) == checksum
                    if here and int(row["planes"]) >= fault.piece:
                        return fault
                return found

        return Decoder(Codebook.from_json(self.residents.manifest.codebook))


@pytest.fixture(scope="module")
def reader() -> Iterator[PackReader]:
    with PackReader.open(tiny_pack()) as opened:
        yield opened


@contextmanager
def running(reader: PackReader, backend: Backend) -> Iterator[Runner]:
    runner = Runner(reader, backend)
    try:
        yield runner
    finally:
        runner.close()


def plan_of(reader: PackReader, threads: LaneThreads = PIPELINED) -> Plan:
    request = PlanRequest(reader.manifest, reader.pack_id, Workload(8, 8))
    return replace(uniform_plan(request, bits=4), threads=threads)


def run(
    runner: Runner,
    reader: PackReader,
    mode: Mode = "planned",
    *,
    adapt: Adapt = AS_PLANNED,
    plan: Plan | None = None,
) -> Outcome:
    plan = plan or plan_of(reader)
    tokenizer = Tokenizer(
        TokenizerSpec.from_json(reader.manifest.tokenizer), reader.resident(VOCABULARY).tobytes()
    )
    return runner.run(
        prepare(plan, reader.manifest, reader.group_offset),
        plan,
        [tokenizer.encode(text) for text in MIXED],
        mode=mode,
        recorder=Recorder(perf_counter()),
        adapt=adapt,
    )


@every_kind
def test_threads_over_any_back_end_equal_one_thread_that_does_it_all(
    reader: PackReader, threads: LaneThreads
) -> None:
    with running(reader, NumpyBackend(reader, lanes=LANES)) as runner:
        expected = run(runner, reader, "sequential")
        for _ in range(3):
            found = run(runner, reader, plan=plan_of(reader, threads))
            np.testing.assert_array_equal(found.outputs, expected.outputs)
            assert found.bytes_read == expected.bytes_read > 0


def test_a_plan_for_more_threads_than_there_are_is_refused(reader: PackReader) -> None:
    with running(reader, NumpyBackend(reader, lanes=2)) as runner:
        with pytest.raises(RunError, match="plan computes on 9 threads, the back end on 2"):
            run(runner, reader, plan=plan_of(reader, shared(9)))
        assert run(runner, reader, plan=plan_of(reader, shared(2))).trace.threads == shared(2)


@every_kind
def test_every_step_and_connect_is_in_the_trace_once(
    reader: PackReader, threads: LaneThreads
) -> None:
    plan = plan_of(reader, threads)
    with running(reader, NumpyBackend(reader, lanes=LANES)) as runner:
        trace = run(runner, reader, plan=plan).trace
    blocks = dict.fromkeys((step.layer, step.kind) for step in plan.steps)
    steps = sorted(step.name for step in plan.steps)
    shared_out = steps * len(shares_of(2, threads.compute))
    for work, expected in (
        ("storage", [*steps, "embeddings"]),
        ("decode", shared_out),
        ("compute", [*shared_out, *(connect_name(*block) for block in blocks), "embed", "head"]),
    ):
        spans = [
            span for lane in trace.lanes if same_work(lane, work) for span in trace.lanes[lane]
        ]
        assert sorted(span.name for span in spans) == sorted(expected)
    for thread in range(threads.compute):  # decodes or computes, one after the other
        names = [lane_of("compute", thread)]
        names += [] if threads.decode else [lane_of("decode", thread)]
        ends = 0.0
        for span in sorted(span for name in names for span in trace.lanes.get(name, ())):
            assert span.start_s >= ends
            ends = span.end_s


@every_kind
def test_a_block_is_computed_after_the_one_before_is_connected(
    reader: PackReader, threads: LaneThreads
) -> None:
    backend = NumpyBackend(reader, lanes=LANES)
    with running(reader, backend) as runner:
        run(runner, reader, plan=plan_of(reader, threads))
    blocks = list(dict.fromkeys((layer, kind) for _, layer, kind in backend.asked))
    order = [blocks.index((layer, kind)) for _, layer, kind in backend.asked]
    assert order == sorted(order)
    for block in blocks:
        asked = [what for what, *which in backend.asked if tuple(which) == block]
        steps = asked.count("step")
        assert asked == ["step"] * steps + ["connect"] * (len(asked) - steps)


def test_threads_that_share_steps_compute_side_by_side(reader: PackReader) -> None:
    """Two threads must both be inside a step of the same block, or neither gets out."""

    class Meets(NumpyBackend):
        meeting = threading.Barrier(2)

        def note(self, what: str, layer: int, kind: str) -> None:
            super().note(what, layer, kind)
            if what == "step":
                self.meeting.wait(timeout=20)

    backend = Meets(reader, lanes=2)
    with running(reader, backend) as runner:
        found = run(runner, reader, plan=plan_of(reader, shared(2)))
    assert {"compute", "compute 1"} <= set(found.trace.lanes)


def test_back_ends_give_the_same_answers(reader: PackReader) -> None:
    answers = []
    for backend in (NumpyBackend(reader), OrtBackend(reader, lanes=1)):
        with running(reader, backend) as runner:
            answers.append(np.array(run(runner, reader).outputs))
    np.testing.assert_allclose(answers[0], answers[1], atol=2e-3)


def test_every_group_of_sentences_is_computed_step_after_step(reader: PackReader) -> None:
    backend = NumpyBackend(reader)
    with running(reader, backend) as runner:
        run(runner, reader)
    steps = [(layer, kind) for what, layer, kind in backend.asked if what == "step"]
    order = [(group.layer, group.kind) for group in reader.manifest.groups]
    batches = len(steps) // len(order)
    assert batches > 1
    assert steps == [step for step in order for _ in range(batches)]


@every_kind
@pytest.mark.parametrize("at", ["first step", "third step", "first connect", "last connect"])
def test_a_back_end_that_fails_ends_the_run_and_leaves_the_runner_usable(
    reader: PackReader, threads: LaneThreads, at: str
) -> None:
    plan = plan_of(reader, threads)
    with running(reader, NumpyBackend(reader, lanes=LANES)) as runner:
        expected = run(runner, reader, plan=plan)
    backend = FailsOnce(reader, lanes=LANES)
    backend.at = at
    with running(reader, backend) as runner:
        with pytest.raises(Failure):
            run(runner, reader, plan=plan)
        np.testing.assert_array_equal(run(runner, reader, plan=plan).outputs, expected.outputs)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("sti-")]


@every_kind
@pytest.mark.parametrize("adapt", [AS_PLANNED, Adapt(damaged=True)])
@pytest.mark.parametrize(
    ("fault", "named"),
    [
        (Fault(1, 0, "checksum"), "outlier list: checksum does not match"),
        (Fault(1, 0, "outliers"), "outlier list: contradicts itself"),
        (Fault(1, 1, "checksum"), "plane of 2 bits: checksum does not match"),
        (Fault(1, 2, "size"), "plane of 3 bits: does not fit the shard"),
    ],
)
def test_what_cannot_be_left_out_is_told_with_pack_and_place(
    reader: PackReader, threads: LaneThreads, adapt: Adapt, fault: Fault, named: str
) -> None:
    last = reader.manifest.groups[-1]
    backend = Finds(reader, lanes=LANES)
    backend.fault = fault
    place = f"{reader.path}: layer 2 ffn, group {last.number}, slice {last.first + 1}, {named}"
    with running(reader, backend) as runner, pytest.raises(PackCorruptError, match=place):
        run(runner, reader, plan=plan_of(reader, threads), adapt=adapt)


@every_kind
def test_a_damaged_plane_is_left_out_where_that_is_allowed(
    reader: PackReader, threads: LaneThreads
) -> None:
    last, plan = reader.manifest.groups[-1], plan_of(reader, threads)
    expected = Downgrade(last.layer, last.kind, last.number, 3, last.first + 1)
    with running(reader, Finds(reader, lanes=LANES)) as runner:
        found = run(runner, reader, plan=plan, adapt=Adapt(damaged=True))
        with pytest.raises(PackCorruptError, match="plane of 3 bits"):
            run(runner, reader, plan=plan)
    assert found.trace.downgrades == (expected,)
    assert any(expected.step in str(event) for event in found.trace.to_chrome(plan)["traceEvents"])
    less = downgraded(plan, reader.manifest, found.trace.downgrades)
    assert less.steps[:-1] == plan.steps[:-1] and less.steps[-1].counts == (2, 0, 0, 0, 0)
    with running(reader, NumpyBackend(reader, lanes=LANES)) as runner:
        again = run(runner, reader, plan=less)
        whole = run(runner, reader, plan=plan)
    np.testing.assert_array_equal(found.outputs, again.outputs)
    assert (np.array(found.outputs) != np.array(whole.outputs)).any()


def test_running_over_another_back_end_needs_no_onnxruntime() -> None:
    code = (
        "import sys\n"
        "sys.modules['onnxruntime'] = None\n"
        "from sti.calibration.lane_timer import LaneTimer\n"
        "from sti.pack.pack_reader import PackReader\n"
        "from sti.planning.lane_threads import lane_choices\n"
        "from tests.support.numpy_backend import NumpyBackend\n"
        f"with PackReader.open({str(tiny_pack())!r}) as reader:\n"
        "    timer = LaneTimer(reader, NumpyBackend(reader), lane_choices(1, cores=2))\n"
        "    seen = timer.observe(0.01)\n"
        "    timer.close()\n"
        "assert seen.runs and seen.steps\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr


class Gated(FileReader):
    """Reads nothing before it has leave."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.leave = threading.Event()

    def read(self, item: ByteRange, out: NDArray[np.uint8]) -> None:
        assert self.leave.wait(30.0)
        super().read(item, out)


def test_only_what_may_become_too_much_is_waited_for() -> None:
    with PackReader.open(tiny_pack()) as reader:
        storage = Gated(Path(reader.path))
        runner = Runner(reader, NumpyBackend(reader), storage=storage)
        preloading = runner.preloading
        target = Target(preload_bytes=1 << 20)
        request = PlanRequest(reader.manifest, reader.pack_id, Workload(1, 8), target)
        plan = uniform_plan(request, bits=4)
        jobs = prepare(plan, reader.manifest, reader.group_offset)
        whole = sum(job.preload_bytes for job in jobs)
        assert whole > 0
        preloading.hold(jobs, plan)
        assert preloading.is_filling
        assert not preloading.hold_at_most(whole)  # does not wait, or would do so for ever
        assert preloading.is_filling and not preloading.wait_held(0.0)
        storage.leave.set()
        assert preloading.hold_at_most(whole - 1) and preloading.held_bytes < whole
        assert not preloading.is_filling
        runner.close()
