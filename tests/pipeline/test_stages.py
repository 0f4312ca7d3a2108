"""Layers on several devices: whatever the cut, the answers are those of one device to the bit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from time import perf_counter

import numpy as np
import pytest

from sti.backend.interface import Backend
from sti.backend.onnxruntime.compute import OrtBackend
from sti.device.lanes import LINK, PIPELINED, SEQUENTIAL, LaneThreads, shared
from sti.model.workload import Workload
from sti.pack.header import VOCABULARY
from sti.pack.pack_reader import PackReader
from sti.pipeline.runner import Runner
from sti.pipeline.sources import HiddenStates
from sti.pipeline.trace import Recorder
from sti.planning.plan import Plan, PlanRequest
from sti.planning.stages import Stage, are_whole, layers_of, part_of
from sti.planning.step_jobs import prepare
from sti.planning.uniform import uniform_plan
from sti.text.encoding import Encoding
from sti.text.tokenizer import Tokenizer
from sti.text.tokenizer_spec import TokenizerSpec
from tests.support.numpy_backend import NumpyBackend
from tests.support.packs import TEXTS, tiny_pack

MIXED = (*TEXTS, "the dog runs under the table " * 6)
"""Of such different lengths that they make several groups."""
KINDS = (SEQUENTIAL, PIPELINED, shared(1), shared(2))


class Failure(Exception):
    pass


@pytest.fixture(scope="module")
def reader() -> Iterator[PackReader]:
    with PackReader.open(tiny_pack()) as opened:
        yield opened


@pytest.fixture(scope="module")
def encodings(reader: PackReader) -> list[Encoding]:
    tokenizer = Tokenizer(
        TokenizerSpec.from_json(reader.manifest.tokenizer), reader.resident(VOCABULARY).tobytes()
    )
    return [tokenizer.encode(text) for text in MIXED]


def plan_of(reader: PackReader, threads: LaneThreads) -> Plan:
    request = PlanRequest(reader.manifest, reader.pack_id, Workload(8, 8))
    return replace(uniform_plan(request, bits=4), threads=threads)


def cuts(depth: int) -> list[tuple[Stage, ...]]:
    """Every way to cut so many layers into two stages, and one stage a layer."""
    two = [(Stage("a", 0, at - 1), Stage("b", at, depth - 1)) for at in range(1, depth)]
    return [*two, tuple(Stage(str(layer), layer, layer) for layer in range(depth))]


def through(
    runners: list[Runner],
    reader: PackReader,
    plan: Plan,
    stages: tuple[Stage, ...],
    encodings: list[Encoding],
) -> tuple[np.ndarray, ...]:
    """The answers of a chain, group by group."""
    given: HiddenStates | None = None
    for runner, stage in zip(runners, stages, strict=True):
        part = part_of(plan, stage)
        jobs = prepare(part, reader.manifest, reader.group_offset)
        arrived = given
        outcome = runner.run_stage(
            jobs,
            part,
            encodings if arrived is None else lambda found=arrived: found,  # type: ignore[misc]
            last=stage is stages[-1],
            recorder=Recorder(perf_counter()),
        )
        if not isinstance(outcome.found, HiddenStates):
            return outcome.found
        given = outcome.found
        assert (LINK in outcome.trace.lanes) == (stage is not stages[0])
    raise AssertionError("the last stage answers")


@pytest.mark.parametrize("threads", KINDS, ids=str)
@pytest.mark.parametrize("make", [NumpyBackend, OrtBackend])
def test_a_chain_gives_the_bits_of_one_device(
    reader: PackReader, encodings: list[Encoding], threads: LaneThreads, make: type[Backend]
) -> None:
    plan = plan_of(reader, threads)
    most = plan.depth
    runners = [Runner(reader, make(reader, lanes=2)) for _ in range(most)]  # type: ignore[call-arg]
    try:
        whole = runners[0].run(
            prepare(plan, reader.manifest, reader.group_offset),
            plan,
            encodings,
            mode="planned",
            recorder=Recorder(perf_counter()),
        )
        for stages in cuts(plan.depth):
            assert are_whole(stages, layers_of(plan))
            found = through(runners[: len(stages)], reader, plan, stages, encodings)
            rows = [row for group in found for row in group]
            assert {row.tobytes() for row in rows} == {row.tobytes() for row in whole.outputs}
            assert len(rows) == len(whole.outputs)
    finally:
        for runner in runners:
            runner.close()


def test_what_ends_the_wait_ends_the_run_and_leaves_the_runner_usable(
    reader: PackReader, encodings: list[Encoding]
) -> None:
    plan, backend = plan_of(reader, PIPELINED), NumpyBackend(reader)
    stages = cuts(plan.depth)[0]
    part = part_of(plan, stages[1])
    jobs = prepare(part, reader.manifest, reader.group_offset)

    def lost() -> HiddenStates:
        raise Failure

    runner = Runner(reader, backend)
    try:
        for _ in range(2):
            with pytest.raises(Failure):
                runner.run_stage(jobs, part, lost, last=True, recorder=Recorder(perf_counter()))
        assert through([runner, runner], reader, plan, stages, encodings)
    finally:
        runner.close()


def test_hidden_states_travel_without_padding() -> None:
    packed = np.arange(12, dtype=np.float32).reshape(6, 2)
    states = HiddenStates(((1, 3), (2,)), packed)
    first, second = states.padded()
    assert first.shape == (2, 3, 2) and second.shape == (1, 2, 2)
    assert np.array_equal(first[0], [[0, 1], [0, 0], [0, 0]])
    assert np.array_equal(np.concatenate([first[1], second[0]]), packed[1:])


@pytest.mark.parametrize(
    "stages",
    [
        (),
        (Stage("a", 0, 2),),
        (Stage("a", 1, 3),),
        (Stage("a", 0, 1), Stage("b", 3, 3)),
        (Stage("a", 0, 2), Stage("b", 2, 3)),
        (Stage("a", 0, 1), Stage("a", 2, 3)),
        (Stage("a", 0, 3), Stage("b", 4, 5)),
    ],
)
def test_stages_that_are_no_chain_are_known(stages: tuple[Stage, ...]) -> None:
    assert not are_whole(stages, range(4))
