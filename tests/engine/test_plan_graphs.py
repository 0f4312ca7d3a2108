"""Plans held as graphs: the answers of streaming to the bit, in files that are checked."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from sti.backend.interface import SentenceState
from sti.backend.onnxruntime.compute import OrtBackend
from sti.backend.onnxruntime.packed_size import packed_bytes
from sti.backend.onnxruntime.plan_session import PlanSession
from sti.backend.partial_sums import PartialSums, joined_in_tree
from sti.device.lanes import PIPELINED, LaneThreads
from sti.engine.graph_building import GraphBuilder
from sti.engine.graph_writing import write_plan_graph
from sti.engine.plan_graphs import PlanGraph, PlanGraphs
from sti.errors import BackendError, GraphError, PackCorruptError, PackError
from sti.model.fidelity import groups_of, uniform_counts
from sti.model.manifest import Submodel
from sti.model.workload import Workload
from sti.pack.pack_reader import PackReader
from sti.pack.tokenizer import pack_tokenizer
from sti.pipeline.runner import Runner
from sti.pipeline.trace import Recorder
from sti.planning.plan import EXACT, NARROW, Plan, PlanRequest
from sti.planning.preload_placement import bare_plan, place
from sti.planning.step_jobs import StepJob, prepare
from sti.planning.uniform import uniform_plan
from sti.text.encoding import Encoding, Text
from tests.support.numpy_backend import NumpyBackend
from tests.support.packs import TEXTS, distance_pack, tiny_pack
from tests.support.paths import ROOT
from tests.support.processes import WAIT_S, children, forked, interpreter, until

SHIPPED = sorted((ROOT / "models").glob("*.sti.safetensors"))
LONG = ("the dog runs under the table " * 6, "dog " * 20, "a")
BATCHES: tuple[tuple[Text, ...], ...] = (
    ("dog",),
    ("the dog runs",),
    TEXTS,
    (*TEXTS, *LONG),
    ("the dog runs under the table " * 5,) * 3,
)
PAIRS: tuple[Text, ...] = (("the dog", "runs"), ("a cat", "runs under the red table"))


def plan_of(reader: PackReader, bits: int, variant: str = EXACT, submodel: int = 0) -> Plan:
    found = reader.manifest.submodels[submodel]
    plan = uniform_plan(
        PlanRequest(reader.manifest, reader.pack_id, Workload(1, 8)),
        bits=bits,
        depth=found.depth,
        width=found.width,
    )
    return replace(plan, steps=tuple(step._replace(variant=variant) for step in plan.steps))


def smaller_plan(reader: PackReader, *, depth: int, width: int) -> Plan:
    """A plan of a submodel, whether the pack vouches for it or not."""
    manifest = reader.manifest
    submodel = Submodel(depth, width, tuple(range(depth)), 0.0)
    groups = groups_of(manifest, submodel)
    counts = [uniform_counts(group, width, 4) for group in groups]
    placed = place(groups, counts, 0, (EXACT,))
    request = PlanRequest(manifest, reader.pack_id, Workload(1, 8))
    return bare_plan(request, submodel, placed, PIPELINED, 2)


def jobs_of(reader: PackReader, plan: Plan) -> tuple[StepJob, ...]:
    return prepare(plan, reader.manifest, reader.group_offset)


@contextmanager
def running(reader: PackReader, *, saturates: bool | None = None) -> Iterator[Runner]:
    runner = Runner(reader, OrtBackend(reader, lanes=1, saturates=saturates))
    try:
        yield runner
    finally:
        runner.close()


def assert_same_answers(
    runner: Runner,
    reader: PackReader,
    plan: Plan,
    graphs: list[PlanSession],
    batches: tuple[tuple[Text, ...], ...],
) -> None:
    tokenizer = pack_tokenizer(reader)
    for batch in batches:
        texts = [tokenizer.encode_text(text) for text in batch]
        expected = streamed(runner, reader, plan, texts)
        for graph in graphs:
            found = runner.run_graph(graph, texts, recorder=Recorder(perf_counter())).outputs
            for mine, theirs in zip(found, expected, strict=True):
                np.testing.assert_array_equal(mine.view(np.uint32), theirs.view(np.uint32))


def streamed(
    runner: Runner, reader: PackReader, plan: Plan, texts: list[Encoding]
) -> tuple[np.ndarray, ...]:
    jobs, recorder = jobs_of(reader, plan), Recorder(perf_counter())
    return runner.run(jobs, plan, texts, mode="sequential", recorder=recorder).outputs


@contextmanager
def sessions(
    reader: PackReader, plan: Plan, directory: Path, *, saturates: bool
) -> Iterator[list[PlanSession]]:
    directory.mkdir()
    write_plan_graph(reader, plan, directory, saturates=saturates)
    made = [PlanSession(directory, threads=threads) for threads in (1, 2)]
    try:
        yield made
    finally:
        for session in made:
            session.close()


@pytest.mark.parametrize("saturates", [False, True])
@pytest.mark.parametrize("task", ["embedding", "sequence", "tokens"])
def test_answers_equal_those_of_streaming_to_the_bit(
    task: str, saturates: bool, tmp_path: Path
) -> None:
    names = {"sequence": "classification", "tokens": "tagging"}
    with (
        PackReader.open(tiny_pack(names.get(task, task))) as reader,  # type: ignore[arg-type]
        running(reader, saturates=saturates) as runner,
    ):
        ladder = reader.manifest.ladder
        batches = BATCHES if task == "tokens" else (*BATCHES, PAIRS)
        for bits, variant in ((ladder[-1], EXACT), (ladder[0], NARROW), (ladder[1], EXACT)):
            plan = plan_of(reader, bits, variant)
            with sessions(reader, plan, tmp_path / f"{bits}", saturates=saturates) as graphs:
                assert_same_answers(runner, reader, plan, graphs, batches)


@pytest.mark.parametrize("saturates", [False, True])
def test_attention_by_distance_answers_as_when_streamed(saturates: bool, tmp_path: Path) -> None:
    with (
        PackReader.open(distance_pack()) as reader,
        running(reader, saturates=saturates) as runner,
    ):
        assert len(reader.manifest.block(0, "attention")) > 1
        for bits, variant in ((reader.manifest.ladder[-1], EXACT), (2, NARROW)):
            plan = plan_of(reader, bits, variant)
            with sessions(reader, plan, tmp_path / f"{bits}", saturates=saturates) as graphs:
                assert_same_answers(runner, reader, plan, graphs, BATCHES)


@pytest.mark.parametrize("saturates", [False, True])
@pytest.mark.parametrize("pack", SHIPPED, ids=lambda path: path.name)
def test_shipped_packs_answer_as_when_streamed(pack: Path, saturates: bool, tmp_path: Path) -> None:
    with PackReader.open(pack) as reader, running(reader, saturates=saturates) as runner:
        middle = len(reader.manifest.submodels) // 2
        for number, (bits, variant, submodel) in enumerate(
            [(8, EXACT, 0), (2, NARROW, 0), (4, EXACT, middle)]
        ):
            plan = plan_of(reader, bits, variant, submodel)
            with sessions(reader, plan, tmp_path / f"{number}", saturates=saturates) as graphs:
                assert_same_answers(runner, reader, plan, graphs, (*BATCHES, PAIRS))


@pytest.mark.parametrize(("depth", "width"), [(3, 3), (3, 2), (2, 1), (1, 4)])
def test_smaller_models_are_held_as_they_are(depth: int, width: int, tmp_path: Path) -> None:
    with PackReader.open(tiny_pack()) as reader, running(reader, saturates=False) as runner:
        plan = smaller_plan(reader, depth=depth, width=width)
        with sessions(reader, plan, tmp_path / "graph", saturates=False) as graphs:
            assert_same_answers(runner, reader, plan, graphs, BATCHES)


def test_steps_of_mixed_bits_and_variants_are_held_as_they_are(tmp_path: Path) -> None:
    with PackReader.open(tiny_pack()) as reader, running(reader, saturates=True) as runner:
        low, high = plan_of(reader, 2), plan_of(reader, 8, NARROW)
        steps = tuple((low, high)[number % 2].steps[number] for number in range(len(low.steps)))
        plan = replace(low, steps=steps)
        with sessions(reader, plan, tmp_path / "mixed", saturates=True) as graphs:
            assert_same_answers(runner, reader, plan, graphs, BATCHES)


class ManySides:
    """A pack of which each block has many weights beyond the int8 grid."""

    channels = 300

    def __init__(self, reader: PackReader) -> None:
        self._reader, self._made = reader, dict[str, Any]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)

    def resident(self, name: str) -> NDArray[Any]:
        found = self._reader.resident(name)
        if name not in self._made and name.endswith((".o_w", ".down_w")):
            generator = np.random.default_rng(len(name))
            shape = (self.channels, found.shape[1])
            self._made[name] = generator.normal(0, 0.02, shape).astype(np.float32)
        if name not in self._made and name.endswith((".o_idx", ".down_idx")):
            self._made[name] = np.arange(self.channels, dtype=np.int64)
        return self._made.get(name, found)


def test_many_weights_beyond_the_grid_add_up_in_the_same_order(tmp_path: Path) -> None:
    with PackReader.open(SHIPPED[0]) as reader:
        many: Any = ManySides(reader)
        runner = Runner(reader, OrtBackend(many, lanes=1, saturates=False))
        plan = plan_of(reader, 4)
        with sessions(many, plan, tmp_path / "graph", saturates=False) as graphs:
            assert_same_answers(runner, reader, plan, graphs, BATCHES)
        runner.close()


def test_slice_groups_that_are_alike_are_computed_as_one(tmp_path: Path) -> None:
    with PackReader.open(tiny_pack()) as reader:
        write_plan_graph(reader, plan_of(reader, 4), tmp_path, saturates=False)
        groups = [len(kind.groups) for kind in reader.manifest.kinds]
    assert groups == [2, 2]  # of attention and ffn
    nodes = onnx.load(tmp_path / "model.onnx", load_external_data=False).graph.node
    found = Counter(node.op_type for node in nodes)
    assert found["MatMulIntegerToFloat"] == 3 * (3 + 2 + 1 + 2)
    assert found["Softmax"] == 3 and not found["Flatten"]


@pytest.mark.parametrize("pack", [*SHIPPED, None], ids=str)
def test_the_files_are_a_model_whose_packed_weights_are_as_many_as_foretold(
    pack: Path | None, tmp_path: Path
) -> None:
    with PackReader.open(pack or tiny_pack()) as reader:
        plan = plan_of(reader, 4)
        packed = write_plan_graph(reader, plan, tmp_path, saturates=False)
        foretold = packed_bytes(reader.manifest, jobs_of(reader, plan))
    assert abs(packed - foretold) <= 0.02 * packed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "weights.bin"]
    model = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    onnx.checker.check_model(tmp_path / "model.onnx")
    assert [item.name for item in model.graph.input] == ["h", "xq", "xs", "mask"]
    assert [item.name for item in model.graph.output] == ["next_h", "next_xq", "next_xs"]
    size = (tmp_path / "weights.bin").stat().st_size
    for tensor in model.graph.initializer:
        entries = {item.key: item.value for item in tensor.external_data}
        if entries:
            assert entries["location"] == "weights.bin"
            assert int(entries["offset"]) + int(entries["length"]) <= size


@pytest.mark.parametrize("count", range(1, 20))
def test_parts_are_joined_as_partial_sums_adds_them(count: int) -> None:
    generator = np.random.default_rng(count)
    parts = generator.standard_normal((count, 50)).astype(np.float32)
    sums = PartialSums(lambda _: np.empty(50, np.float32))
    for number, part in enumerate(parts):
        sums.room(number)[...] = part
        sums.add(number)
    found = joined_in_tree(list(parts), lambda left, right: left + right)
    np.testing.assert_array_equal(found, sums.total())


def test_the_trace_has_a_span_for_each_group_and_only_embeddings_are_read(tmp_path: Path) -> None:
    with PackReader.open(tiny_pack()) as reader, running(reader) as runner:
        tokenizer = pack_tokenizer(reader)
        texts = [tokenizer.encode_text(text) for text in (*TEXTS, *LONG)]
        plan = plan_of(reader, 4)
        with sessions(reader, plan, tmp_path / "graph", saturates=False) as graphs:
            found = runner.run_graph(graphs[1], texts, recorder=Recorder(perf_counter()))
        rows = len({int(row) for text in texts for row in text.ids})
        assert found.bytes_read == rows * reader.manifest.embeddings.row_bytes
        names = [span.name for span in found.trace.lanes["compute"]]
        assert names == ["embed", *["blocks"] * (len(names) - 2), "head"]
        assert len(names) > 3
        assert found.trace.threads == LaneThreads(0, 0, 2)
        assert set(found.trace.lanes) == {"compute", "storage"}
        assert found.trace.to_chrome(plan)["traceEvents"]


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) != 2,
    reason="needs a machine with just two cores",
)
def test_a_run_keeps_the_two_threads_of_a_graph_apart_and_counts_what_both_waited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everywhere = os.sched_getaffinity(0)
    with PackReader.open(tiny_pack()) as reader, running(reader) as runner:
        texts = [pack_tokenizer(reader).encode_text("the dog")]
        with sessions(reader, plan_of(reader, 4), tmp_path / "g", saturates=False) as graphs:
            alone, both = graphs
            helper = both.helper
            assert alone.helper is None and helper is not None
            during: list[set[int]] = []
            run = both.run

            def look(state: SentenceState) -> None:
                during.extend(os.sched_getaffinity(thread) for thread in (0, helper))
                run(state)

            monkeypatch.setattr(both, "run", look)
            found = runner.run_graph(both, texts, recorder=Recorder(perf_counter())).trace
            assert sorted(map(sorted, during)) == [[core] for core in sorted(everywhere)]
            assert os.sched_getaffinity(helper) == os.sched_getaffinity(0) == everywhere
            assert found.waits_s is None or set(found.waits_s) == {"compute", "compute 1"}
        assert both.helper is None


def test_a_graph_runs_on_states_of_its_own_back_end_only(tmp_path: Path) -> None:
    with PackReader.open(tiny_pack()) as reader:
        texts = [pack_tokenizer(reader).encode_text("the dog")]
        with sessions(reader, plan_of(reader, 4), tmp_path / "g", saturates=False) as graphs:
            runner = Runner(reader, NumpyBackend(reader))
            with pytest.raises(BackendError, match="NumpyState"):
                runner.run_graph(graphs[0], texts, recorder=Recorder(perf_counter()))
            runner.close()
        with (
            running(reader) as runner,
            pytest.raises(BackendError, match="closed"),
        ):
            runner.run_graph(graphs[0], texts, recorder=Recorder(perf_counter()))


def damaged_pack(tmp_path: Path) -> Path:
    """A copy of a pack with one byte of its last slice group changed."""
    path = tmp_path / "damaged.sti.safetensors"
    raw = bytearray(tiny_pack().read_bytes())
    with PackReader.open(tiny_pack()) as reader:
        group = reader.manifest.groups[-1]
        raw[reader.group_offset(group) + sum(group.outlier_bytes)] ^= 1
    path.write_bytes(bytes(raw))
    return path


class Case(NamedTuple):
    """A plan of a tiny pack, and what builds and keeps its graph."""

    reader: PackReader
    plan: Plan
    jobs: tuple[StepJob, ...]
    graphs: PlanGraphs
    cache: Path
    told: list[str]

    @property
    def kept(self) -> list[str]:
        """What lies in the cache beside its lock."""
        return [path.name for path in self.cache.iterdir() if path.name != "lock"]

    def file(self, name: str) -> Path:
        """A file of the only graph."""
        (found,) = self.cache.glob(f"*/{name}")
        return found

    def build(self) -> PlanGraph:
        return self.graphs.build(self.plan, self.jobs)


@contextmanager
def case_of(
    pack: Path, cache: Path, *, bits: int = 4, builder: GraphBuilder | None = None
) -> Iterator[Case]:
    told: list[str] = []
    with PackReader.open(pack) as reader:
        plan = plan_of(reader, bits)
        graphs = PlanGraphs(
            reader,
            threads=1,
            saturates=False,
            notify=told.append,
            directory=cache,
            builder=builder,
        )
        yield Case(reader, plan, jobs_of(reader, plan), graphs, cache, told)
        graphs.cancel()


@pytest.fixture
def case(tmp_path: Path) -> Iterator[Case]:
    with case_of(tiny_pack(), tmp_path / "graphs") as found:
        yield found


def test_a_graph_is_built_once_and_found_again(case: Case) -> None:
    reader = case.reader
    with running(reader, saturates=False) as runner:
        assert case.graphs.open(case.jobs) is None
        built = case.build()
        assert built.mapped_bytes == packed_bytes(reader.manifest, case.jobs)
        texts = [pack_tokenizer(reader).encode_text(text) for text in TEXTS]
        found = runner.run_graph(built, texts, recorder=Recorder(perf_counter())).outputs
        np.testing.assert_array_equal(found, streamed(runner, reader, case.plan, texts))
        again = case.graphs.open(case.jobs)
        assert again is not None
        assert case.graphs.open(jobs_of(reader, plan_of(reader, 2))) is None
        built.close()
        again.close()
    assert case.told == []


def test_a_change_of_its_files_stops_a_graph(case: Case) -> None:
    texts = [pack_tokenizer(case.reader).encode_text("dog")]
    with running(case.reader, saturates=False) as runner:
        built = case.build()
        with case.file("weights.bin").open("r+b") as file:
            file.write(b"\x55\xaa")
        assert not built.unchanged()
        with pytest.raises(GraphError, match="was changed while it was in use"):
            runner.run_graph(built, texts, recorder=Recorder(perf_counter()))
        built.close()
    assert case.graphs.open(case.jobs) is None
    assert "weights.bin does not match its digest" in case.told[0]
    case.build().close()


def test_a_cache_that_others_may_write_is_told_and_not_used(case: Case) -> None:
    case.build().close()
    case.cache.chmod(0o777)
    assert case.graphs.open(case.jobs) is None
    assert "others than the user may write to it" in case.told[0]
    with pytest.raises(GraphError, match="others than the user"):
        case.build()


def test_a_graph_that_onnxruntime_refuses_is_removed_and_told(case: Case) -> None:
    case.build().close()
    record = json.loads(case.file("graph.json").read_text())
    case.file("model.onnx").write_bytes(b"no model")
    digest = hashlib.sha256(b"no model").hexdigest()
    record["files"]["model.onnx"] = {"bytes": 8, "sha256": digest}
    case.file("graph.json").write_text(json.dumps(record))
    assert case.graphs.open(case.jobs) is None
    assert "a kept graph is removed: graph 'plan' is refused" in case.told[0]
    assert case.kept == []


def test_plans_that_differ_in_anything_have_graphs_of_their_own(case: Case) -> None:
    reader = case.reader
    plans = [
        case.plan,
        plan_of(reader, 8),
        plan_of(reader, 4, NARROW),
        smaller_plan(reader, depth=2, width=4),
        smaller_plan(reader, depth=3, width=3),
    ]
    # Where a plan preloads, reads ahead or what it promises does not matter.
    same = replace(case.plan, read_ahead=5, threads=LaneThreads(1, 0, 2))
    for plan in (*plans, same):
        case.graphs.build(plan, jobs_of(reader, plan)).close()
    assert len(case.kept) == len(plans)


def test_damage_of_the_pack_ends_building(tmp_path: Path) -> None:
    with case_of(damaged_pack(tmp_path), tmp_path / "graphs", bits=8) as case:
        with pytest.raises(PackCorruptError, match="layer 2 ffn, group 1"):
            case.build()
        assert case.kept == []


def test_a_pack_that_was_replaced_is_not_built_from(tmp_path: Path) -> None:
    path = tmp_path / "pack"
    path.write_bytes(tiny_pack().read_bytes())
    with case_of(path, tmp_path / "graphs") as case:
        other = tmp_path / "other"
        other.write_bytes(tiny_pack(seed=1).read_bytes())
        os.replace(other, path)
        with pytest.raises(PackError, match="was replaced by another pack"):
            case.build()


@pytest.mark.parametrize(
    ("python", "said"),
    [
        ("", "no interpreter"),
        ("/nowhere/python", "none can be started: No such file"),
        ("/bin/false", r"ended without one \(status 1\)"),
        ("/bin/echo", r"ended without one \(status"),
    ],
)
def test_where_no_process_builds_it_is_told(python: str, said: str, tmp_path: Path) -> None:
    builder = GraphBuilder(python=python)
    with (
        case_of(tiny_pack(), tmp_path / "graphs", builder=builder) as case,
        pytest.raises(GraphError, match=said),
    ):
        case.build()


@pytest.mark.parametrize("most_kib", [10, 2500, 3000, 20_000])
def test_files_that_cannot_be_written_whole_leave_nothing(tmp_path: Path, most_kib: int) -> None:
    python = interpreter(tmp_path, f'ulimit -f {most_kib * 2}\nexec {sys.executable} "$@"')
    builder = GraphBuilder(python=python)
    with case_of(SHIPPED[0], tmp_path / "graphs", builder=builder) as case:
        with pytest.raises(GraphError, match=r"File too large|is storage full"):
            case.build()
        assert case.kept == []


@pytest.fixture
def sleeper(tmp_path: Path) -> str:
    """An interpreter that never answers."""
    return interpreter(tmp_path, "exec sleep 1000")


def test_building_can_be_cancelled(sleeper: str) -> None:
    builder = GraphBuilder(python=sleeper)
    timer = threading.Timer(0.2, builder.cancel)
    timer.start()
    with pytest.raises(GraphError, match="was cancelled"):
        builder.build({})
    timer.join()
    with pytest.raises(GraphError, match="was cancelled"):
        builder.build({})


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_in_a_forked_child_cancelling_neither_hangs_nor_ends_what_the_parent_builds(
    sleeper: str,
) -> None:
    builder = GraphBuilder(python=sleeper)
    asked, go_on = threading.Event(), threading.Event()
    failures: list[GraphError] = []

    def wanted() -> bool:  # asked while the builder's lock is held
        asked.set()
        return go_on.wait(WAIT_S)

    def build() -> None:
        try:
            builder.build({}, wanted=wanted)
        except GraphError as error:
            failures.append(error)

    def cancel() -> None:
        with pytest.raises(GraphError, match="the process that opened the engine"):
            builder.build({})
        builder.end()
        builder.cancel()

    thread = threading.Thread(target=build)
    thread.start()
    assert asked.wait(WAIT_S)
    assert forked(cancel) == 0
    go_on.set()
    until(lambda: bool(children()))
    assert forked(cancel) == 0
    assert children() and not failures
    builder.cancel()
    thread.join()
    assert "was cancelled" in str(failures[0])


def test_building_that_takes_too_long_is_ended(sleeper: str) -> None:
    with pytest.raises(GraphError, match="taking too long"):
        GraphBuilder(python=sleeper).build({}, longest_s=0.2)


def test_errors_come_back_typed_whatever_the_task() -> None:
    with pytest.raises(GraphError, match="building a graph failed"):
        GraphBuilder().build({})


def test_cancelling_ends_a_process_that_waits_for_another(case: Case) -> None:
    case.cache.mkdir(mode=0o700)
    with (case.cache / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        timer = threading.Timer(1.0, case.graphs.cancel)
        timer.start()
        with pytest.raises(GraphError, match="was cancelled"):
            case.build()
        timer.join()
    assert case.kept == []


def test_the_process_ends_with_whoever_started_it(tmp_path: Path) -> None:
    (tmp_path / "graphs").mkdir(mode=0o700)
    with (
        PackReader.open(tiny_pack()) as reader,
        (tmp_path / "graphs" / "lock").open("wb") as lock,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        task = {
            "pack": str(reader.path),
            "plan": plan_of(reader, 4).to_json(),
            "saturates": False,
            "cache": str(tmp_path / "graphs"),
            "most_bytes": 1 << 30,
            "name": "one",
        }
        child = subprocess.Popen(
            [sys.executable, "-m", "sti.engine.graph_child"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        out, _ = child.communicate(json.dumps(task).encode() + b"\n", timeout=60)
    assert (out, child.returncode) == (b"", 3)


def test_records_say_what_they_must(case: Case) -> None:
    case.build().close()
    record = json.loads(case.file("graph.json").read_text())
    assert set(record["files"]) == {"model.onnx", "weights.bin"}
