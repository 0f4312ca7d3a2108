"""The runner and its executors with a back end of NumPy: nothing but the interface is used."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

import numpy as np
import pytest

from sti.backend.interface import Backend
from sti.backend.onnxruntime.compute import OrtBackend
from sti.codec.codebook import Codebook
from sti.codec.decoder import NumpyDecoder
from sti.codec.pieces import Fault, GroupDecoder
from sti.errors import PackCorruptError
from sti.model.workload import Workload
from sti.pack.header import VOCABULARY
from sti.pack.pack_reader import PackReader
from sti.pipeline.runner import Mode, Outcome, Runner
from sti.pipeline.trace import Recorder
from sti.planning.downgrade import Downgrade, downgraded
from sti.planning.plan import Plan, PlanRequest
from sti.planning.step_jobs import prepare
from sti.planning.uniform import uniform_plan
from sti.text.wordpiece import Tokenizer, TokenizerSpec
from tests.support.numpy_backend import NumpyBackend
from tests.support.packs import TEXTS, tiny_pack
from tests.support.paths import ROOT

MIXED = (*TEXTS, "the dog runs under the table " * 6)
"""Of such different lengths that they make several groups."""

MODES: tuple[Mode, ...] = ("sequential", "pipelined")


class Failure(Exception):
    pass


class FailsOnce(NumpyBackend):
    """Fails at the third step that it is asked for."""

    def note(self, what: str, layer: int, kind: str) -> None:
        super().note(what, layer, kind)
        if [asked[0] for asked in self.asked].count("step") == 3 and what == "step":
            raise Failure


class Finds(NumpyBackend):
    """Its decoder finds a fault in the last group whenever it gets to see the piece."""

    fault = Fault(1, 2, "checksum")

    @property
    def decoder(self) -> GroupDecoder:
        sound, fault = super().decoder, self.fault
        checksum = self.residents.manifest.groups[-1].outlier_checksums[fault.row]

        class Decoder(NumpyDecoder):
            def decode(self, data, starts, shards, operands, **rest):  # type: ignore[no-untyped-def]
                found = sound.decode(data, starts, shards, operands, **rest)
                rows = shards[rest.get("first", 0) :: rest.get("stride", 1)]
                for row in rows[rows["row"] == fault.row]:
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


def plan_of(reader: PackReader, decode_threads: int = 1) -> Plan:
    request = PlanRequest(reader.manifest, reader.pack_id, Workload(8, 8))
    return uniform_plan(request, bits=4, decode_threads=decode_threads)


def run(
    runner: Runner,
    reader: PackReader,
    mode: Mode = "pipelined",
    *,
    decode_threads: int = 1,
    adapt: bool = False,
    plan: Plan | None = None,
) -> Outcome:
    plan = plan or plan_of(reader, decode_threads)
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


@pytest.mark.parametrize("decode_threads", [1, 2, 3])
def test_a_pipeline_over_any_back_end_equals_one_lane_after_the_other(
    reader: PackReader, decode_threads: int
) -> None:
    with running(reader, NumpyBackend(reader)) as runner:
        expected = run(runner, reader, "sequential")
        found = run(runner, reader, decode_threads=decode_threads)
    np.testing.assert_array_equal(found.outputs, expected.outputs)
    assert found.bytes_read == expected.bytes_read > 0


def test_back_ends_give_the_same_answers(reader: PackReader) -> None:
    answers = []
    for backend in (NumpyBackend(reader), OrtBackend(reader, threads=1)):
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


@pytest.mark.parametrize("mode", MODES)
def test_a_back_end_that_fails_ends_the_run_and_leaves_the_runner_usable(
    reader: PackReader, mode: Mode
) -> None:
    with running(reader, NumpyBackend(reader)) as runner:
        expected = run(runner, reader)
    with running(reader, FailsOnce(reader)) as runner:
        with pytest.raises(Failure):
            run(runner, reader, mode)
        np.testing.assert_array_equal(run(runner, reader, mode).outputs, expected.outputs)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("adapt", [False, True])
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
    reader: PackReader, mode: Mode, adapt: bool, fault: Fault, named: str
) -> None:
    last = reader.manifest.groups[-1]
    backend = Finds(reader)
    backend.fault = fault
    place = f"{reader.path}: layer 2 ffn, group {last.number}, slice {last.first + 1}, {named}"
    with running(reader, backend) as runner, pytest.raises(PackCorruptError, match=place):
        run(runner, reader, mode, adapt=adapt)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("decode_threads", [1, 2, 3])
def test_a_damaged_plane_is_left_out_where_that_is_allowed(
    reader: PackReader, mode: Mode, decode_threads: int
) -> None:
    last, plan = reader.manifest.groups[-1], plan_of(reader, decode_threads)
    expected = Downgrade(last.layer, last.kind, last.number, 3, last.first + 1)
    with running(reader, Finds(reader)) as runner:
        found = run(runner, reader, mode, plan=plan, adapt=True)
        with pytest.raises(PackCorruptError, match="plane of 3 bits"):
            run(runner, reader, mode, plan=plan)
    assert found.trace.downgrades == (expected,)
    assert any(expected.step in str(event) for event in found.trace.to_chrome(plan)["traceEvents"])
    less = downgraded(plan, reader.manifest, found.trace.downgrades)
    assert less.steps[:-1] == plan.steps[:-1] and less.steps[-1].counts == (2, 0, 0, 0, 0)
    with running(reader, NumpyBackend(reader)) as runner:
        again = run(runner, reader, mode, plan=less)
        whole = run(runner, reader, mode, plan=plan)
    np.testing.assert_array_equal(found.outputs, again.outputs)
    assert (np.array(found.outputs) != np.array(whole.outputs)).any()


def test_running_over_another_back_end_needs_no_onnxruntime() -> None:
    code = (
        "import sys\n"
        "sys.modules['onnxruntime'] = None\n"
        "from sti.calibration.lane_timer import LaneTimer\n"
        "from sti.pack.pack_reader import PackReader\n"
        "from tests.support.numpy_backend import NumpyBackend\n"
        f"with PackReader.open({str(tiny_pack())!r}) as reader:\n"
        "    timer = LaneTimer(reader, NumpyBackend(reader))\n"
        "    seen = timer.observe(0.01)\n"
        "    timer.close()\n"
        "assert seen.pipelined and seen.steps\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
