"""What every back end does: each test runs on that of the product and on a plain one in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby

import numpy as np
import pytest
from onnx import helper

from sti.arrays import Float32Array
from sti.backend.interface import Backend, SentenceState
from sti.backend.onnxruntime import block_inputs, release, session
from sti.backend.onnxruntime.compute import OrtBackend
from sti.errors import BackendError, PackFormatError
from sti.model.fidelity import uniform_counts
from sti.pack.pack_reader import PackReader
from sti.planning.lane_threads import WHOLE, Share
from sti.planning.plan import EXACT, NARROW, PlanStep
from sti.planning.step_jobs import StepJob, prepare_step
from tests.support.numpy_backend import NumpyBackend
from tests.support.packs import distance_pack, tiny_pack
from tests.support.paths import ROOT

LENGTHS = (5, 3)


def ort(reader: PackReader) -> Backend:
    return OrtBackend(reader, lanes=2)


def plain(reader: PackReader) -> Backend:
    return NumpyBackend(reader, lanes=2)


@pytest.fixture(scope="module")
def reader() -> Iterator[PackReader]:
    with PackReader.open(tiny_pack()) as opened:
        yield opened


@pytest.fixture(params=[ort, plain], ids=["onnxruntime", "numpy"])
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


def jobs_of(reader: PackReader, *, width: int | None = None) -> tuple[StepJob, ...]:
    """All steps at 8 bits, with so many slices of each block; None for all."""
    width = width or reader.manifest.dimensions.slices
    found = []
    for group in reader.manifest.groups:
        if group.used(width):
            counts = uniform_counts(group, width, 8)
            step = PlanStep(group.layer, group.kind, group.number, counts, 0)
            found.append(prepare_step(step, group, reader.group_offset(group), width=width))
    return tuple(found)


def decode(
    backend: Backend,
    reader: PackReader,
    job: StepJob,
    *,
    variant: str = EXACT,
    buffer: int = 0,
) -> None:
    """Bring a step's weights into a working buffer."""
    data = np.fromfile(reader.path, dtype=np.uint8)
    starts = np.array([item.offset for item in job.ranges], dtype=np.uint64)
    decoder, kind = backend.decoder(variant), reader.manifest.kind(job.group.kind)
    rooms = backend.buffer(buffer).operands(kind, job.used, decoder.dtype)
    assert decoder.decode(data, starts, job.shards, rooms) is None


def compute(state: SentenceState, job: StepJob, *, variant: str = EXACT) -> None:
    """Compute a step whose weights are in the first buffer, and end the block after its last."""
    state.step(job.group, job.used, variant=variant)
    if job.connects:
        state.connect(job.group.layer, job.group.kind)


def first_block(reader: PackReader) -> list[StepJob]:
    return [job for job in jobs_of(reader) if (job.group.layer, job.group.kind) == (0, "attention")]


def run(
    backend: Backend, reader: PackReader, state: SentenceState, *, variant: str = EXACT
) -> None:
    for job in jobs_of(reader):
        decode(backend, reader, job, variant=variant)
        compute(state, job, variant=variant)


def blocks(reader: PackReader) -> list[list[StepJob]]:
    """The steps of each block."""
    grouped = groupby(jobs_of(reader), key=lambda job: (job.group.layer, job.group.kind))
    return [list(jobs) for _, jobs in grouped]


def test_the_answer_is_that_of_the_specification(backend: Backend, reader: PackReader) -> None:
    expected = NumpyBackend(reader)
    found, wanted = start(backend, LENGTHS), start(expected, LENGTHS)
    run(backend, reader, found)
    run(expected, reader, wanted)
    assert found.finish().shape == (2, 32)
    np.testing.assert_allclose(found.finish(), wanted.finish(), atol=2e-3)
    np.testing.assert_allclose(found.hidden()[0], wanted.hidden()[0], atol=2e-2)


def test_attention_by_distance_is_that_of_the_specification_however_tokens_are_shared() -> None:
    lengths = (40, 17)
    with PackReader.open(distance_pack()) as reader:
        backend, expected = ort(reader), plain(reader)
        whole, shared = (start(backend, lengths) for _ in range(2))
        wanted = start(expected, lengths)
        run(expected, reader, wanted)
        for job in jobs_of(reader):
            decode(backend, reader, job)
            compute(whole, job)
            for number in (1, 0):
                shared.step(job.group, job.used, lane=number, share=Share(number, 2))
            if job.connects:
                shared.connect(job.group.layer, job.group.kind)
        np.testing.assert_array_equal(shared.hidden(), whole.hidden())
        np.testing.assert_allclose(whole.finish(), wanted.finish(), atol=2e-3)
        np.testing.assert_allclose(whole.hidden()[0], wanted.hidden()[0], atol=2e-2)
        backend.close()


def test_narrow_products_are_those_of_the_specification_and_close_to_exact_ones(
    backend: Backend, reader: PackReader
) -> None:
    expected = NumpyBackend(reader)
    exact, found, wanted = (
        start(backend, LENGTHS),
        start(backend, LENGTHS),
        start(expected, LENGTHS),
    )
    run(backend, reader, exact)
    run(backend, reader, found, variant=NARROW)
    run(expected, reader, wanted, variant=NARROW)
    np.testing.assert_allclose(found.finish(), wanted.finish(), atol=2e-3)
    assert (found.finish() != exact.finish()).any()
    assert (found.finish() * exact.finish()).sum(axis=1).min() > 0.99


def test_groups_may_be_computed_in_any_order(backend: Backend, reader: PackReader) -> None:
    state, other = start(backend, LENGTHS), start(backend, LENGTHS)
    run(backend, reader, state)
    for jobs in blocks(reader):
        assert len(jobs) > 1
        for job in reversed(jobs):
            decode(backend, reader, job)
            other.step(job.group, job.used)
        other.connect(jobs[0].group.layer, jobs[0].group.kind)
    np.testing.assert_array_equal(other.finish(), state.finish())


@pytest.mark.parametrize("variant", [EXACT, NARROW])
@pytest.mark.parametrize("lengths", [(5,), LENGTHS])
def test_threads_that_share_the_groups_of_a_block_answer_to_the_bit_as_one(
    backend: Backend, reader: PackReader, lengths: Sequence[int], variant: str
) -> None:
    """Each decodes into its own buffer and computes in its own lane."""
    state, other = start(backend, lengths), start(backend, lengths, place=0)
    run(backend, reader, state, variant=variant)

    def work(job: StepJob, lane: int) -> None:
        decode(backend, reader, job, variant=variant, buffer=lane)
        other.step(job.group, job.used, variant=variant, buffer=lane, lane=lane)

    assert backend.lanes == 2
    with ThreadPoolExecutor(backend.lanes) as pool:
        for jobs in blocks(reader):
            list(pool.map(work, jobs, range(backend.lanes)))
            other.connect(jobs[0].group.layer, jobs[0].group.kind)
    np.testing.assert_array_equal(other.finish(), state.finish())


def test_exact_is_a_variant_everywhere(backend: Backend) -> None:
    assert backend.variants[0] == EXACT
    assert backend.decoder(EXACT).dtype.itemsize == backend.decoder(NARROW).dtype.itemsize == 1
    assert backend.decoder(NARROW) is backend.decoder(NARROW)


def test_a_block_of_one_group_in_part_is_cut_to_its_width(
    backend: Backend, reader: PackReader
) -> None:
    expected = NumpyBackend(reader)
    states = start(backend, LENGTHS), start(expected, LENGTHS)
    for job in jobs_of(reader, width=1):
        assert job.used == 1 < job.group.slices
        for made, state in zip((backend, expected), states, strict=True):
            decode(made, reader, job)
            compute(state, job)
    np.testing.assert_allclose(states[0].finish(), states[1].finish(), atol=2e-3)


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


def test_hidden_states_change_at_the_end_of_a_block_only(
    backend: Backend, reader: PackReader
) -> None:
    state, jobs = start(backend, LENGTHS), first_block(reader)
    before = state.hidden()
    for job in jobs:
        decode(backend, reader, job)
        state.step(job.group, job.used)
        np.testing.assert_array_equal(state.hidden(), before)
    state.connect(0, "attention")
    assert (state.hidden() != before).any()


def test_a_block_that_was_given_up_leaves_nothing_behind(
    backend: Backend, reader: PackReader
) -> None:
    first, *_ = first_block(reader)
    states = [start(backend, LENGTHS, place=0)]
    decode(backend, reader, first)
    states[0].step(first.group, first.used)  # and then something fails
    states = [start(backend, LENGTHS, place=0), start(backend, LENGTHS)]
    states[1].step(first.group, first.used)
    states[1].set_hidden(states[0].hidden())
    for job in first_block(reader):
        decode(backend, reader, job)
        for state in states:
            compute(state, job)
    np.testing.assert_array_equal(states[0].hidden(), states[1].hidden())


def test_a_block_without_a_step_cannot_be_ended(backend: Backend) -> None:
    state = start(backend, LENGTHS)
    with pytest.raises(BackendError, match="was computed"):
        state.connect(0, "attention")


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
    first, second = backend.buffer(0), backend.buffer(1)
    assert first is not second
    assert (backend.buffer(0), backend.buffer(1)) == (first, second)
    backend.close()
    backend.close()
    assert backend.buffer(0) is not first


def test_a_closed_back_end_computes_as_before(backend: Backend, reader: PackReader) -> None:
    state = start(backend, LENGTHS)
    run(backend, reader, state)
    expected = state.finish()
    backend.close()
    state = start(backend, LENGTHS)
    run(backend, reader, state)
    np.testing.assert_array_equal(state.finish(), expected)


@pytest.mark.parametrize("variant", [EXACT, NARROW])
def test_answers_do_not_depend_on_whether_products_saturate(
    reader: PackReader, variant: str
) -> None:
    answers = []
    for saturates in (False, True):
        backend = OrtBackend(reader, lanes=1, saturates=saturates)
        assert backend.saturates is saturates
        assert backend.variants == ((EXACT, NARROW) if saturates else (EXACT,))
        state = start(backend, LENGTHS)
        run(backend, reader, state, variant=variant)
        answers.append(state.finish())
    np.testing.assert_array_equal(answers[0], answers[1])


@pytest.mark.parametrize("lengths", [(40,), (40, 33), (9, 7)])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_shares_of_the_tokens_answer_to_the_bit_as_the_whole(
    backend: Backend, reader: PackReader, lengths: tuple[int, ...], count: int
) -> None:
    answers = []
    for shares in ([WHOLE], [Share(number, count) for number in reversed(range(count))]):
        state = start(backend, lengths)
        for job in jobs_of(reader):
            decode(backend, reader, job)
            for share in shares:
                state.step(job.group, job.used, lane=share.number % 2, share=share)
            if job.connects:
                state.connect(job.group.layer, job.group.kind)
        answers.append(state.finish())
    np.testing.assert_array_equal(answers[0], answers[1])


def test_products_of_several_threads_answer_to_the_bit_as_those_of_one(reader: PackReader) -> None:
    answers = []
    for threads in (1, 2):
        backend = OrtBackend(reader, lanes=1, threads=threads)
        state = start(backend, LENGTHS)
        run(backend, reader, state)
        answers.append(state.finish())
    np.testing.assert_array_equal(answers[0], answers[1])


def test_more_groups_than_bindings_are_kept_for_answer_as_few_do(
    reader: PackReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = []
    for kept in (256, 3, 0):
        monkeypatch.setattr(block_inputs, "KEPT_BINDINGS", kept)
        backend = OrtBackend(reader, lanes=1)
        for _ in range(2):
            state = start(backend, LENGTHS, place=0)
            run(backend, reader, state)
            answers.append(state.finish())
    for found in answers[1:]:
        np.testing.assert_array_equal(found, answers[0])


def test_hidden_states_that_are_set_are_quantized_as_graphs_do_it(
    backend: Backend, reader: PackReader
) -> None:
    answers = []
    for again in (False, True):
        state = start(backend, LENGTHS)
        for job in jobs_of(reader):
            decode(backend, reader, job)
            compute(state, job)
            if again and job.connects:
                state.set_hidden(state.hidden())
        answers.append(state.finish())
    np.testing.assert_array_equal(answers[0], answers[1])


def test_a_pack_without_a_graph_is_refused(reader: PackReader) -> None:
    graphs = {n: t for n, t in reader.manifest.graphs.items() if n != "ffn.u8"}
    with PackReader.open(reader.path) as own:
        own.manifest = own.manifest._replace(graphs=graphs)
        with pytest.raises(PackFormatError, match=r"graph 'ffn\.u8' is missing"):
            OrtBackend(own, lanes=1, saturates=True).prepare()


@pytest.mark.parametrize("version", ["1.20.1", "1.23.2", "1.3.0"])
def test_a_release_that_follows_graphs_to_other_files_is_refused_by_name(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release, "ort_version", lambda: version)
    release.check_release.cache_clear()
    with pytest.raises(BackendError, match=rf"onnxruntime {version} .*; STI needs 1.24.1 or later"):
        release.check_release()


def test_the_oldest_release_is_the_one_that_installing_asks_for() -> None:
    oldest = ".".join(map(str, release.OLDEST_ORT))
    assert f"onnxruntime>={oldest}\n" in (ROOT / "setup.cfg").read_text(encoding="utf-8")
    for version, old in (
        (oldest, False),
        ("1.32.0", False),
        ("1.24.0", True),
        ("2.0", False),
        ("odd", False),
    ):
        assert release.is_too_old(version) is old


def test_what_a_refused_graph_is_called_is_not_written_to_the_terminal(
    capfd: pytest.CaptureFixture[str],
) -> None:
    graph = helper.make_graph(
        [helper.make_node("\x1b[31mOperator", ["x"], ["y"], name="\x1b[31mNode")],
        "graph",
        [helper.make_tensor_value_info("x", 1, [1])],
        [helper.make_tensor_value_info("y", 1, [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    with pytest.raises(BackendError, match="'hostile' is refused"):
        session.Graph("hostile", model.SerializeToString(), session.session_options(1))
    assert capfd.readouterr() == ("", "")
