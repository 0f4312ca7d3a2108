"""The runner and its executors with a back end of NumPy: nothing but the interface is used."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

import numpy as np
import pytest

from sti.backend.interface import Backend, BlockDecoder, DecodeTask
from sti.backend.onnxruntime.compute import OrtBackend
from sti.errors import PackCorruptError
from sti.model.workload import Workload
from sti.pack.header import VOCABULARY
from sti.pack.pack_reader import PackReader
from sti.pipeline.runner import Mode, Outcome, Runner
from sti.pipeline.trace import Recorder
from sti.planning.block_jobs import prepare
from sti.planning.plan import PlanRequest
from sti.planning.uniform import uniform_plan
from sti.text.wordpiece import Tokenizer, TokenizerSpec
from tests.support.numpy_backend import NumpyBackend, SpecificationDecoder
from tests.support.packs import TEXTS, tiny_pack
from tests.support.paths import ROOT

MIXED = (*TEXTS, "the dog runs under the table " * 6)
"""Of such different lengths that they make several groups."""

MODES: tuple[Mode, ...] = ("sequential", "pipelined")


class Failure(Exception):
    pass


class FailsOnce(NumpyBackend):
    """Fails at the third block that it is asked for."""

    def note(self, what: str, layer: int, kind: str) -> None:
        super().note(what, layer, kind)
        if [asked[0] for asked in self.asked].count("block") == 3 and what == "block":
            raise Failure


class Damaged(NumpyBackend):
    """Its decoders find damage in the second layer's feed-forward block."""

    def make_decoder(self) -> SpecificationDecoder:
        class Decoder(SpecificationDecoder):
            def decode(self, task: DecodeTask) -> None:
                if (task.job.block.layer, task.job.block.kind) == (1, "ffn"):
                    raise PackCorruptError("no good")
                super().decode(task)

        return Decoder(self._decoder)


@pytest.fixture(scope="module")
def reader() -> Iterator[PackReader]:
    with PackReader.open(tiny_pack()) as opened:
        yield opened


@contextmanager
def running(reader: PackReader, backend: Backend) -> Iterator[Runner]:
    runner = Runner(reader, backend, verify=False)
    try:
        yield runner
    finally:
        runner.close()


def run(
    runner: Runner, reader: PackReader, mode: Mode = "pipelined", *, decode_threads: int = 1
) -> Outcome:
    plan = uniform_plan(
        PlanRequest(reader.manifest, reader.pack_id, Workload(8, 8)),
        bits=4,
        decode_threads=decode_threads,
    )
    tokenizer = Tokenizer(
        TokenizerSpec.from_json(reader.manifest.tokenizer), reader.resident(VOCABULARY).tobytes()
    )
    return runner.run(
        prepare(plan, reader.manifest, reader.block_offset),
        plan,
        [tokenizer.encode(text) for text in MIXED],
        mode=mode,
        recorder=Recorder(perf_counter()),
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


def test_every_group_is_computed_block_after_block(reader: PackReader) -> None:
    backend = NumpyBackend(reader)
    with running(reader, backend) as runner:
        run(runner, reader)
    blocks = [(layer, kind) for what, layer, kind in backend.asked if what == "block"]
    order = [(block.layer, block.kind) for block in reader.manifest.blocks]
    groups = len(blocks) // len(order)
    assert groups > 1
    assert blocks == [block for block in order for _ in range(groups)]


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
def test_what_a_decoder_finds_damaged_is_told_with_pack_and_block(
    reader: PackReader, mode: Mode
) -> None:
    named = pytest.raises(PackCorruptError, match=f"{reader.path}: layer 1 ffn: no good")
    with running(reader, Damaged(reader)) as runner, named:
        run(runner, reader, mode)


def test_each_decode_thread_has_a_decoder_of_its_own(reader: PackReader) -> None:
    made: list[BlockDecoder] = []

    class Counting(NumpyBackend):
        def make_decoder(self) -> SpecificationDecoder:
            decoder = super().make_decoder()
            made.append(decoder)
            return decoder

    with running(reader, Counting(reader)) as runner:
        run(runner, reader, decode_threads=2)
        assert len(made) == 2
        run(runner, reader, decode_threads=3)
        run(runner, reader, decode_threads=1)
    assert len(made) == 3


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
        "assert seen.pipelined and seen.blocks\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
