"""``evaluate`` on small packs: what it reports is what planning and running by hand give."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import sti
from shard_tools.data.rows import read_rows
from shard_tools.evaluation import report, report_data
from shard_tools.evaluation.cells import Cell, Entry, Evaluation
from shard_tools.evaluation.evaluate import EvaluateOptions, evaluate
from shard_tools.evaluation.timing import draw
from sti.errors import InputError
from sti.model.manifest import Manifest
from sti.model.quality import Rejection
from sti.model.workload import Workload, bucket
from sti.pack.pack_reader import PackReader
from sti.planning.plan import Plan, PlanRequest, Target
from sti.planning.planner import make_plan
from sti.planning.uniform import uniform_plan
from sti.text.encoding import Text
from tests.support.edited_packs import edited
from tests.support.packs import PROFILE, tiny_pack
from tests.support.ranked_packs import ranked_pack, texts, write_data

TARGETS = (0.7e-3, 1.6e-3, 20e-3)
"""With the made-up device: out of reach, tight, and enough for everything (in seconds)."""
PRELOADS = (0, 12_000)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with ``data.tsv`` and ``device.json``."""
    place = tmp_path_factory.mktemp("evaluate")
    write_data(place / "data.tsv", ranked_pack(), texts(120))
    (place / "device.json").write_text(json.dumps(PROFILE.to_json()))
    return place


@pytest.fixture(scope="module")
def found(place: Path) -> Evaluation:
    """An evaluation on the made-up device."""
    options = EvaluateOptions(TARGETS, PRELOADS, device=str(place / "device.json"), tokens=16)
    return evaluate(ranked_pack(), place / "data.tsv", options)


def cell_of(found: Evaluation, latency_s: float, preload: int) -> Cell:
    return next(c for c in found.cells if (c.latency_s, c.preload_bytes) == (latency_s, preload))


def plan_by_hand(latency_s: float | None, preload: int) -> Plan:
    with PackReader.open(ranked_pack()) as reader:
        target = Target(latency_s, preload)
        return make_plan(
            PlanRequest(reader.manifest, reader.pack_id, Workload(1, 16), target), PROFILE
        )


def accuracy_by_engine(plan: Plan, data: Path) -> float:
    """The share of right answers when the engine runs the plan."""
    rows = read_rows(data)
    plan = replace(plan, target=plan.target._replace(latency_s=None))  # all texts at once
    with sti.Engine.open(ranked_pack(), plan=plan, threads=1, profile=PROFILE) as engine:
        best = [labels[0] for labels in engine.classify([row.text for row in rows])]
    right = [label.name == row.label for label, row in zip(best, rows, strict=True)]
    return sum(right) / len(right)


def test_there_is_a_cell_for_each_target_and_preload(found: Evaluation) -> None:
    limits = [(cell.latency_s, cell.preload_bytes) for cell in found.cells]
    assert limits == [(latency, preload) for latency in TARGETS for preload in PRELOADS]
    assert (found.examples, found.tokens, found.runs) == (120, 16, 0)


@pytest.mark.parametrize("latency_s", TARGETS[1:])
@pytest.mark.parametrize("preload", PRELOADS)
def test_a_cell_holds_the_plan_and_what_the_engine_makes_of_it(
    found: Evaluation, place: Path, latency_s: float, preload: int
) -> None:
    plan, entry = plan_by_hand(latency_s, preload), cell_of(found, latency_s, preload).plan
    assert entry is not None
    assert plan.predicted is not None
    assert (entry.depth, entry.width) == (plan.depth, plan.width)
    assert entry.bytes_read == plan.predicted.bytes_read
    assert entry.latency.median_s == plan.predicted.total_s
    assert not entry.latency.measured
    assert entry.measured == accuracy_by_engine(plan, place / "data.tsv")
    with PackReader.open(ranked_pack()) as reader:
        assert reader.manifest.quality is not None
        assert entry.expected == reader.manifest.quality.estimate(plan.predicted.loss)


def test_baselines_are_measured_as_what_they_are(found: Evaluation, place: Path) -> None:
    baselines = {baseline.name: baseline for baseline in cell_of(found, TARGETS[2], 0).baselines}
    with PackReader.open(ranked_pack()) as reader:
        manifest, workload = reader.manifest, Workload(1, 16)
        for bits in manifest.ladder:
            plan = uniform_plan(
                PlanRequest(manifest, reader.pack_id, workload), bits=bits, profile=PROFILE
            )
            entry = baselines[f"our pipeline, {bits} bits"].entry
            assert entry is not None
            assert (entry.depth, entry.bits) == (plan.depth, bits)
            assert entry.measured == accuracy_by_engine(plan, place / "data.tsv")
    serial, overlapped = (
        baselines[name].entry for name in ("load then execute", "our pipeline, 8 bits")
    )
    assert serial is not None
    assert overlapped is not None
    assert (serial.bits, serial.measured) == (8.0, overlapped.measured)
    assert serial.latency.median_s > overlapped.latency.median_s
    values = {baseline.entry.measured for baseline in baselines.values() if baseline.entry}
    assert len(values) > 2, "the test's pack answers alike at all fidelities"


def test_differences_are_those_of_the_measured_values(found: Evaluation) -> None:
    baselines = [
        (cell, baseline) for cell in found.cells for baseline in cell.baselines if baseline.entry
    ]
    assert baselines
    for cell, baseline in baselines:
        assert cell.plan is not None
        assert baseline.entry is not None
        assert baseline.ahead == pytest.approx(cell.plan.measured - baseline.entry.measured)
        assert baseline.error is not None
        assert (baseline.error > 0) >= (baseline.ahead != 0)


def test_a_target_that_no_plan_meets_says_what_is_needed(found: Evaluation) -> None:
    cell = cell_of(found, TARGETS[0], 0)
    assert cell.plan is None
    assert cell.needed_s is not None
    assert TARGETS[0] < cell.needed_s < TARGETS[2]


def test_the_full_model_is_everything_the_pack_has(found: Evaluation, place: Path) -> None:
    assert (found.full.depth, found.full.width, found.full.bits) == (3, 4, 8.0)
    plan = plan_by_hand(None, 0)
    assert found.full.measured == accuracy_by_engine(plan, place / "data.tsv")
    assert 0.85 < found.full.measured < 1.0


def test_submodels_are_scored_at_every_fidelity(found: Evaluation, place: Path) -> None:
    sizes = {(item.depth, item.width) for item in found.uniform}
    assert sizes == {(1, 2), (3, 4)}  # the pack has no smallest one
    assert [item.bits for item in found.uniform] == [2.0, 3.0, 4.0, 6.0, 8.0] * 2
    assert found.uniform[-1].measured == found.full.measured
    for entry, bits in zip(found.uniform[:5], (2, 3, 4, 6, 8), strict=True):
        with PackReader.open(ranked_pack()) as reader:
            plan = uniform_plan(
                PlanRequest(reader.manifest, reader.pack_id, Workload(1, 16)),
                bits=bits,
                depth=1,
                width=2,
            )
        assert entry.measured == accuracy_by_engine(plan, place / "data.tsv")


def test_an_evaluation_repeats_to_the_bit(found: Evaluation, place: Path) -> None:
    options = EvaluateOptions(TARGETS, PRELOADS, device=str(place / "device.json"), tokens=16)
    assert evaluate(ranked_pack(), place / "data.tsv", options) == found


def test_this_machine_is_timed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sti.engine.machine.load_or_measure", lambda *_, **__: PROFILE)
    options = EvaluateOptions((20e-3,), (12_000,), runs=3, threads=1)
    found = evaluate(ranked_pack(), place / "data.tsv", options)
    (cell,) = found.cells
    entries: list[Entry | None] = [
        cell.plan,
        found.full,
        *(baseline.entry for baseline in cell.baselines),
    ]
    present = [entry for entry in entries if entry is not None]
    assert len(present) > 8
    for entry in present:
        assert entry.latency.measured != entry.name.startswith("layer pipeline")
        assert 0 < entry.latency.median_s <= entry.latency.p95_s
    assert found.runs == 3
    assert found.tokens == 16  # sentences of some seven words


def test_regressions_are_scored_by_rank_correlation(place: Path) -> None:
    pack = ranked_pack("regression")
    data = write_data(place / "scores.tsv", pack, texts(60))
    options = EvaluateOptions((20e-3,), device=str(place / "device.json"))
    found = evaluate(pack, data, options)
    assert found.metric == "spearman"
    assert found.full.measured == 1.0
    assert found.cells[0].plan is not None
    lowest = next(r.entry for r in found.cells[0].baselines if r.name == "our pipeline, 2 bits")
    assert lowest is not None
    assert -1 <= lowest.measured < 1.0


def test_pairs_of_texts_are_evaluated(place: Path) -> None:
    data = place / "pairs.tsv"
    lines = [f"the dog\ta {word}\tred" for word in ("cat", "house", "table")]
    data.write_text("\n".join(["sentence1\tsentence2\tlabel", *lines]) + "\n")
    options = EvaluateOptions((20e-3,), device=str(place / "device.json"))
    assert evaluate(ranked_pack(), data, options).examples == 3


def test_texts_that_are_cut_are_counted(place: Path) -> None:
    data = place / "long.tsv"
    data.write_text("sentence\tlabel\n" + "dog " * 60 + "\tred\nthe cat\tblue\n")
    options = EvaluateOptions((20e-3,), device=str(place / "device.json"))
    assert evaluate(ranked_pack(), data, options).truncated == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": 48}, "no text of the data falls into the workload of 48 tokens"),
        ({"tokens": 1}, "--tokens must be at least 2"),
        ({"threads": 0}, "--threads must be a whole number from 1 to"),
        ({"threads": 10**5}, "--threads must be a whole number from 1 to"),
        ({"seed": -1}, "--seed must be at least 0"),
        ({"runs": 0}, "--runs must be at least 1"),
    ],
)
def test_options_that_cannot_be_used(
    place: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, int], message: str
) -> None:
    monkeypatch.setattr("sti.engine.machine.load_or_measure", lambda *_, **__: PROFILE)
    options = replace(EvaluateOptions((20e-3,), threads=1), **changes)
    with pytest.raises(InputError, match=message):
        evaluate(ranked_pack(), place / "data.tsv", options)


def test_packs_that_cannot_be_evaluated_say_what_to_do(place: Path) -> None:
    options = EvaluateOptions((20e-3,))
    with pytest.raises(InputError, match="rank it first: sti-shard rank"):
        evaluate(tiny_pack("classification"), place / "data.tsv", options)
    with pytest.raises(InputError, match="is a pack for embedding"):
        evaluate(tiny_pack(), place / "data.tsv", options)


@pytest.mark.parametrize(
    ("tokens", "most", "size"), [(2, 48, 8), (8, 48, 8), (9, 48, 16), (40, 48, 40), (47, 40, 40)]
)
def test_workloads_are_the_engines_buckets(tokens: int, most: int, size: int) -> None:
    assert bucket(1, tokens, most=most).tokens == size


def test_all_texts_are_timed_before_any_is_timed_again() -> None:
    words: list[Text] = ["a", "b", "c"]
    drawn = draw(words, 8, seed=0)
    assert sorted(map(str, drawn[:3])) == sorted(map(str, drawn[3:6])) == ["a", "b", "c"]
    assert len(drawn) == 8
    assert drawn == draw(words, 8, seed=0)
    orders = {tuple(draw(words, 3, seed=seed)) for seed in range(20)}
    assert len(orders) > 1
    assert np.unique(drawn[6:]).size == 2


def test_texts_out_of_scope_are_rejected_as_the_engine_rejects_them(
    place: Path, tmp_path: Path
) -> None:
    def rejecting(manifest: Manifest) -> Manifest:
        return manifest._replace(rejection=Rejection("other", 0.5, 0.95, (0.0, 1.0), (0.6, 0.5)))

    pack = edited(ranked_pack(), tmp_path / "rejecting.sti.safetensors", rejecting)
    others = [f"{text} {text}" for text in texts(30, seed=5)]
    (tmp_path / "others.tsv").write_text(
        "\n".join(["sentence", *others])  # labels are not needed
    )
    options = EvaluateOptions(
        TARGETS[1:2],
        device=str(place / "device.json"),
        tokens=16,
        out_of_scope=tmp_path / "others.tsv",
    )
    found = evaluate(pack, place / "data.tsv", options)
    with PackReader.open(pack) as reader:
        target = Target(TARGETS[1], 0)
        plan = make_plan(
            PlanRequest(reader.manifest, reader.pack_id, Workload(1, 16), target), PROFILE
        )
    plan = replace(plan, target=Target())  # all texts at once
    with sti.Engine.open(pack, plan=plan, threads=1, profile=PROFILE) as engine:
        kept, out_of_scope = (
            engine.run(list(part)).accepted
            for part in ([row.text for row in read_rows(place / "data.tsv")], others)
        )
    assert kept is not None and out_of_scope is not None
    entry = found.cells[0].plan
    assert entry is not None and entry.scope is not None
    assert entry.scope.accepted == sum(kept) / len(kept)
    assert entry.scope.recall == pytest.approx(1 - sum(out_of_scope) / len(out_of_scope))
    assert 0 < entry.scope.accepted < 1
    # At the threshold of the data itself 95 % are accepted: fewer than here, so more are rejected.
    assert (entry.scope.recall_at_95 > entry.scope.recall) == (entry.scope.accepted > 0.95)
    assert found.full.scope is not None
    text = report.as_markdown(found)
    assert f"{entry.scope.recall * 100:.1f} %" in text and "Out-of-scope texts" in text
    row = next(csv.DictReader(io.StringIO(report_data.as_csv(found))))
    assert float(row["accepted"]) == pytest.approx(entry.scope.accepted, abs=1e-6)


def test_without_thresholds_texts_out_of_scope_cannot_be_rejected(place: Path) -> None:
    options = EvaluateOptions(
        TARGETS, out_of_scope=place / "data.tsv", device=str(place / "device.json")
    )
    with pytest.raises(InputError, match=r"has no thresholds.*rank it with --out-of-scope"):
        evaluate(ranked_pack(), place / "data.tsv", options)
