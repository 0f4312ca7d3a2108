"""What every back end does: each test runs on that of the product and on a plain one in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from sti.arrays import Float32Array
from sti.backend.interface import Backend, SentenceState
from sti.backend.onnxruntime.compute import OrtBackend
from sti.errors import BackendError
from sti.model.workload import Workload
from sti.pack.pack_reader import PackReader
from sti.planning.plan import PlanRequest
from sti.planning.step_jobs import StepJob, prepare
from sti.planning.uniform import uniform_plan
from tests.support.numpy_backend import NumpyBackend
from tests.support.packs import tiny_pack

LENGTHS = (5, 3)


def ort(reader: PackReader) -> Backend:
    return OrtBackend(reader, threads=1)


@pytest.fixture(scope="module")
def reader() -> Iterator[PackReader]:
    with PackReader.open(tiny_pack()) as opened:
        yield opened


@pytest.fixture(params=[ort, NumpyBackend], ids=["onnxruntime", "numpy"])
def backend(reader: PackReader, request: pytest.FixtureRequest) -> Iterator[Backend]:
    make: Callable[[PackReader], Backend] = request.param
    made = make(reader)
    made.prepare()
    yield made
    made.close()


def embeddings(lengths: Sequence[int], seed: int = 0) -> Float32Array:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((len(lengths), max(lengths), 32)).astype(np.float32)


def start(
    backend: Backend, lengths: Sequence[int], *, seed: int = 0, place: int | None = None
) -> SentenceState:
    given = embeddings(lengths, seed)
    memory = backend.embedding_buffer(*given.shape[:2])
    memory[:] = given
    types = np.zeros(given.shape[:2], dtype=np.int64)
    return backend.start(memory, types, lengths, place=place)


def jobs_of(reader: PackReader) -> tuple[StepJob, ...]:
    plan = uniform_plan(PlanRequest(reader.manifest, reader.pack_id, Workload(1, 8)), bits=8)
    return prepare(plan, reader.manifest, reader.group_offset)


def decode(backend: Backend, reader: PackReader, job: StepJob, *, parts: int = 1) -> None:
    """Bring a step's weights into the first working buffer of its kind."""
    data = np.fromfile(reader.path, dtype=np.uint8)
    starts = np.array([item.offset for item in job.ranges], dtype=np.uint64)
    out = backend.buffers[job.group.kind][0].operands
    for part in range(parts):
        decoder = backend.decoder
        assert decoder.decode(data, starts, job.shards, out, first=part, stride=parts) is None


def compute(state: SentenceState, job: StepJob) -> None:
    state.step(job.group, job.used, connects=job.connects)


def first_block(reader: PackReader) -> list[StepJob]:
    return [job for job in jobs_of(reader) if (job.group.layer, job.group.kind) == (0, "attention")]


def run(backend: Backend, reader: PackReader, state: SentenceState) -> None:
    for job in jobs_of(reader):
        decode(backend, reader, job)
        compute(state, job)


def test_the_answer_is_that_of_the_specification(backend: Backend, reader: PackReader) -> None:
    expected = NumpyBackend(reader)
    found, wanted = start(backend, LENGTHS), start(expected, LENGTHS)
    run(backend, reader, found)
    run(expected, reader, wanted)
    assert found.finish().shape == (2, 32)
    np.testing.assert_allclose(found.finish(), wanted.finish(), atol=2e-3)
    np.testing.assert_allclose(found.hidden()[0], wanted.hidden()[0], atol=2e-2)


def test_threads_that_share_a_step_decode_it_as_one_does(
    backend: Backend, reader: PackReader
) -> None:
    job = jobs_of(reader)[0]
    operands = backend.buffers[job.group.kind][0].operands
    decode(backend, reader, job)
    expected = [operand.copy() for operand in operands]
    for operand in operands:
        operand[:] = 1
    decode(backend, reader, job, parts=3)
    for operand, wanted in zip(operands, expected, strict=True):
        np.testing.assert_array_equal(operand, wanted)
        assert wanted.any()


def test_a_run_goes_on_from_hidden_states_that_were_read(
    backend: Backend, reader: PackReader
) -> None:
    first, other = start(backend, LENGTHS), start(backend, LENGTHS, seed=1)
    before = first.hidden()
    assert (other.hidden() != before).any()
    other.set_hidden(before)
    for job in first_block(reader):
        decode(backend, reader, job)
        compute(first, job)
        compute(other, job)
    np.testing.assert_array_equal(other.hidden(), first.hidden())
    assert (first.hidden() != before).any()


def test_hidden_states_are_read_and_set_as_copies(backend: Backend) -> None:
    state = start(backend, LENGTHS)
    read = state.hidden()
    assert read.shape == (2, 5, 32) and read.dtype == np.float32
    expected = read.copy()
    read[:] = 7
    np.testing.assert_array_equal(state.hidden(), expected)
    state.set_hidden(read)
    read[:] = 8
    assert (state.hidden() == 7).all()


def test_hidden_states_of_another_shape_are_refused(backend: Backend) -> None:
    state = start(backend, LENGTHS)
    with pytest.raises(BackendError, match="shape"):
        state.set_hidden(np.zeros((1, 5, 32), dtype=np.float32))


def test_what_padding_holds_does_not_count(backend: Backend, reader: PackReader) -> None:
    answers = []
    for padding in (0.0, 9.0):
        given = embeddings(LENGTHS)
        given[1, LENGTHS[1] :] = padding
        memory = backend.embedding_buffer(*given.shape[:2])
        memory[:] = given
        types = np.zeros(given.shape[:2], dtype=np.int64)
        state = backend.start(memory, types, LENGTHS)
        run(backend, reader, state)
        answers.append(state.finish())
    np.testing.assert_array_equal(answers[0], answers[1])


def test_groups_of_a_run_do_not_disturb_one_another(backend: Backend, reader: PackReader) -> None:
    alone = start(backend, (4,), seed=3)
    run(backend, reader, alone)
    expected = alone.finish()
    first = start(backend, (4,), seed=3, place=0)
    second = start(backend, (9, 8), seed=4, place=1)
    for job in jobs_of(reader):
        decode(backend, reader, job)
        for state in (first, second):
            compute(state, job)
    np.testing.assert_array_equal(first.finish(), expected)


def test_hidden_states_change_with_the_last_group_of_a_block_only(
    backend: Backend, reader: PackReader
) -> None:
    *others, last = first_block(reader)
    state = start(backend, LENGTHS)
    before = state.hidden()
    assert others
    for job in others:
        decode(backend, reader, job)
        compute(state, job)
        np.testing.assert_array_equal(state.hidden(), before)
    decode(backend, reader, last)
    compute(state, last)
    assert (state.hidden() != before).any()


def test_a_block_that_was_given_up_leaves_nothing_behind(
    backend: Backend, reader: PackReader
) -> None:
    first, *_ = first_block(reader)
    states = start(backend, LENGTHS), start(backend, LENGTHS, place=1)
    decode(backend, reader, first)
    compute(states[0], first)  # and then something fails
    for job in first_block(reader):
        decode(backend, reader, job)
        for state in states:
            compute(state, job)
    np.testing.assert_array_equal(states[0].hidden(), states[1].hidden())


def test_states_without_a_place_outlive_later_ones(backend: Backend) -> None:
    kept = start(backend, LENGTHS)
    expected = kept.hidden()
    start(backend, LENGTHS, seed=1)
    start(backend, LENGTHS, seed=2, place=0)
    np.testing.assert_array_equal(kept.hidden(), expected)


def test_connect_alone_adds_the_sum_of_the_last_block(backend: Backend, reader: PackReader) -> None:
    state, jobs = start(backend, LENGTHS), first_block(reader)
    before = state.hidden()
    for job in jobs:
        decode(backend, reader, job)
        compute(state, job)
    expected = state.hidden()
    state.set_hidden(before)
    state.connect(jobs[-1].group.layer, jobs[-1].group.kind)
    np.testing.assert_array_equal(state.hidden(), expected)


def test_working_buffers_are_the_same_until_it_is_closed(backend: Backend) -> None:
    buffers = {kind: tuple(found) for kind, found in backend.buffers.items()}
    assert {kind: tuple(found) for kind, found in backend.buffers.items()} == buffers
    backend.close()
    backend.close()
    assert all(backend.buffers[kind][0] is not found[0] for kind, found in buffers.items())


def test_a_closed_back_end_computes_as_before(backend: Backend, reader: PackReader) -> None:
    state = start(backend, LENGTHS)
    run(backend, reader, state)
    expected = state.finish()
    backend.close()
    state = start(backend, LENGTHS)
    run(backend, reader, state)
    np.testing.assert_array_equal(state.finish(), expected)


def test_unsigned_graphs_answer_to_the_bit_as_the_signed_ones(reader: PackReader) -> None:
    answers = []
    for unsigned in (False, True):
        backend = OrtBackend(reader, threads=1, unsigned=unsigned)
        assert backend.unsigned is unsigned
        state = start(backend, LENGTHS)
        run(backend, reader, state)
        answers.append(state.finish())
    np.testing.assert_array_equal(answers[0], answers[1])
