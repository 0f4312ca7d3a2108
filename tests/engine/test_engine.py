"""The engine end to end on small packs: answers, plans, batches, targets, failures."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sti
from sti.backend.onnxruntime.compute import OrtSentenceState
from sti.calibration.cache import cache_directory
from sti.device.host import Memory
from sti.device.lanes import PIPELINED, SEQUENTIAL, shared
from sti.model.workload import Workload
from sti.pipeline.runner import Mode
from sti.pipeline.workers import Worker
from sti.planning.plan import Plan, PlanRequest, Target
from sti.planning.uniform import uniform_plan
from sti.storage.file_reader import FileReader
from tests.support.packs import PROFILE, TEXTS, tiny_pack

LONG = "the dog runs under the table " * 30


@pytest.fixture(scope="module")
def engine() -> Iterator[sti.Engine]:
    with sti.Engine.open(tiny_pack(), fidelity=4, threads=1, profile=PROFILE) as opened:
        opened.run(TEXTS)  # starts its threads before any test counts them
        yield opened


def mixed_plan(engine: sti.Engine, counts: list[list[int]], preload: int, threads: int) -> Plan:
    """A plan with a staircase of its own for every step."""
    base = uniform_plan(
        PlanRequest(engine.manifest, engine.pack_id, Workload(1, 8)),
        bits=2,
        threads=shared(threads),
    )
    steps = tuple(
        step._replace(counts=(step.counts[0], *higher), preload_bytes=preload)
        for step, higher in zip(base.steps, counts, strict=True)
    )
    return replace(base, steps=steps, target=Target(None, preload * len(steps)))


staircases = st.lists(
    st.lists(st.integers(0, 2), min_size=4, max_size=4).map(lambda c: sorted(c, reverse=True)),
    min_size=12,
    max_size=12,
)


@settings(max_examples=25)
@given(staircases, st.sampled_from([0, 100, 3000, 10**6]), st.integers(1, 3))
def test_pipelined_equals_sequential_to_the_bit(
    counts: list[list[int]], preload: int, threads: int
) -> None:
    with sti.Engine.open(tiny_pack(), fidelity=2, threads=3, profile=PROFILE) as engine:
        plan = mixed_plan(engine, counts, preload, threads)
        engine.set_target(plan=plan)
        cold = engine.run(TEXTS).embeddings
        assert engine.preloaded(10)
        assert engine.held_bytes <= plan.target.preload_bytes
        piped = engine.run(TEXTS)
        straight = engine.run(TEXTS, mode="sequential")
        assert piped.plan is plan
        assert straight.plan == replace(plan, threads=SEQUENTIAL)
        assert (piped.embeddings == straight.embeddings).all()
        assert (piped.embeddings == cold).all()
        assert piped.bytes_read == straight.bytes_read


def test_embeddings_are_normalised_and_differ_between_texts(engine: sti.Engine) -> None:
    found = engine.embed(TEXTS)
    assert found.shape == (len(TEXTS), 32) and found.dtype == np.float32
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert len({row.tobytes() for row in found}) == len(TEXTS)


def test_a_batch_of_equal_lengths_answers_each_text_as_alone_to_the_bit(
    engine: sti.Engine,
) -> None:
    texts = ["the dog runs", "the cat runs", "a red house", "house under table"]
    together = engine.embed(texts)
    for row, text in zip(together, texts, strict=True):
        assert (engine.embed([text])[0] == row).all()


def test_a_padded_batch_answers_each_text_nearly_as_alone(engine: sti.Engine) -> None:
    texts = [" ".join(["dog", "cat", "red", "house"][: 1 + i % 4] * (1 + i % 5)) for i in range(40)]
    together = engine.embed(texts)
    alone = np.stack([engine.embed([text])[0] for text in texts])
    assert np.median(np.abs(together - alone)) <= 1e-6
    assert (together * alone).sum(axis=1).min() >= 0.995


def test_a_batch_reads_every_weight_once(engine: sti.Engine) -> None:
    one, many = engine.run(TEXTS[:1]), engine.run(TEXTS * 20)
    words = 26 * engine.manifest.embeddings.row_bytes
    assert many.bytes_read <= one.bytes_read + words


def test_all_fidelities_come_nearer_to_the_best(engine: sti.Engine) -> None:
    answers = {}
    with sti.Engine.open(tiny_pack(), threads=1, profile=PROFILE, fidelity=2) as other:
        for bits in (2, 3, 4, 6, 8):
            other.set_target(fidelity=bits)
            answers[bits] = other.embed(TEXTS)
    close = [float((answers[bits] * answers[8]).sum(axis=1).mean()) for bits in (2, 3, 4, 6)]
    assert close == sorted(close) and close[-1] > 0.995


def test_a_preloaded_model_reads_only_token_rows() -> None:
    with sti.Engine.open(
        tiny_pack(), fidelity=4, preload="10MB", threads=1, profile=PROFILE
    ) as engine:
        assert engine.preloaded(10)
        result = engine.run(TEXTS)
        assert result.bytes_read < 30 * engine.manifest.embeddings.row_bytes
        assert 0 < engine.held_bytes <= 10_000_000


def test_a_target_without_a_preload_gives_the_buffer_back() -> None:
    with sti.Engine.open(
        tiny_pack(), fidelity=4, preload="64KB", threads=1, profile=PROFILE
    ) as engine:
        assert engine.preloaded(10) and engine.held_bytes > 0
        engine.set_target(fidelity=4)
        engine.run(TEXTS)
        assert engine.preloaded(10) and engine.held_bytes == 0


def test_set_target_changes_the_plan_and_rebuilds_no_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with sti.Engine.open(tiny_pack(), threads=1, fidelity=2, profile=PROFILE) as engine:
        engine.run(TEXTS)  # a fidelity's sessions are made when it is first decoded
        engine.set_target()
        best = engine.run(TEXTS)

        def refuse(*_: object, **__: object) -> None:
            raise AssertionError("a session was built")

        monkeypatch.setattr("onnxruntime.InferenceSession.__init__", refuse)
        engine.set_target(fidelity=2, preload="64KB")
        low = engine.run(TEXTS)
        engine.set_target()
        again = engine.run(TEXTS)
    assert low.plan.steps != best.plan.steps
    assert (again.embeddings == best.embeddings).all()
    assert not (low.embeddings == best.embeddings).all()


def test_an_infeasible_target_says_the_limit_and_leaves_the_engine_as_it_was() -> None:
    with sti.Engine.open(tiny_pack(), fidelity=4, threads=1, profile=PROFILE) as engine:
        before = engine.embed(TEXTS)
        with pytest.raises(sti.InfeasibleError) as caught:
            engine.set_target(latency="1us")
        assert caught.value.limit == "latency"
        assert caught.value.needed > caught.value.asked == 1e-6
        assert (engine.embed(TEXTS) == before).all()


def test_a_preload_buffer_larger_than_memory_is_refused() -> None:
    with pytest.raises(sti.InfeasibleError, match="memory") as caught:
        sti.Engine.open(tiny_pack(), preload="1000000GB", fidelity=2, profile=PROFILE)
    assert caught.value.limit == "preload"
    assert caught.value.asked == 10**15 and caught.value.needed == 2 * 10**15


def test_narrow_operands_of_several_heads_answer_as_one_head_a_slice() -> None:
    found = []
    for slices in (4, 2, 1):
        path = tiny_pack(slices=slices)
        with sti.Engine.open(path, fidelity=8, threads=1, profile=PROFILE) as engine:
            found.append(engine.embed(TEXTS))
    assert np.allclose(found[0], found[1], atol=2e-3)
    assert np.allclose(found[0], found[2], atol=2e-3)


def test_classification_names_labels_best_first() -> None:
    with sti.Engine.open(
        tiny_pack("classification"), fidelity=8, threads=1, profile=PROFILE
    ) as engine:
        rows = engine.classify([*TEXTS, ("the dog runs", "a red house")])
        for row in rows:
            assert {label.name for label in row} == {"red", "green", "blue"}
            scores = [label.score for label in row]
            assert scores == sorted(scores, reverse=True) and sum(scores) == pytest.approx(1)
        with pytest.raises(sti.InputError, match="classification"):
            engine.embed(TEXTS)


@pytest.mark.parametrize("task", ["mean_classification", "regression"])
def test_other_sequence_heads_answer(task: Any) -> None:
    with sti.Engine.open(tiny_pack(task), fidelity=8, threads=1, profile=PROFILE) as engine:
        logits = engine.run([("the dog", "a cat"), "the dog"]).logits
        assert logits.shape == (2, engine.dimension) and np.isfinite(logits).all()


def test_tagging_gives_spans_of_the_text() -> None:
    with sti.Engine.open(tiny_pack("tagging"), fidelity=8, threads=1, profile=PROFILE) as engine:
        for text, spans in zip(TEXTS, engine.tag(TEXTS), strict=True):
            assert spans and all(text[span.start : span.end] == span.text for span in spans)


def test_over_long_text_is_cut_with_a_notice(engine: sti.Engine) -> None:
    with pytest.warns(sti.StiWarning, match="48 tokens"):
        result = engine.run([LONG, "the dog"])
    assert result.truncated == 1


@pytest.mark.parametrize("ask", [sti.Engine.run, sti.Engine.embed])
def test_the_notice_of_a_cut_text_points_at_the_caller(
    engine: sti.Engine, ask: Callable[[sti.Engine, list[str]], object]
) -> None:
    with pytest.warns(sti.StiWarning) as caught:
        ask(engine, [LONG])
    assert caught[0].filename == __file__


@pytest.mark.parametrize("name", ["profile", "notify"])
def test_an_option_of_the_wrong_type_is_refused(name: str) -> None:
    wrong: Any = {name: 3}
    with pytest.raises(sti.InputError, match=f"{name} must .*found 3"):
        sti.Engine.open(tiny_pack(), **wrong)


def test_an_encoding_shows_its_tokens_only(engine: sti.Engine) -> None:
    shown = repr(engine.tokenize(["the dog"])[0])
    assert shown.startswith("Encoding(ids=") and "object at" not in shown


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "no texts"),
        (["a", "  "], "text 1 is empty"),
        ("the dog", "list of texts"),
        ([("a", "b", "c")], "text 0"),
        ([3], "text 0"),
        ([("a", "")], "text 0 is empty"),
        ([("a",)], "text 0"),
        ([()], "text 0"),
        (["a", "b\ud800"], "text 1 is not valid Unicode"),
    ],
)
def test_texts_that_cannot_be_used_are_refused(
    engine: sti.Engine, texts: Any, message: str
) -> None:
    with pytest.raises(sti.InputError, match=message):
        engine.run(texts)


def test_calls_from_several_threads_run_one_after_another(engine: sti.Engine) -> None:
    expected = engine.embed(TEXTS)
    found: list[bool] = []
    threads = [
        threading.Thread(target=lambda: found.append(bool((engine.embed(TEXTS) == expected).all())))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 6


def test_a_closed_engine_refuses_and_holds_nothing() -> None:
    engine = sti.Engine.open(tiny_pack(), fidelity=2, threads=1, preload="64KB")
    assert engine.preloaded(10) and engine.held_bytes > 0
    engine.close()
    engine.close()
    assert engine.held_bytes == 0
    with pytest.raises(sti.ClosedError):
        engine.run(TEXTS)


class Failure(Exception):
    """What the tests below inject."""


@pytest.mark.parametrize("after", [0, 1, 3, 5])
def test_storage_that_fails_stops_the_run_and_the_engine_stays_usable(
    monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    with sti.Engine.open(tiny_pack(), fidelity=4, threads=1, profile=PROFILE) as engine:
        expected = engine.embed(TEXTS)
        real, calls = FileReader.read, []

        def read(self: FileReader, *args: Any) -> None:
            calls.append(1)
            if len(calls) > after:
                raise sti.StorageError("injected")
            real(self, *args)

        monkeypatch.setattr(FileReader, "read", read)
        with pytest.raises(sti.StorageError, match="injected"):
            engine.run(TEXTS)
        monkeypatch.setattr(FileReader, "read", real)
        assert (engine.embed(TEXTS) == expected).all()


@pytest.mark.parametrize("mode", ["planned", "sequential"])
def test_token_rows_that_cannot_be_read_stop_the_run_and_the_engine_stays_usable(
    monkeypatch: pytest.MonkeyPatch, mode: Mode
) -> None:
    with sti.Engine.open(tiny_pack(), fidelity=4, threads=1, profile=PROFILE) as engine:
        expected = engine.embed(TEXTS)

        def read_rows(*_: object) -> None:
            raise sti.StorageError("injected")

        with monkeypatch.context() as patch:
            patch.setattr(FileReader, "read_rows", read_rows)
            with pytest.raises(sti.StorageError, match="injected"):
                engine.run(TEXTS, mode=mode)
        assert (engine.embed(TEXTS) == expected).all()


@pytest.mark.parametrize("error", [Failure, KeyboardInterrupt])
def test_compute_that_fails_stops_the_lanes_and_the_engine_stays_usable(
    monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    with sti.Engine.open(tiny_pack(), fidelity=4, threads=1, profile=PROFILE) as engine:
        expected = engine.embed(TEXTS)
        real, calls = OrtSentenceState.step, []

        def step(self: OrtSentenceState, *args: Any, **named: Any) -> None:
            calls.append(1)
            if len(calls) == 3:
                raise error
            real(self, *args, **named)

        monkeypatch.setattr(OrtSentenceState, "step", step)
        with pytest.raises(error):
            engine.run(TEXTS)
        monkeypatch.setattr(OrtSentenceState, "step", real)
        assert (engine.embed(TEXTS) == expected).all()


def test_reading_stays_within_the_ring_and_overlaps_compute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With compute held up in the first step, no more than the ring is read."""
    with sti.Engine.open(tiny_pack(), fidelity=4, threads=1, profile=PROFILE) as engine:
        plan = replace(engine.plan_for(tokens=8), read_ahead=1, threads=PIPELINED)
        engine.set_target(plan=plan)
        engine.run(TEXTS)
        real_read, real_step = FileReader.read, OrtSentenceState.step
        reads: list[int] = []
        seen: list[int] = []

        def read(self: FileReader, *args: Any) -> None:
            reads.append(1)
            real_read(self, *args)

        def step(self: OrtSentenceState, *args: Any, **named: Any) -> None:
            if not seen:
                deadline = time.monotonic() + 10
                while len(reads) < 5 and time.monotonic() < deadline:
                    time.sleep(0.01)
                time.sleep(0.1)  # time enough to read on, for a lane that would
                seen.append(len(reads))
            real_step(self, *args, **named)

        monkeypatch.setattr(FileReader, "read", read)
        monkeypatch.setattr(OrtSentenceState, "step", step)
        engine.run(TEXTS)
        # Decoded into working buffers: three groups; in the ring: two more.
        assert seen == [5] and len(reads) == 12


def test_the_public_names_are_those_listed() -> None:
    for name in sti.__all__:
        assert getattr(sti, name) is not None
    public = {name for name in dir(sti) if not name.startswith("_")}
    assert public <= set(sti.__all__)


def test_an_engine_that_is_dropped_ends_its_threads_with_a_warning() -> None:
    engine = sti.Engine.open(tiny_pack(), fidelity=2, threads=1, preload="64KB")
    engine.run(TEXTS)
    with pytest.warns(ResourceWarning, match="not closed"):
        del engine


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_is_refused_instead_of_hanging() -> None:
    with sti.Engine.open(tiny_pack(), fidelity=2, threads=1, profile=PROFILE) as engine:
        engine.run(TEXTS)
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            try:
                engine.run(TEXTS)
            except sti.RunError:
                os._exit(7)
            os._exit(1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 7


@pytest.mark.parametrize("call", [1, 2])
def test_an_interrupt_while_the_lanes_start_leaves_the_engine_usable(
    monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    with sti.Engine.open(tiny_pack(), fidelity=4, threads=1, profile=PROFILE) as engine:
        expected = engine.embed(TEXTS)
        real, calls = Worker.submit, []

        def submit(self: Worker, job: Any) -> threading.Event:
            calls.append(1)
            if len(calls) == call:
                raise KeyboardInterrupt
            return real(self, job)

        monkeypatch.setattr(Worker, "submit", submit)
        with pytest.raises(KeyboardInterrupt):
            engine.run(TEXTS)
        monkeypatch.setattr(Worker, "submit", real)
        assert (engine.embed(TEXTS) == expected).all()


def test_a_preload_that_failed_is_tried_again_after_the_next_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = FileReader.read

    def fail(self: FileReader, *args: Any) -> None:
        raise sti.StorageError("injected")

    monkeypatch.setattr(FileReader, "read", fail)
    with sti.Engine.open(
        tiny_pack(), fidelity=2, preload="64KB", threads=1, profile=PROFILE
    ) as engine:
        assert not engine.preloaded(10) and engine.held_bytes == 0
        monkeypatch.setattr(FileReader, "read", real)
        engine.run(TEXTS)
        assert engine.preloaded(10) and engine.held_bytes > 0


def test_pairs_are_refused_where_single_texts_are_labelled() -> None:
    with (
        sti.Engine.open(tiny_pack("tagging"), fidelity=2, threads=1, profile=PROFILE) as engine,
        pytest.raises(sti.InputError, match="text 1 is a pair"),
    ):
        engine.run(["the dog", ("the dog", "a cat")])


def test_a_pinned_fidelity_that_cannot_keep_the_latency_is_refused() -> None:
    with pytest.raises(sti.InfeasibleError, match="8 bits") as caught:
        sti.Engine.open(tiny_pack(), fidelity=8, latency="10us", threads=1, profile=PROFILE)
    assert caught.value.limit == "latency" and caught.value.needed > 1e-5


def test_a_batch_beyond_memory_is_refused(
    engine: sti.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sti.device.host.memory", lambda: Memory(10**6, 10**6))
    long = "dog " * (engine.max_tokens - 2)
    with pytest.raises(sti.InfeasibleError, match="fewer at a time") as caught:
        engine.run([long] * 6000)
    assert caught.value.limit == "memory"
    assert caught.value.asked == 6000 * engine.max_tokens * engine.dimension * 8


@pytest.mark.parametrize("threads", [0, -1, 10**5, 1.5, True, "2"])
def test_threads_that_cannot_be_used_are_refused(threads: Any) -> None:
    with pytest.raises(sti.InputError, match="threads"):
        sti.Engine.open(tiny_pack(), fidelity=2, threads=threads)


def test_a_length_for_the_one_plan_of_embeddings_is_refused_where_there_is_none() -> None:
    with sti.Engine.open(tiny_pack(), fidelity=4, tokens=16):
        pass
    for target in (
        {"path": tiny_pack("classification")},
        {"path": tiny_pack(), "comparable": False},
    ):
        with pytest.raises(sti.InputError, match=r"tokens \(--tokens\) .* leave it out"):
            sti.Engine.open(fidelity=4, tokens=16, **target)  # type: ignore[arg-type]


def test_an_unknown_mode_is_refused(engine: sti.Engine) -> None:
    with pytest.raises(sti.InputError, match="sequential"):
        engine.run(TEXTS, mode="fast")  # type: ignore[arg-type]


def test_a_plan_is_made_once_and_found_by_the_next_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    pack = tiny_pack()  # embeddings have one plan for all lengths
    with sti.Engine.open(pack, latency="10s", threads=1, profile=PROFILE) as engine:
        wanted = engine.plan_for(tokens=16)
        assert engine.plan_for(tokens=8).steps == wanted.steps

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("planned again")

    with monkeypatch.context() as patched:
        patched.setattr("sti.planning.planner.make_plan", fail)
        with sti.Engine.open(pack, latency="10s", threads=1, profile=PROFILE) as engine:
            assert engine.plan_for(tokens=16) == wanted
            with pytest.raises(AssertionError, match="planned again"):
                engine.set_target(latency="20s")
    other = {**wanted.target._asdict(), "latency_s": 99.0}
    for change in ({"pack": "0" * 16}, {"target": other}):
        for path in cache_directory().glob("plan-*.json"):  # valid, but not what is asked for
            document = json.loads(path.read_text())
            document["value"] |= change
            path.write_text(json.dumps(document))
        with sti.Engine.open(pack, latency="10s", threads=1, profile=PROFILE) as engine:
            assert engine.plan_for(tokens=16) == wanted


def test_choosing_a_plan_is_timed_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    from sti.planning import choice

    real, seen = choice.plan_of, set()

    def slow(request: Any, *others: Any) -> Plan:
        time.sleep(0.0 if request.workload in seen else 0.2)
        seen.add(request.workload)
        return real(request, *others)

    monkeypatch.setattr("sti.engine.plan_maker.plan_of", slow)
    pack = tiny_pack("classification")
    with sti.Engine.open(pack, latency="10s", threads=1, profile=PROFILE) as engine:
        engine.run(["warm"])
        two = ["a", "b"]  # nothing is made ahead for more than one
        first, second = engine.run(two).timing, engine.run(two).timing
    assert first.plan_s >= 0.2 > first.busy_s["compute"]
    assert first.total_s >= first.plan_s and first.stall_s < 0.2
    assert second.plan_s < 0.1


# ---- facts of the engine


@pytest.mark.parametrize(
    ("task", "labels", "dimension"),
    [
        ("embedding", (), 32),
        ("classification", ("red", "green", "blue"), 3),
        ("tagging", None, None),
        ("regression", None, 1),
    ],
)
def test_an_engine_tells_task_labels_dimension_and_limits(
    task: Any, labels: tuple[str, ...] | None, dimension: int | None
) -> None:
    with sti.Engine.open(tiny_pack(task), fidelity=2, threads=1, profile=PROFILE) as engine:
        assert engine.task == task
        assert engine.labels == (engine.manifest.labels if labels is None else labels)
        assert engine.dimension == (len(engine.labels) if dimension is None else dimension)
        assert engine.max_tokens == 48
        assert engine.target == sti.TargetSpec(fidelity=2)
        shown = repr(engine)
    assert task in shown and "TargetSpec(fidelity=2)" in shown and "\n" not in shown
    assert repr(engine).endswith(", closed)")


def test_the_target_follows_set_target_and_stays_where_that_fails(tmp_path: Path) -> None:
    config = tmp_path / "sti.toml"
    config.write_text('[targets.low]\nfidelity = 2\n[targets.late]\nlatency = "1us"\n')
    pack = tiny_pack()
    with sti.Engine.open(pack, "low", config=config, threads=1, profile=PROFILE) as engine:
        assert engine.target == sti.TargetSpec(fidelity=2)
        engine.set_target(sti.TargetSpec(fidelity=4), preload="1KB")
        assert engine.target == sti.TargetSpec(fidelity=4, preload="1KB")
        with pytest.raises(sti.InfeasibleError):
            engine.set_target("late")
        assert engine.target == sti.TargetSpec(fidelity=4, preload="1KB")
        engine.set_target("low")
        assert engine.target == sti.TargetSpec(fidelity=2)


def test_tokenize_gives_what_a_run_sees(engine: sti.Engine) -> None:
    short, pair, long = engine.tokenize(["the dog", ("the dog", "a cat"), LONG])
    assert len(short.ids) == 4 and not short.truncated
    assert set(pair.type_ids.tolist()) == {0, 1} and len(pair.ids) == len(pair.type_ids)
    assert len(long.ids) == engine.max_tokens and long.truncated
    with pytest.raises(sti.InputError, match="text 0 is empty"):
        engine.tokenize([" "])


def test_a_closed_engine_tokenizes_no_more() -> None:
    with sti.Engine.open(tiny_pack(), fidelity=2, threads=1, profile=PROFILE) as engine:
        pass
    with pytest.raises(sti.ClosedError):
        engine.tokenize(TEXTS)


def test_notices_go_to_whoever_asked_for_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sti.calibration.calibrate.BUDGET_S", 0.1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    told: list[str] = []
    for _ in range(2):
        with sti.Engine.open(tiny_pack(), threads=1, notify=told.append):
            pass
    # On a busy machine more is told.
    assert told[0] == "measuring this device (once, about 2 s)"
    assert capfd.readouterr() == ("", "")


def test_storage_of_its_own_needs_a_profile_that_knows_it() -> None:
    with FileReader(tiny_pack()) as reader, pytest.raises(sti.InputError, match="needs a profile"):
        sti.Engine.open(tiny_pack(), storage=reader)
