"""A budget of memory: what has no room is refused, and what is held gives way to what runs take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sti
from sti.device.lane_profiles import StorageProfile
from sti.device.lanes import STORAGE
from sti.engine.targets import TargetSpec
from sti.errors import InputError
from sti.planning.memory import HELD, OPENED, RING, total_size
from sti.planning.plan import Plan
from sti.text.encoding import Text
from tests.support.counted_memory import MB, CountedMemory
from tests.support.engines import opened
from tests.support.packs import PROFILE, TEXTS, tiny_pack
from tests.support.paths import ROOT

LONG = "the dog runs under the table " * 6
"""Nearly as many tokens as the tiny model takes."""
SHORT_TOKENS = 8
WAIT_S = 30.0
"""Only a test that fails waits for so long."""

Opened = Callable[..., sti.Engine]


def refusal(act: Callable[[], object]) -> sti.InfeasibleError:
    """What is told of a budget that is too small."""
    with pytest.raises(sti.InfeasibleError) as caught:
        act()
    assert caught.value.limit == "memory"
    return caught.value


def least(**options: Any) -> int:
    """The smallest budget with which such an engine opens."""
    return int(refusal(lambda: opened(1, **options)).needed)


def counts_of(plan: Plan) -> list[tuple[int, ...]]:
    """What a plan reads of each slice group."""
    return [step.counts for step in plan.steps]


# ---- what is refused


@pytest.mark.parametrize(
    "options", [{}, {"fidelity": 2}, {"fidelity": 8}, {"task": "classification"}], ids=str
)
def test_a_budget_below_the_least_is_refused_and_the_least_is_enough(
    machine: CountedMemory, options: dict[str, Any]
) -> None:
    needed = least(**options)
    told = refusal(lambda: opened(needed - 1, **options))
    assert (told.asked, told.needed) == (needed - 1, needed)
    assert "is not enough for 1 text of 8 tokens" in str(told)
    with opened(needed, **options) as engine:
        assert engine.run(["dog"]).parts


def test_the_budget_that_a_refusal_names_is_enough(machine: CountedMemory) -> None:
    words = str(refusal(lambda: opened(1)))
    named = words.partition("raise it to ")[2].partition(",")[0].replace(" ", "")
    with opened(named) as engine:
        assert engine.run(["dog"]).parts


def test_the_least_for_a_latency_is_enough(machine: CountedMemory) -> None:
    options: dict[str, Any] = {"task": "classification", "latency": "10s"}
    needed = least(**options)
    with opened(needed, **options) as engine:
        assert engine.run(["dog"]).parts


def test_a_budget_that_is_enough_but_for_a_latency_is_told_of_the_latency(
    machine: CountedMemory,
) -> None:
    with pytest.raises(sti.InfeasibleError) as caught:
        opened("30MB", task="classification", latency="1us", adapt=False)
    assert caught.value.limit == "latency"


@pytest.mark.parametrize("fidelity", [None, 4])
def test_no_text_takes_less_than_a_shorter_one_and_each_is_answered_with_what_it_takes(
    machine: CountedMemory, fidelity: int | None
) -> None:
    texts = ("dog", " ".join(TEXTS), LONG)
    needed = [least(fidelity=fidelity)]
    for text in texts[1:]:
        with opened(needed[-1], fidelity=fidelity, tokens=None if fidelity else 8) as engine:
            told = refusal(partial(engine.run, [text]))
            assert told.asked == needed[-1] < told.needed
            assert engine.run(["dog"]).parts  # it stays usable
            needed.append(int(told.needed))
    for size, text in zip(needed, texts, strict=True):
        with opened(size, fidelity=fidelity) as engine:
            assert engine.run([text]).parts
    assert needed == sorted(needed)


@pytest.mark.parametrize("mode", ["planned", "sequential"])
def test_a_text_too_long_for_the_budget_says_what_it_takes_and_the_engine_stays_usable(
    machine: CountedMemory, mode: Any
) -> None:
    with opened(least(fidelity=4) + 20_000, fidelity=4) as engine:
        before = engine.run(["dog"], mode=mode).embeddings
        told = refusal(lambda: engine.run([LONG], mode=mode))
        assert "is not enough for 1 text of 38 tokens" in str(told)
        assert str(told).endswith("or give shorter texts")
        assert engine.preloaded(WAIT_S)
        np.testing.assert_array_equal(engine.run(["dog"], mode=mode).embeddings, before)


def test_a_stream_answers_what_comes_before_a_text_that_is_too_long(
    machine: CountedMemory,
) -> None:
    with opened(least(fidelity=4) + 20_000, fidelity=4) as engine:
        results, answered = engine.stream(["dog", "cat", LONG]), list[Text]()

        def answer() -> None:
            for result in results:
                answered.extend(result.texts)

        refusal(answer)
        assert answered == ["dog", "cat"]


def test_where_memory_is_not_counted_a_budget_is_refused(machine: CountedMemory) -> None:
    machine.does_not_count()
    with pytest.raises(InputError, match=r"memory \(--memory\) needs a system that says"):
        opened("64MB")
    with opened(None) as engine:
        with pytest.raises(InputError, match="give a preload instead"):
            engine.set_target(memory="64MB")
        assert engine.run(["dog"]).parts


@pytest.mark.parametrize("memory", ["64", 64, 64_000_000, "-1MB", "MB", "", "1e3MB", True, b"1MB"])
def test_a_budget_is_a_size_with_a_unit(memory: Any) -> None:
    with pytest.raises(InputError, match="memory must be a size"):
        TargetSpec(memory=memory)


def test_a_budget_is_shown_and_compared_as_it_is_written() -> None:
    target = TargetSpec(latency="30ms", memory="64MB", preload="2MB")
    assert (target.memory_bytes, target.memory) == (64 * MB, "64MB")
    assert repr(target) == "TargetSpec(latency='30ms', memory='64MB', preload='2MB')"
    assert target == TargetSpec(latency="30ms", memory="64000KB", preload="2MB")
    assert TargetSpec(memory="1MB").overridden(TargetSpec(memory="2MB")).memory_bytes == 2 * MB
    assert TargetSpec(memory="1MB").overridden(TargetSpec(fidelity=4)).memory_bytes == MB


@pytest.mark.parametrize("memory", ["0", "0B", "1B"])
def test_no_memory_at_all_is_refused_as_too_little(machine: CountedMemory, memory: str) -> None:
    assert refusal(lambda: opened(memory)).asked == TargetSpec(memory=memory).memory_bytes


def test_a_plan_excludes_a_budget(machine: CountedMemory) -> None:
    with pytest.raises(InputError, match="memory and plan exclude each other"):
        TargetSpec(memory="64MB", plan="x.json")
    with opened("64MB") as engine:
        plan = engine.plan_for(tokens=8)
    with sti.Engine.open(tiny_pack(), threads=1, profile=PROFILE, plan=plan) as engine:
        assert engine.plan_for(tokens=8).steps == plan.steps


def test_a_configuration_may_name_a_budget(machine: CountedMemory, tmp_path: Path) -> None:
    path = tmp_path / "sti.toml"
    path.write_text("[targets.small]\nmemory = '30MB'\npreload = '0'\n", encoding="utf-8")
    found = TargetSpec.named("small", config=path)
    assert found == TargetSpec(memory="30MB", preload="0")
    with sti.Engine.open(
        tiny_pack(), "small", config=path, threads=1, profile=PROFILE, memory="20MB"
    ) as engine:
        assert engine.target == TargetSpec(memory="20MB", preload="0")
    path.write_text("[targets.small]\nmemory = 30\n", encoding="utf-8")
    with pytest.raises(sti.ConfigError, match=r"\[targets.small\]: memory must be a size"):
        TargetSpec.named("small", config=path)


# ---- what is held


def test_a_budget_beyond_what_the_machine_has_is_told_and_is_no_error(
    machine: CountedMemory,
) -> None:
    machine.has(64 * MB)
    told: list[str] = []
    with opened("1GB", yield_memory=False, notify=told.append) as engine:
        assert engine.preloaded(WAIT_S)
        assert engine.held_bytes + engine.mapped_bytes > 0
        assert engine.run(["dog"]).parts
    assert len(told) == 1
    assert told[0].startswith("a memory of 1.00 GB is more than the 64.0 MB that are available")


def test_no_more_is_held_than_the_machine_has_free(machine: CountedMemory) -> None:
    machine.has(20_000)
    with opened("1GB", yield_memory=False, fidelity=8) as engine:
        assert engine.preloaded(WAIT_S)
        assert 0 < engine.held_bytes <= 20_000 and engine.mapped_bytes == 0


@pytest.mark.parametrize("memory", [0, 10_000, 20_000, 100_000, 3 * MB])
def test_what_is_held_and_what_runs_take_is_within_the_budget(
    machine: CountedMemory, memory: int
) -> None:
    limit = least(fidelity=4) + memory
    with opened(limit, fidelity=4) as engine:
        for tokens in (3, SHORT_TOKENS):
            planned = engine.planned(tokens=tokens)
            assert planned.memory is not None
            assert total_size(planned.memory) <= limit
        assert {OPENED, RING, HELD} <= {part.name for part in planned.memory}
        assert engine.preloaded(WAIT_S)
        held = next(part.size for part in planned.memory if part.name == HELD)
        assert engine.held_bytes == held
        assert planned.plan.target.memory_bytes == limit


def test_a_larger_budget_holds_no_less_and_reads_no_more(machine: CountedMemory) -> None:
    options: dict[str, Any] = {"fidelity": 8, "tokens": SHORT_TOKENS}
    needed, held, read = least(**options), [], []
    for more in (0, 5_000, 10_000, 20_000, 3 * MB):
        with opened(needed + more, **options) as engine:
            assert engine.preloaded(WAIT_S)
            held.append(engine.held_bytes)
            read.append(engine.run(["dog"]).bytes_read)
    assert held == sorted(held) and held[0] == 0 < held[-1]
    assert read == sorted(read, reverse=True) and read[-1] < read[0]


@pytest.mark.parametrize(("preload", "held"), [("0", 0), ("5KB", 5000)])
def test_a_preload_says_how_much_of_the_budget_holds_weights(
    machine: CountedMemory, preload: str, held: int
) -> None:
    with opened("40MB", preload=preload, fidelity=4) as engine:
        assert engine.preloaded(WAIT_S)
        assert engine.held_bytes == held
        read = engine.run(TEXTS).bytes_read
        assert engine.run(TEXTS).bytes_read == read > 20_000 - held


def test_a_preload_counts_as_part_of_the_budget(machine: CountedMemory) -> None:
    needed = least(fidelity=8)
    told = refusal(lambda: opened(needed, fidelity=8, preload="5KB"))
    assert told.needed == needed + 5000
    with opened(needed + 5000, fidelity=8, preload="5KB") as engine:
        assert engine.preloaded(WAIT_S) and engine.held_bytes == 5000


def test_weights_give_way_to_a_long_text_and_come_back(machine: CountedMemory) -> None:
    with opened(least(tokens=SHORT_TOKENS) + 55_000, tokens=SHORT_TOKENS) as engine:
        assert engine.preloaded(WAIT_S)
        held, short = engine.held_bytes, engine.run(["dog"])
        plain = engine.run([LONG])
        assert plain.bytes_read > short.bytes_read
        assert engine.held_bytes < held
        np.testing.assert_array_equal(engine.run([LONG]).embeddings, plain.embeddings)
        engine.run(["dog"])
        assert engine.preloaded(WAIT_S) and engine.held_bytes == held
        again = engine.run(["dog"])
        assert again.bytes_read == short.bytes_read
        np.testing.assert_array_equal(again.embeddings, short.embeddings)


def test_weights_come_back_after_memory_was_given_back(machine: CountedMemory) -> None:
    with opened(least(fidelity=4) + 60_000, fidelity=4) as engine:
        assert engine.preloaded(WAIT_S)
        held, before = engine.held_bytes, engine.run(["dog"])
        engine.release()
        assert engine.held_bytes == 0
        np.testing.assert_array_equal(engine.run(["dog"]).embeddings, before.embeddings)
        assert engine.preloaded(WAIT_S) and engine.held_bytes == held


# ---- another target


def test_a_smaller_budget_takes_held_weights_back_and_is_kept(machine: CountedMemory) -> None:
    needed = least(fidelity=8)
    with opened(needed + 3 * MB, fidelity=8) as engine:
        assert engine.preloaded(WAIT_S)
        held, before = engine.held_bytes, engine.run(["dog"])
        engine.set_target(memory=f"{needed + 10_000}B", fidelity=8)
        assert engine.preloaded(WAIT_S)
        assert 0 < engine.held_bytes <= 10_000 < held
        after = engine.run(["dog"])
        np.testing.assert_array_equal(after.embeddings, before.embeddings)
        assert after.plan.target.memory_bytes == needed + 10_000
        refusal(lambda: engine.run([LONG]))
        engine.set_target(fidelity=8)
        assert engine.run([LONG]).parts and engine.held_bytes == 0
        engine.set_target(memory=f"{needed + 3 * MB}B", fidelity=8)
        assert engine.preloaded(WAIT_S) and engine.held_bytes == held


def test_a_budget_that_is_refused_leaves_the_engine_as_it_was(machine: CountedMemory) -> None:
    with opened("40MB", preload="5KB", fidelity=4) as engine:
        assert engine.preloaded(WAIT_S)
        before, target = engine.run(["dog"]), engine.target
        refusal(lambda: engine.set_target(memory="1MB", fidelity=4))
        assert engine.target == target and engine.held_bytes == 5000
        after = engine.run(["dog"])
        assert (after.bytes_read, after.plan) == (before.bytes_read, before.plan)


def test_an_engine_without_a_budget_may_get_one(machine: CountedMemory) -> None:
    with opened(None, fidelity=4) as engine:
        before = engine.run(TEXTS)
        assert before.plan.target.memory_bytes is None and len(before.parts) == 1
        engine.set_target(memory=f"{least(fidelity=4) + 20_000}B", fidelity=4)
        after = engine.run(TEXTS)
        assert after.plan.target.memory_bytes is not None and len(after.parts) > 1


def test_a_latency_asked_for_later_takes_as_much_as_one_asked_for_at_first(
    machine: CountedMemory,
) -> None:
    options: dict[str, Any] = {"task": "classification"}
    needed = least(**options, latency="10s")
    with opened(needed, **options) as engine:
        told = refusal(lambda: engine.set_target(memory=f"{needed - 1}B", latency="10s"))
        assert told.needed == needed


@pytest.mark.parametrize("latency", [None, "10s"])
def test_lengths_alternating_keep_their_answers_and_the_budget_usable(
    machine: CountedMemory, latency: str | None
) -> None:
    options: dict[str, Any] = {"task": "classification", "latency": latency, "adapt": False}
    with opened(least(**options) + 2_350_000, **options) as engine:
        texts: tuple[Sequence[Text], ...] = (["dog"], [LONG], MANY, ["a"], TEXTS)
        first = [engine.run(item).logits for item in texts]
        for _ in range(3):
            for item, before in zip(texts, first, strict=True):
                np.testing.assert_array_equal(engine.run(item).logits, before)
        assert engine.preloaded(WAIT_S)


# ---- several texts


MANY: tuple[Text, ...] = (*TEXTS, LONG, ("the dog", "runs"), *TEXTS, "a", LONG)


def test_texts_are_cut_into_batches_that_fit_with_the_answers_of_each_alone(
    machine: CountedMemory,
) -> None:
    with opened(least(tokens=SHORT_TOKENS) + 90_000, tokens=SHORT_TOKENS) as engine:
        together = engine.run(MANY)
        alone = [engine.run([text]) for text in MANY]
        assert 1 < len(together.parts) < len(MANY)
        found = np.concatenate([item.embeddings for item in alone])
        np.testing.assert_array_equal(together.embeddings, found)
        assert {item.plan.steps for item in (together, *alone)} == {alone[0].plan.steps}
        streamed = np.concatenate([item.embeddings for item in engine.stream(MANY)])
        np.testing.assert_array_equal(streamed, found)


def test_more_memory_makes_fewer_batches(machine: CountedMemory) -> None:
    needed, parts = least(tokens=SHORT_TOKENS) + 60_000, []
    for more in (0, 100_000, 30 * MB):
        with opened(needed + more, tokens=SHORT_TOKENS, preload="0") as engine:
            parts.append(len(engine.run(MANY).parts))
    assert parts == sorted(parts, reverse=True) and parts[-1] == 1 < parts[0]


SLOW = replace(
    PROFILE,
    lanes={
        **PROFILE.lanes,
        STORAGE: StorageProfile(direct=True, request_s=1e-4, bytes_per_s=1e6, row_s=1e-6),
    },
)
"""Of storage so slow that what is held decides what is in time."""


@pytest.mark.parametrize("task", ["embedding", "classification"])
def test_what_a_budget_holds_makes_answers_better_within_a_latency(
    machine: CountedMemory, task: str
) -> None:
    options: dict[str, Any] = {
        "task": task,
        "latency": "20ms",
        "profile": SLOW,
        "adapt": False,
        "tokens": SHORT_TOKENS if task == "embedding" else None,
    }
    needed, planes = least(**options), []
    for more in (0, 3_000, 10_000, 5 * MB):
        with opened(needed + more, **options) as engine:
            plan = engine.run(["dog"]).plan
            assert plan.predicted is not None and plan.predicted.total_s <= 0.02
            planes.append(sum(map(sum, counts_of(plan))))
    if task == "embedding":
        assert planes == sorted(planes)
    assert planes[0] < planes[-1]


def test_a_floor_is_kept_within_a_budget_or_what_it_takes_is_told(machine: CountedMemory) -> None:
    options: dict[str, Any] = {"threads": 1, "profile": SLOW, "adapt": False, "preload": "0"}
    pack = ROOT / "models" / "clinc150-intents.sti.safetensors"
    with sti.Engine.open(pack, memory="40MB", latency="10s", floor="90%", **options) as engine:
        quality, plan = engine.manifest.quality, engine.run(["my card was lost"]).plan
        assert quality is not None and plan.predicted is not None
        assert plan.target.floor_is_limit and plan.predicted.total_s <= 10.0
    with pytest.raises(sti.InfeasibleError) as caught:
        sti.Engine.open(pack, memory="40MB", latency="100ms", floor="99%", **options)
    assert caught.value.limit == "quality"


def test_one_budget_has_one_plan_for_comparable_embeddings_of_every_length(
    machine: CountedMemory,
) -> None:
    for more in (90_000, 3 * MB):
        with opened(least() + more) as engine:
            plans = [engine.plan_for(tokens=tokens) for tokens in (3, 8, 16, 38, 48)]
            plans += [engine.run([text]).plan for text in ("a", *TEXTS, LONG)]
            assert all(counts_of(plan) == counts_of(plans[0]) for plan in plans)
