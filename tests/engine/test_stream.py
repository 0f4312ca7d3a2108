"""Streams and calls of many texts: what is taken, how it is cut into batches, what is merged."""

from __future__ import annotations

import gc
import threading
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import count, islice, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sti
from sti.backend.onnxruntime.compute import OrtSentenceState
from sti.device.profile import DeviceProfile
from sti.engine.batches import MOST_TEXTS, MOST_TOKENS
from sti.engine.lateness import describe_lateness
from sti.units import format_size
from tests.support.packs import PROFILE, TEXTS, tiny_pack
from tests.support.paths import INTENTS
from tests.support.ranked_packs import ranked_pack

SHORT, LONG = "dog cat", "under the table a cat runs and runs " * 3
TASKS = ("embedding", "classification", "regression", "tagging")


class Counted:
    """Texts that count how many were taken."""

    def __init__(self, texts: Iterable[sti.Text]) -> None:
        self.taken = 0
        self._texts = iter(texts)

    def __iter__(self) -> Iterator[sti.Text]:
        return self

    def __next__(self) -> sti.Text:
        text = next(self._texts)
        self.taken += 1
        return text


pytestmark = pytest.mark.filterwarnings("ignore:the latency of .* was missed by")
"""Latencies of made-up machines are not kept."""


def opened(task: Any = "classification", pack: Path | None = None, **target: Any) -> sti.Engine:
    # A made-up machine: what runs show of this one would change its plans.
    options = {"threads": 1, "profile": PROFILE, "adapt": False, **target}
    return sti.Engine.open(pack or tiny_pack(task), **options)


def slow_compute(factor: float) -> DeviceProfile:
    """The made-up machine, with products that many times as slow in every token."""
    graphs = {
        name: (costs[0], *(value * factor for value in costs[1:]))
        for name, costs in PROFILE.compute.graphs.items()
    }
    compute = PROFILE.compute._replace(graphs=graphs)
    return replace(PROFILE, lanes={**PROFILE.lanes, "compute": compute})


def latency_of(engine: sti.Engine, batch: int, tokens: int, *, times: float = 1.01) -> str:
    """A latency in which so many texts are just answered at the top of the ladder."""
    predicted = engine.plan_for(batch=batch, tokens=tokens).predicted
    assert predicted is not None
    return f"{predicted.total_s * times * 1e6:.0f}us"


def sizes(results: Iterable[sti.Result]) -> list[int]:
    return [len(result.texts) for result in results]


# ---- what is taken


def test_without_a_latency_batches_have_a_bounded_number_of_texts() -> None:
    texts = [SHORT] * (2 * MOST_TEXTS + 5)
    with opened() as engine:
        found = list(engine.stream(iter(texts)))
    assert sizes(found) == [MOST_TEXTS, MOST_TEXTS, 5]
    assert [text for result in found for text in result.texts] == texts
    assert {result.met for result in found} == {None}


def test_without_a_latency_batches_have_a_bounded_number_of_tokens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sti.engine.batches.MOST_TOKENS", 100)
    with opened() as engine:
        tokens = len(engine.tokenize([LONG])[0].ids)
        found = list(engine.stream([LONG] * 7))
    assert 100 // 4 < tokens <= 100 // 3 < MOST_TOKENS // MOST_TEXTS
    assert sizes(found) == [3, 3, 1]


def test_no_more_is_taken_than_the_next_batch_needs() -> None:
    texts = Counted(repeat(SHORT))
    with opened() as engine:
        results = engine.stream(texts)
        assert texts.taken == 0
        for number in range(1, 4):
            next(results)
            assert texts.taken == number * MOST_TEXTS


def test_texts_that_are_answered_alone_are_not_looked_ahead_of() -> None:
    texts = Counted(repeat(SHORT))
    with opened(latency="100s") as engine:
        engine.set_target(latency=latency_of(engine, 1, 8), fidelity=8)
        for number, result in enumerate(islice(engine.stream(texts), 5), 1):
            assert len(result.texts) == 1 and texts.taken == number


def test_a_stream_of_any_length_takes_bounded_memory() -> None:
    texts = ("the dog runs" if number % 3 else "dog cat" for number in count())
    with opened("embedding", fidelity=2) as engine:
        stream = engine.stream(texts)
        for _ in islice(stream, 20):
            pass
        tracemalloc.start()
        try:
            for _ in islice(stream, 160):  # 5,120 texts, whose tokens alone would take 2 MB
                pass
            gc.collect()
            held, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert held < 500_000 and most < 1_000_000


def test_an_empty_stream_has_no_results() -> None:
    with opened() as engine:
        assert list(engine.stream([])) == []
        assert list(engine.stream(())) == []


@pytest.mark.parametrize("texts", ["a text", 3, None])
def test_what_is_no_iterable_of_texts_is_refused_at_once(texts: Any) -> None:
    with opened() as engine, pytest.raises(sti.InputError, match="iterable of texts"):
        engine.stream(texts)


def test_a_mode_that_there_is_not_is_refused_at_once() -> None:
    wrong: Any = "fast"
    with opened() as engine, pytest.raises(sti.InputError, match="mode must be"):
        engine.stream(TEXTS, mode=wrong)


# ---- how far a batch grows


def test_with_a_latency_a_batch_grows_as_far_as_that_is_kept() -> None:
    with opened(latency="100s") as engine:
        assert sizes(engine.stream([SHORT] * 70)) == [32, 32, 6]
        for batch in (1, 2, 4, 8):
            engine.set_target(latency=latency_of(engine, batch, 8), fidelity=8)
            found = list(engine.stream([SHORT] * 17))
            assert sizes(found) == [batch] * (17 // batch) + [17 % batch] * (batch > 1)
            for result in found:
                assert result.plan.predicted is not None
                latency_s = result.plan.target.latency_s
                assert latency_s is not None and result.plan.predicted.total_s <= latency_s
            engine.set_target(latency="100s")


def test_a_batch_never_grows_at_the_expense_of_quality() -> None:
    """Under many latencies every batch expects what each of its texts would get alone."""
    texts = [SHORT, LONG, SHORT, SHORT, "the dog runs " * 4, SHORT, LONG, LONG] * 3
    grown = 0
    with opened(pack=ranked_pack(), profile=slow_compute(100)) as engine:
        quality = engine.manifest.quality
        assert quality is not None
        most = engine.plan_for(batch=32, tokens=48).predicted
        assert most is not None
        for share in (0.03, 0.06, 0.1, 0.2, 0.4, 1.0):
            try:
                engine.set_target(latency=f"{most.total_s * share * 1e6:.0f}us")
                results = list(engine.stream(texts))
            except sti.InfeasibleError:
                continue
            assert [text for result in results for text in result.texts] == texts
            for result in results:
                grown += len(result.texts) > 1
                assert result.plan.predicted is not None
                for encoding in engine.tokenize(result.texts):
                    alone = engine.plan_for(tokens=len(encoding.ids)).predicted
                    assert alone is not None
                    assert result.plan.predicted.loss <= quality.indistinct_from(alone.loss)
    assert grown


@pytest.mark.parametrize("comparable", [False, True])
def test_embeddings_are_answered_in_batches_that_keep_the_latency(comparable: bool) -> None:
    with opened("embedding", latency="100s", comparable=comparable) as engine:
        engine.set_target(latency=latency_of(engine, 4, 8), fidelity=8)
        assert sizes(engine.stream([SHORT] * 9)) == [4, 4, 1]


def test_a_target_that_is_changed_cuts_other_batches() -> None:
    with opened(latency="100s") as engine:
        tight = latency_of(engine, 2, 8)
        stream = engine.stream(repeat(SHORT))
        assert len(next(stream).texts) == MOST_TEXTS
        engine.set_target(latency=tight, fidelity=8)
        next(stream)
        assert len(next(stream).texts) == 2
        engine.set_target(fidelity=8)
        next(stream)
        assert len(next(stream).texts) == MOST_TEXTS


def test_a_pinned_plan_with_a_latency_is_run_for_as_much_as_it_was_made_for() -> None:
    with opened(latency="100s") as engine:
        plan = engine.plan_for(batch=4, tokens=8)
        engine.set_target(plan=plan)
        assert sizes(engine.stream([SHORT] * 9)) == [4, 4, 1]
        assert sizes(engine.run([SHORT] * 9).parts) == [4, 4, 1]
        tokens = len(engine.tokenize([LONG])[0].ids)
        with pytest.warns(
            sti.StiWarning, match=f"4 texts of up to 8 tokens, this text has {tokens}:"
        ):
            assert sizes(engine.stream([SHORT, LONG, SHORT])) == [1, 1, 1]


# ---- what is merged


@pytest.mark.parametrize("task", TASKS)
def test_many_texts_with_a_latency_are_answered_as_one_by_one_to_the_bit(task: str) -> None:
    texts = ["the dog runs", "a red house", SHORT] * 2
    with opened(task, latency="100s") as engine:
        engine.set_target(latency=latency_of(engine, 1, 8), fidelity=8)
        single = [engine.run([text]) for text in texts]
        merged = engine.run(texts)
        straight = engine.run(texts, mode="sequential")
    assert len(merged.parts) == len(straight.parts) == len(texts) and merged.texts == tuple(texts)
    for found in (merged, straight):
        if task == "embedding":
            assert (found.embeddings == np.concatenate([r.embeddings for r in single])).all()
        elif task == "tagging":
            assert found.spans == tuple(row for r in single for row in r.spans)
        else:
            assert (found.logits == np.concatenate([r.logits for r in single])).all()
        if task == "classification":
            assert found.classes == tuple(row for r in single for row in r.classes)
            assert found.accepted == (True,) * len(texts) and found.threshold == 0
        if task == "regression":
            assert found.values == tuple(row for r in single for row in r.values)


@pytest.mark.parametrize(
    ("task", "ask"),
    [
        ("embedding", sti.Engine.embed),
        ("classification", sti.Engine.classify),
        ("regression", sti.Engine.regress),
        ("tagging", sti.Engine.tag),
    ],
)
def test_plain_answers_of_many_texts_with_a_latency_are_all_there(
    task: str, ask: Callable[[sti.Engine, list[str]], Any]
) -> None:
    texts = ["the dog runs", "a red house", SHORT] * 2
    with opened(task, latency="100s") as engine:
        engine.set_target(latency=latency_of(engine, 1, 8), fidelity=8)
        found, single = ask(engine, texts), [ask(engine, [text])[0] for text in texts]
    assert len(found) == len(texts)
    assert all(np.array_equal(a, b) for a, b in zip(found, single, strict=True))


def test_costs_of_parts_are_added_up_and_the_latest_counts() -> None:
    with opened(latency="100s") as engine:
        engine.set_target(latency=latency_of(engine, 2, 8), fidelity=8)
        found = engine.run([SHORT] * 5)
    parts = found.parts
    assert sizes(parts) == [2, 2, 1] and all(part.parts == (part,) for part in parts)
    assert found.bytes_read == sum(part.bytes_read for part in parts)
    assert found.timing.total_s == pytest.approx(sum(part.timing.total_s for part in parts))
    assert found.met == all(part.met for part in parts)
    assert found.late_s == max(part.late_s for part in parts)
    begun_s = 0.0
    for part in parts:
        for lane, spans in part.timing.lanes.items():
            for span in spans:
                moved = span._replace(start_s=begun_s + span.start_s, end_s=begun_s + span.end_s)
                assert moved in found.timing.lanes[lane]
        begun_s += part.timing.total_s
    document = found.to_json()
    assert [row["texts"] for row in document["batches"]] == [2, 2, 1]
    assert [row["total_s"] for row in document["batches"]] == [
        round(part.timing.total_s, 6) for part in parts
    ]


def test_the_latest_part_tells_why() -> None:
    with opened(latency="100s") as engine:
        engine.set_target(latency=latency_of(engine, 1, 8), fidelity=8)
        found = engine.run([SHORT] * 3)
    early, late = (
        replace(part, timing=part.timing._replace(total_s=total_s))
        for part, total_s in zip(found.parts, (0.0, 50.0), strict=False)
    )
    merged = replace(found, merged=(early, late, early))
    assert merged.met is False and merged.late_s == late.late_s > 49
    assert describe_lateness(merged) == describe_lateness(late)
    assert replace(found, merged=(early, early)).met is True


def test_plan_and_quality_are_those_of_the_part_that_expects_least() -> None:
    with opened(pack=ranked_pack(), profile=slow_compute(100)) as engine:
        long = engine.plan_for(tokens=48).predicted
        assert long is not None
        for share in (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3):
            engine.set_target(latency=f"{long.total_s * share * 1e6:.0f}us")
            found = engine.run([SHORT, LONG, SHORT])
            values = [part.quality.value for part in found.parts if part.quality is not None]
            if len(set(values)) > 1:
                break
    assert len(values) == len(found.parts) and len(set(values)) > 1
    least = found.parts[values.index(min(values))]
    assert found.quality == least.quality and found.plan is least.plan
    assert found.workload == least.workload


def test_a_single_batch_is_its_own_part() -> None:
    with opened(latency="100s") as engine:
        one, many = engine.run([SHORT]), engine.run(TEXTS)
    for found in (one, many):
        assert found.parts == (found,) and found.merged == ()
        assert len(found.to_json()["batches"]) == 1


def test_without_a_latency_a_call_is_one_batch() -> None:
    with opened() as engine:
        assert len(engine.run([SHORT] * 100).parts) == 1


# ---- what goes wrong


def raising(error: BaseException, after: int = 3) -> Iterator[str]:
    yield from repeat(SHORT, after)
    raise error


class Failure(Exception):
    """What the tests below inject."""


@pytest.mark.parametrize("error", [Failure("x"), sti.InputError("line 4: bad")])
def test_texts_before_an_error_of_the_iterable_are_answered(error: Exception) -> None:
    with opened() as engine:
        stream = engine.stream(raising(error))
        assert len(next(stream).texts) == 3
        with pytest.raises(type(error), match=str(error)):
            next(stream)
        assert list(stream) == []
        assert len(engine.run(TEXTS).texts) == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [("  ", "text 40 is empty"), (3, "text 40 must be a text"), ("\ud800", "text 40 is not valid")],
)
def test_a_text_that_cannot_be_used_is_named_after_those_before_it(text: Any, message: str) -> None:
    with opened() as engine:
        stream = engine.stream([SHORT] * 40 + [text, SHORT])
        assert [len(next(stream).texts) for _ in range(2)] == [32, 8]
        with pytest.raises(sti.InputError, match=message):
            next(stream)


def test_a_call_with_a_text_that_cannot_be_used_runs_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with opened(latency="100s") as engine:

        def fail(*_: object, **__: object) -> None:
            raise AssertionError("something was run")

        monkeypatch.setattr("sti.pipeline.runner.Runner.run", fail)
        with pytest.raises(sti.InputError, match="text 40 is empty"):
            engine.run([SHORT] * 40 + [""])


def test_a_text_that_is_too_long_for_the_latency_ends_the_stream_and_is_told() -> None:
    with opened(latency="100s", profile=slow_compute(100)) as engine:
        engine.set_target(latency=latency_of(engine, 1, 8), fidelity=8)
        stream = engine.stream([SHORT, SHORT, LONG, SHORT])
        assert [len(next(stream).texts) for _ in range(2)] == [1, 1]
        with pytest.raises(sti.InfeasibleError):
            next(stream)
        with pytest.raises(sti.InfeasibleError):
            engine.run([SHORT, LONG])
        assert engine.run([SHORT]).texts == (SHORT,)


@pytest.mark.parametrize("error", [Failure, KeyboardInterrupt])
def test_a_batch_that_fails_ends_the_stream_and_the_engine_stays_usable(
    monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    with opened() as engine:
        expected = engine.run(TEXTS).logits
        stream = engine.stream(repeat(SHORT))
        next(stream)
        real = OrtSentenceState.step

        def step(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(OrtSentenceState, "step", step)
        with pytest.raises(error):
            next(stream)
        monkeypatch.setattr(OrtSentenceState, "step", real)
        assert list(stream) == []
        assert (engine.run(TEXTS).logits == expected).all()


def test_ctrl_c_while_a_text_is_waited_for_is_not_held_up_by_a_batch() -> None:
    with opened() as engine:
        stream = engine.stream(raising(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            next(stream)


def test_a_stream_of_a_closed_engine_says_so() -> None:
    with opened() as engine:
        stream = engine.stream([SHORT] * 70)
        next(stream)
    with pytest.raises(sti.ClosedError):
        next(stream)


def test_other_calls_may_come_between_two_batches() -> None:
    with opened() as engine:
        expected = engine.run([SHORT] * MOST_TEXTS).logits
        stream = engine.stream([SHORT] * 64)
        assert (next(stream).logits == expected).all()
        found: list[sti.Result] = []
        other = threading.Thread(target=lambda: found.append(engine.run(TEXTS)))
        other.start()
        other.join()
        assert found and (next(stream).logits == expected).all()


def test_cut_texts_are_warned_of_once_at_the_line_that_takes_the_result() -> None:
    with opened() as engine, pytest.warns(sti.StiWarning, match="32 of 32 texts were cut") as told:
        found = [result.truncated for result in engine.stream([LONG * 9] * 70)]
    assert found == [32, 32, 6]
    assert len(told) == 1 and told[0].filename == __file__


# ---- plans and preloads for something else


def test_a_pinned_plan_made_for_shorter_texts_says_so_once() -> None:
    with opened(latency="100s") as engine:
        plan = engine.plan_for(tokens=8)
        engine.set_target(plan=plan)
        assert not engine.run([SHORT]).outgrown
        tokens = len(engine.tokenize([LONG])[0].ids)
        said = f"made for 8 tokens, this text has {tokens}: it may take longer than predicted"
        with pytest.warns(sti.StiWarning, match=said):
            found = engine.run([LONG])
        assert found.outgrown and found.plan.workload.tokens == 8 < found.workload.tokens
        assert any(said in notice for notice in found.notices)
        assert engine.run([LONG]).outgrown  # said already


def test_a_pinned_plan_made_for_as_much_or_without_a_latency_or_prediction_says_nothing() -> None:
    with opened(latency="100s") as engine:
        engine.set_target(plan=engine.plan_for(batch=4, tokens=48))
        engine.run([LONG])
        engine.set_target(latency="100s")
        plan = engine.plan_for(tokens=8)
        engine.set_target(plan=replace(plan, predicted=None))
        engine.run([LONG])
        engine.set_target(plan=replace(plan, target=sti.TargetSpec().limits()))
        assert engine.run(TEXTS).outgrown


def test_a_late_run_of_an_outgrown_plan_is_told_as_that() -> None:
    with opened(latency="100s") as engine:
        plan = engine.plan_for(tokens=8)
        engine.set_target(plan=replace(plan, target=plan.target._replace(latency_s=1e-6)))
        with pytest.warns(sti.StiWarning, match="longer than predicted"):
            found = engine.run([LONG])
    assert str(describe_lateness(found)).endswith(": the plan was made for 1 text of 8 tokens")


def test_a_preload_larger_than_the_pack_says_how_much_is_held() -> None:
    told: list[str] = []
    with opened(preload="10MB", fidelity=4, notify=told.append) as engine:
        assert engine.preloaded(10)
        whole = sum(group.length for group in engine.manifest.groups)
        assert engine.held_bytes < whole < 10**7
        (said,) = told
        engine.set_target(preload="1KB", fidelity=4)
        assert len(told) == 1
        engine.set_target(preload="9MB", fidelity=8)
    assert "10.0 MB is more than there is" in said and f"at most {format_size(whole)} of" in said
    assert len(told) == 2


def test_the_shipped_intents_are_answered_in_batches_as_one_by_one() -> None:
    texts = ["book a flight to paris", "who won the world cup", "what is my balance"] * 3
    with sti.Engine.open(INTENTS, latency="5s", threads=1) as engine:
        found, single = engine.run(texts), [engine.run([text]) for text in texts]
        streamed = [row for result in engine.stream(texts) for row in result.decisions]
    names = [row[0].name for result in single for row in result.decisions]
    assert [row[0].name for row in found.decisions] == names
    assert [row[0].name for row in streamed] == names
