"""The benchmark of memory: what is counted, on made-up runs; and that its rows run."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from benchmarks import (
    memory,
    memory_budgets,
    memory_latency,
    memory_least,
    memory_placement,
    memory_release,
    memory_whole,
)
from benchmarks.memory_budgets import ANSWERED, AT_OPENING, AT_RUN, Case, Outcome
from benchmarks.memory_least import Least
from benchmarks.memory_placement import Placed
from benchmarks.memory_process import MeasuredProcess
from benchmarks.memory_setting import (
    Offered,
    Setting,
    Spans,
    logarithmic,
    pack_of,
    target_words,
)
from benchmarks.memory_whole import COMPRESSED, GRAPH, ORT, Times
from benchmarks.rows import Summary
from sti.device import host
from sti.model.workload import Workload
from sti.pack.pack_reader import PackReader
from sti.planning.plan import PlanRequest
from sti.planning.uniform import uniform_plan
from tests.support.packs import PROFILE, tiny_bert, tiny_pack

CASE = Case(0, "tiny", {"fidelity": 4}, 1000, 1, ((1, 8),), waits=False)
OUTCOME = Outcome(CASE, ANSWERED, 1, 900, 900, 800, "compressed", "")


def limits_of(summary: Summary) -> dict[Any, Any]:
    return {row[0]: (row[1], row[3]) for row in summary.limits}


# ---- budgets


def test_answers_over_the_budget_count_and_are_told() -> None:
    over = OUTCOME._replace(answered_bytes=1001)
    mapped = OUTCOME._replace(counted_bytes=1100, form="graph")
    found = memory_budgets.summarize([OUTCOME, over, mapped])
    assert limits_of(found)["answers over the budget, of 3 processes"] == (1, "SHORT")
    assert limits_of(found)["answers over the budget with what a graph maps"] == (2, "SHORT")
    assert limits_of(found)["the same with what a graph maps"] == (1.1, "-")
    assert found.tables[0].rows[0] == (ANSWERED, 3, 1, 1.001, 0.9)
    assert sum(note.startswith("over: OVER") for note in found.notes) == 2


def test_what_is_taken_before_a_refusal_counts_apart() -> None:
    late = OUTCOME._replace(state=AT_RUN, peak_bytes=1500)
    early = late._replace(state=AT_OPENING, answered=0, answered_bytes=0, counted_bytes=0)
    found = memory_budgets.summarize([OUTCOME, late, early])
    limits = limits_of(found)
    assert limits["answers over the budget, of 2 processes"] == (0, "met")
    assert limits["refusals over the budget until then, of 2"] == (2, "-")


def test_a_process_that_fails_is_told() -> None:
    failed = OUTCOME._replace(state=memory_budgets.FAILED, answered=0, said="out of luck")
    found = memory_budgets.summarize([failed])
    assert limits_of(found)["processes that failed, of 1"] == (1, "SHORT")
    assert any("out of luck" in note for note in found.notes)


def test_random_budgets_are_within_their_range_and_the_same_for_a_seed() -> None:
    pack, spans = pack_of(tiny_pack("embedding")), Spans(1000, 5000)
    cases = [memory_budgets.draw(rng, 0, pack, spans) for rng in [Random(1)] for _ in range(200)]
    again = Random(1)
    assert cases == [memory_budgets.draw(again, 0, pack, spans) for _ in cases]
    assert all(800 <= case.memory_bytes <= 6000 for case in cases)
    tokens = [tokens for case in cases for _, tokens in case.texts]
    assert min(tokens) >= 3 and max(tokens) <= pack.max_tokens
    assert {batch for case in cases for batch, _ in case.texts} == {1, 4, 16}
    kinds = {target_words(case.target).partition(" ")[0] for case in cases}
    assert kinds >= {"latency", "none"} and {len(case.texts) for case in cases} == {1, 2, 3, 4}


# ---- the other rows


def test_the_least_is_neither_less_than_taken_nor_much_more() -> None:
    items = [
        Least("tiny", "4 bits", 8, Offered(1200, 1000, 2, "")),
        Least("tiny", "4 bits", 16, Offered(990, 1000, 2, "")),
        Least("tiny", "latency 1s", 16, Offered(None, 1000, 2, "too slow")),
    ]
    found = memory_least.summarize(items)
    assert list(limits_of(found).values()) == [(1.2, "SHORT"), (0.99, "SHORT")]
    assert len(found.tables[0].rows) == 3 and any("too slow" in note for note in found.notes)


def test_graphs_are_held_against_the_same_number_of_threads() -> None:
    cores = host.core_count()
    theirs = Times("tiny", 128, ORT, "", cores, ((0.1, 0.1), (0.2, 0.2)), "")
    ours = theirs._replace(system="4 bits", form=GRAPH, turns_s=((0.12, 0.12), (0.24, 0.24)))
    alone = theirs._replace(threads=cores + 1, turns_s=((9.0,),))
    streamed = ours._replace(form=COMPRESSED, turns_s=((0.3, 0.3), (0.3, 0.3)))
    failed = ours._replace(tokens=16, turns_s=(), failed="it fell")
    found = memory_whole.summarize([ours, streamed, alone, theirs, failed])
    limits = list(found.limits)
    assert [row[1] for row in limits] == [pytest.approx(1.2), pytest.approx(2.0)]
    assert [row[3] for row in limits] == ["SHORT", "-"]
    assert found.tables[0].rows[0][-1] == "1.200 to 1.200"
    assert any("it fell" in note for note in found.notes)


def test_more_memory_is_held_against_the_fastest_with_less() -> None:
    assert memory_latency.worst_step([3.0, 2.0, 1.0]) == 1.0
    assert memory_latency.worst_step([3.0, 2.0, 2.5, 1.0, 1.1]) == pytest.approx(1.25)


def test_plans_that_are_compared_differ_in_what_is_held_alone() -> None:
    with PackReader.open(tiny_pack("embedding")) as reader:
        request = PlanRequest(reader.manifest, reader.pack_id, Workload(1, 8))
        plan = uniform_plan(request, bits=4, profile=PROFILE)
        groups = memory_placement.groups_of_plan(reader.manifest, plan)
    budget = memory_placement.read_bytes(groups, plan) // 2
    leading, spread = (
        memory_placement.with_placing(plan, groups, budget, name) for name in ("leading", "spread")
    )
    held = [[step.preload_bytes for step in item.steps] for item in (leading, spread)]
    assert held[0] != held[1] and sum(held[0]) == sum(held[1]) == budget
    for item in (leading, spread):
        bare = tuple(step._replace(preload_bytes=0) for step in item.steps)
        assert bare == plan.steps and item.threads == plan.threads


def test_what_is_planned_is_held_against_the_leading_bytes() -> None:
    leading = Placed("tiny", 8, 0.5, 100, "leading", (1.0, 1.0), (0.1,), planned=False)
    spread = leading._replace(placing="spread", seconds=(1.2, 1.2), planned=True)
    limits = memory_placement.summarize([leading, spread]).limits
    assert [row[1] for row in limits] == [pytest.approx(1.2)] * 2
    assert [row[3] for row in limits] == ["-", "SHORT"]
    assert len(memory_placement.summarize([leading]).limits) == 0


def test_budgets_between_the_least_and_the_most_are_even_factors() -> None:
    assert logarithmic(100, 10_000, 3) == [100, 1000, 10_000]
    assert logarithmic(100, 50, 2) == [100, 100]


# ---- processes and rows


def test_growth_is_that_of_the_engine_and_is_given_back() -> None:
    pack = pack_of(tiny_pack("classification"))
    with MeasuredProcess([pack.texts(2, 16)]) as process:
        assert process.peak_bytes < 500_000
        target = {"fidelity": 4, "memory": "1B"}
        refused = process.ask("open", pack=str(pack.path), target=target, threads=1)
        assert refused["refused"] == "memory" and refused["needed"] > 1
        assert "error" in process.ask("run", texts=0, times=1)
        process.ask("open", pack=str(pack.path), target={"fidelity": 4}, threads=1)
        reply = process.ask("run", texts=0, times=3)
        assert len(reply["seconds"]) == 3 and reply["form"] == "compressed"
        assert 100_000 < process.growth_bytes <= process.peak_bytes
        assert process.mapped_bytes() == 0
        called = process.ask("release")
        assert called["begun_s"] <= called["ended_s"]
        assert process.growth_since(called["begun_s"])
        ended = process.ask("run", texts=99, times=1)
        assert "IndexError" in ended["error"]
    process.close()


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_least, "FIDELITIES", (4,))
    monkeypatch.setattr(memory_least, "LATENCIES", ())
    monkeypatch.setattr(memory_latency, "BUDGETS", 2)
    monkeypatch.setattr(memory_placement, "SHARES", (0.5,))
    monkeypatch.setattr(memory_release, "TIMES", 1)
    monkeypatch.setattr(memory_whole, "FIDELITIES", (4,))


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("row", memory.ROWS)
def test_a_row_runs_and_is_saved(
    row: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack, place = tiny_pack("embedding"), tmp_path / "memory.json"
    given = ["--runs", "2", "--turns", "1", "--tokens", "8", "--jobs", "2", "--json", str(place)]
    if row == "whole":
        pack = tiny_bert() / "pack"
        given += ["--against", f"{pack}={tiny_bert() / 'models' / 'int8.onnx'}"]
    assert memory.main([str(pack), "--rows", row, "--output", "json", *given]) == 0
    said = capsys.readouterr()
    report, saved = json.loads(said.out), json.loads(place.read_text(encoding="utf-8"))
    assert saved["records"][row] and not any("failed:" in note for note in report["notes"])
    titles = [table["title"] for table in report["tables"]]
    assert titles[0] == "Memory" and len(titles) == 2
    figures = report["tables"][0]["rows"]
    assert figures and all(f"{item['limit on']}: " in said.err for item in figures)


def test_what_is_known_is_reported_when_the_keyboard_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: Setting) -> Iterator[Outcome]:
        yield OUTCOME
        signal.raise_signal(signal.SIGINT)

    def never(_: Setting) -> Iterator[Any]:
        raise AssertionError("the benchmark was ended")

    rows = {name: row._replace(measure=never) for name, row in memory.ROWS.items()}
    rows["budget"] = rows["budget"]._replace(measure=interrupted)
    monkeypatch.setattr(memory, "ROWS", rows)
    place = tmp_path / "memory.json"
    argv = [str(tiny_pack("embedding")), "--rows", "budget,least", "--json", str(place)]
    assert memory.main(argv) == 0
    said = capsys.readouterr().out
    assert "ended early" in said and "not measured: least" in said
    saved = json.loads(place.read_text(encoding="utf-8"))
    assert saved["records"]["budget"][0]["case"]["target"] == {"fidelity": 4}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--rows", "speed"], "none of budget, least"),
        (["--runs", "0"], "at least 1"),
        (["--tokens", "8,x"], "at least 1"),
        (["--against", "pack=nowhere.onnx"], "with a file"),
    ],
)
def test_options_that_cannot_be_used_are_refused(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        memory.main([str(tiny_pack("embedding")), *options])
    assert said in capsys.readouterr().err


def test_packs_need_different_names_and_models_a_pack(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack, model = tiny_pack("embedding"), tmp_path / "int8.onnx"
    model.touch()
    with pytest.raises(SystemExit):
        memory.main([str(pack), str(pack)])
    assert "different names" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        memory.main([str(pack), "--against", f"{tmp_path / 'other'}={model}"])
    assert "no pack that is measured" in capsys.readouterr().err
