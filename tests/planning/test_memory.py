"""What runs take of memory: as the run time allocates it, and more for what is more work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from time import perf_counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from shard_tools.packing.build import build
from shard_tools.packing.options import BuildOptions
from sti.backend.onnxruntime import hidden_memory
from sti.backend.onnxruntime.compute import OrtBackend
from sti.backend.working_buffer import WorkingBuffer
from sti.device.lanes import PIPELINED, SEQUENTIAL, LaneThreads, shared
from sti.engine.memory_budget import groups_of_texts
from sti.model.decoded_size import aligned
from sti.model.manifest import Manifest
from sti.model.workload import Workload
from sti.pack.pack_reader import PackReader
from sti.pack.tokenizer import pack_tokenizer
from sti.pipeline.runner import Runner
from sti.pipeline.trace import Recorder
from sti.planning.memory import (
    BUFFERS,
    RING,
    STATES,
    VALUES,
    MemoryPart,
    PlanMemory,
    ring_bytes,
    ring_size,
    total_size,
)
from sti.planning.plan import Plan, PlanRequest, Target
from sti.planning.step_jobs import StepJob, prepare
from sti.planning.uniform import uniform_plan
from sti.storage.byte_ranges import HUGE_PAGE, SECTOR
from sti.storage.reader import aligned_buffer
from sti.text.encoding import Encoding
from tests.support.checkpoints import write_checkpoint
from tests.support.packs import SHAPE, TEXTS, tiny_pack
from tests.support.synthetic import make_manifest

KINDS = (SEQUENTIAL, PIPELINED, shared(1), shared(2), shared(4))
LANES = 4
LIMITED = Target(memory_bytes=1 << 30)
LONG = "the dog runs under the table " * 6
BATCHES: tuple[tuple[str, ...], ...] = (
    (LONG,),
    TEXTS,
    (*TEXTS, LONG, LONG, "a"),
)
every_kind = pytest.mark.parametrize("threads", KINDS, ids=str)


@pytest.fixture(scope="module")
def many_groups(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack in which each slice is a group of its own."""
    place = tmp_path_factory.mktemp("groups")
    path = place / "groups.sti.safetensors"
    checkpoint = write_checkpoint(place / "checkpoint", shape=SHAPE)
    build(checkpoint, path, BuildOptions(group_bytes=1), progress=False)
    return path


@pytest.fixture(params=[2, 4], ids=lambda count: f"{count} groups")
def reader(request: pytest.FixtureRequest, many_groups: Path) -> Iterator[PackReader]:
    """Packs with several groups in each block."""
    with PackReader.open(tiny_pack() if request.param == 2 else many_groups) as found:
        assert {len(kind.groups) for kind in found.manifest.kinds} == {request.param}
        yield found


def plan_of(
    manifest: Manifest,
    threads: LaneThreads = SEQUENTIAL,
    *,
    bits: int = 4,
    target: Target = LIMITED,
    width: int | None = None,
) -> Plan:
    request = PlanRequest(manifest, "pack", Workload(1, 8), target)
    return uniform_plan(request, bits=bits, threads=threads, width=width)


def jobs_of(reader: PackReader, plan: Plan) -> tuple[StepJob, ...]:
    return prepare(plan, reader.manifest, reader.group_offset)


def size_of(parts: Sequence[MemoryPart], name: str) -> int:
    return next(part.size for part in parts if part.name == name)


@contextmanager
def running(reader: PackReader) -> Iterator[Runner]:
    runner = Runner(reader, OrtBackend(reader, lanes=LANES))
    try:
        yield runner
    finally:
        runner.close()


def ran(runner: Runner, reader: PackReader, plan: Plan, texts: Sequence[str]) -> list[Encoding]:
    tokenizer = pack_tokenizer(reader)
    encodings = [tokenizer.encode_text(text) for text in texts]
    recorder = Recorder(perf_counter())
    runner.run(jobs_of(reader, plan), plan, encodings, mode="planned", recorder=recorder)
    return encodings


# ---- as the run time allocates it


@every_kind
@pytest.mark.parametrize("limited", [False, True])
def test_the_ring_is_as_large_as_the_runner_makes_it(
    reader: PackReader, threads: LaneThreads, limited: bool
) -> None:
    target = LIMITED if limited else Target()
    plan = plan_of(reader.manifest, threads, target=target)
    foretold = size_of(PlanMemory(reader.manifest, plan).parts([Workload(1, 8)]), RING)
    with running(reader) as runner:
        ran(runner, reader, plan, TEXTS)
        assert runner.preloading.buffer_bytes == foretold
    assert foretold == ring_size(plan, [job.slot_bytes for job in jobs_of(reader, plan)])
    assert (foretold < HUGE_PAGE) == (limited and threads == SEQUENTIAL)


def test_within_a_budget_the_ring_shrinks_to_the_plan(reader: PackReader) -> None:
    with running(reader) as runner:
        for threads, bits in ((PIPELINED, 8), (SEQUENTIAL, 8), (SEQUENTIAL, 2)):
            plan = plan_of(reader.manifest, threads, bits=bits)
            ran(runner, reader, plan, TEXTS)
            parts = PlanMemory(reader.manifest, plan).parts([Workload(1, 8)])
            assert 0 <= runner.preloading.buffer_bytes - size_of(parts, RING) < SECTOR


class CountsBuffers(OrtBackend):
    """Knows the working buffers that were asked for."""

    def __init__(self, reader: PackReader) -> None:
        super().__init__(reader, lanes=LANES)
        self.used: dict[int, WorkingBuffer] = {}

    def buffer(self, number: int) -> WorkingBuffer:
        self.used[number] = super().buffer(number)
        return self.used[number]


@every_kind
def test_working_buffers_are_as_many_and_as_large_as_a_run_uses(
    reader: PackReader, threads: LaneThreads
) -> None:
    plan, manifest = plan_of(reader.manifest, threads), reader.manifest
    foretold = size_of(PlanMemory(manifest, plan).parts([Workload(1, 8)]), BUFFERS)
    backend = CountsBuffers(reader)
    runner = Runner(reader, backend)
    ran(runner, reader, plan, TEXTS)
    filled = [
        max(
            sum(
                aligned(room.matrix.nbytes)
                for room in buffer.operands(kind, max(kind.groups), np.dtype(np.int8))
            )
            for kind in manifest.kinds
        )
        for buffer in backend.used.values()
    ]
    runner.close()
    assert sum(filled) == foretold


@every_kind
@pytest.mark.parametrize("texts", BATCHES, ids=lambda texts: f"{len(texts)} texts")
def test_hidden_states_take_what_the_back_end_allocates(
    reader: PackReader,
    threads: LaneThreads,
    texts: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = plan_of(reader.manifest, threads)
    made: list[int] = []

    def noted(size: int) -> NDArray[np.uint8]:
        found = aligned_buffer(size)
        made.append(found.nbytes)
        return found

    monkeypatch.setattr(hidden_memory, "aligned_buffer", noted)
    with running(reader) as runner:
        encodings = ran(runner, reader, plan, texts)
    groups = groups_of_texts([len(item.ids) for item in encodings])
    tokens = sum(group.batch * group.tokens for group in groups)
    allocated = sum(made) + tokens * reader.manifest.embeddings.row_bytes  # padding counts as well
    foretold = size_of(PlanMemory(reader.manifest, plan).parts(groups), STATES)
    assert allocated <= foretold
    if threads.compute == 1:  # which sums several threads have at once is not the same every time
        assert allocated == foretold


# ---- more for what is more work


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    slices, layers = draw(st.sampled_from((1, 3, 4, 6))), draw(st.sampled_from((1, 2, 4)))
    return make_manifest(
        Random(draw(st.integers(0, 10_000))),
        layers=layers,
        slices=slices,
        submodels=[(layers, width, 1.0) for width in range(1, slices)],
        attention_weights=draw(st.sampled_from((1024, 65536, 262144))),
        groups=(draw(st.integers(1, min(3, slices))), draw(st.integers(1, min(4, slices)))),
    )


groups = st.builds(Workload, st.integers(1, 32), st.integers(2, 512))
any_kind = st.sampled_from(KINDS)


@settings(max_examples=60)
@given(manifests(), any_kind, groups, st.integers(0, 8), st.integers(0, 64), st.booleans())
def test_more_and_longer_texts_take_no_less(
    manifest: Manifest,
    threads: LaneThreads,
    group: Workload,
    texts: int,
    tokens: int,
    as_graph: bool,
) -> None:
    memory = PlanMemory(manifest, plan_of(manifest, threads), as_graph=as_graph)
    more = Workload(group.batch + texts, group.tokens + tokens)
    least, most = memory.parts([group]), memory.parts([more])
    assert [part.name for part in least] == [part.name for part in most]
    assert all(few.size <= many.size for few, many in zip(least, most, strict=True))
    assert total_size(memory.parts([group, more])) >= total_size(most)
    if texts or tokens:
        assert total_size(most) > total_size(least)
        assert size_of(most, VALUES) > size_of(least, VALUES)


@settings(max_examples=60)
@given(manifests(), any_kind, groups, st.data())
def test_more_bits_take_no_less(
    manifest: Manifest, threads: LaneThreads, group: Workload, data: st.DataObject
) -> None:
    low, high = sorted(data.draw(st.tuples(*[st.sampled_from(manifest.ladder)] * 2)))
    few, many = (
        PlanMemory(manifest, plan_of(manifest, threads, bits=bits)).parts([group])
        for bits in (low, high)
    )
    assert all(least.size <= most.size for least, most in zip(few, many, strict=True))


@settings(max_examples=60)
@given(manifests(), st.integers(1, 4), groups)
def test_another_thread_takes_more(manifest: Manifest, count: int, group: Workload) -> None:
    def needed(threads: LaneThreads) -> int:
        return total_size(PlanMemory(manifest, plan_of(manifest, threads)).parts([group]))

    assert needed(SEQUENTIAL) < needed(shared(1)) < needed(PIPELINED)
    buffers = [
        size_of(PlanMemory(manifest, plan_of(manifest, shared(n))).parts([group]), BUFFERS)
        for n in (count, count + 1)
    ]
    assert buffers[0] < buffers[1]
    assert needed(SEQUENTIAL) < needed(shared(count))


@settings(max_examples=60)
@given(manifests(), any_kind, groups, st.data(), st.booleans())
def test_fewer_slices_take_no_more(
    manifest: Manifest, threads: LaneThreads, group: Workload, data: st.DataObject, as_graph: bool
) -> None:
    width = data.draw(st.integers(1, manifest.dimensions.slices))
    slim, whole = (
        PlanMemory(manifest, plan, as_graph=as_graph).parts([group])
        for plan in (plan_of(manifest, threads, width=width), plan_of(manifest, threads))
    )
    assert total_size(slim) <= total_size(whole)


@settings(max_examples=60)
@given(manifests(), any_kind, groups)
def test_a_graph_has_no_lanes_and_the_values_of_all_slices_at_once(
    manifest: Manifest, threads: LaneThreads, group: Workload
) -> None:
    plan = plan_of(manifest, threads)
    graph = PlanMemory(manifest, plan, as_graph=True).parts([group])
    alone = PlanMemory(manifest, plan_of(manifest, SEQUENTIAL)).parts([group])
    assert {part.name for part in graph} == {part.name for part in alone} - {RING, BUFFERS}
    assert size_of(graph, STATES) <= size_of(alone, STATES)  # no partial sums of groups
    assert size_of(graph, VALUES) >= size_of(alone, VALUES) / 2


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.integers(1, 5))
def test_a_ring_has_room_for_any_neighbours_and_no_more(sizes: list[int], most: int) -> None:
    windows = [sum(sizes[start : start + most]) for start in range(len(sizes))]
    assert ring_bytes(sizes, most) == max(windows)
    assert ring_bytes(sizes, most) <= ring_bytes(sizes, most + 1) <= sum(sizes)


def test_a_ring_is_a_huge_page_at_least_unless_one_thread_keeps_a_budget() -> None:
    manifest = make_manifest(Random(0))
    for threads in KINDS:
        for target in (Target(), LIMITED):
            plan = plan_of(manifest, threads, target=target)
            small = ring_size(plan, [SECTOR])
            alone = threads == SEQUENTIAL and target == LIMITED
            assert small == (SECTOR if alone else HUGE_PAGE)
            assert ring_size(plan, [3 * HUGE_PAGE]) == 3 * HUGE_PAGE
    plan = replace(plan_of(manifest, PIPELINED), read_ahead=2)
    assert ring_size(plan, [HUGE_PAGE] * 5) == 3 * HUGE_PAGE
