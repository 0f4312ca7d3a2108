"""``sti-shard rank`` on tiny packs: right, resumable, and clear about what it cannot use."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
from numpy.typing import NDArray

import sti
from shard_tools.cli.main import main
from shard_tools.measuring.judge import Judge
from shard_tools.packing.repack import ranked_groups
from shard_tools.ranking.gains import by_block, stored_gains
from shard_tools.ranking.rank import RankOptions, journal_path, rank
from sti.arrays import Float32Array
from sti.device.lanes import PIPELINED
from sti.model.manifest import Manifest
from sti.model.workload import Workload
from sti.pack.header import STAIRCASES
from sti.pack.pack_reader import PackReader
from sti.pack.verify import verify
from sti.planning.plan import Plan, PlanStep, Target
from sti.planning.staircases import Staircases
from tests.support.edited_packs import edited
from tests.support.packs import PROFILE, tiny_pack
from tests.support.ranked_packs import ranked_pack, texts, write_data

TRAINED = {"depths": {"1": [1], "2": [0, 2], "3": [0, 1, 2]}, "widths": [1, 3, 4]}
OPTIONS = RankOptions(measure="exhaustive")


@cache
def place() -> Path:
    return Path(mkdtemp(prefix="sti-test-rank-"))


@cache
def elastic_pack() -> Path:
    """A classifier whose classes are equally likely, with depths and widths to measure."""

    def trained(manifest: Manifest) -> Manifest:
        full, notes = manifest.submodels[:1], manifest.notes | TRAINED
        return manifest._replace(submodels=full, quality=None, notes=notes)

    return edited(ranked_pack(), place() / "elastic", trained)


@cache
def data() -> Path:
    return write_data(place() / "data.tsv", elastic_pack(), texts(120, longest=3), wrong=0.1)


@cache
def out_of_scope() -> Path:
    path = place() / "others.tsv"
    path.write_text(
        "sentence\tlabel\n" + "".join(f"{text}\toos\n" for text in texts(20, seed=5, longest=3))
    )
    return path


@cache
def ranked() -> Path:
    """An exhaustive ranking; not to be changed."""
    rank(elastic_pack(), data(), place() / "ranked", replace(OPTIONS, out_of_scope=out_of_scope()))
    return place() / "ranked"


def manifest_of(path: Path) -> Manifest:
    with PackReader.open(path) as reader:
        return reader.manifest


def lowered(pack: Path, target: Path, number: int, slice_number: int) -> Callable[[int], Plan]:
    """The pack, such that one slice of one block lies last in every plane, and plans without it."""
    manifest = manifest_of(pack)
    gains = by_block(stored_gains(manifest), manifest)
    rows = [[0.0 if s == slice_number else 1.0 for s in range(4)] for _ in manifest.ladder]
    block = list(gains)[number]
    gains |= {block: rows}
    edited(pack, target, lambda m: m._replace(groups=ranked_groups(m.groups, gains)))
    with PackReader.open(target) as reader:
        pack_id = reader.pack_id

    def plan(bits: int) -> Plan:
        items = tuple(
            PlanStep(
                item.layer,
                item.kind,
                item.number,
                tuple(
                    2 - (step > bits and (item.layer, item.kind) == block and own)
                    for step in manifest.ladder
                ),
                0,
            )
            for item in manifest.groups
            for own in [item.number == slice_number // 2]
        )
        return Plan(pack_id, Workload(1, 8), Target(), 3, 4, PIPELINED, 1, items, None)

    return plan


@pytest.mark.parametrize(("number", "slice_number"), [(0, 0), (3, 2), (5, 3)])
def test_gains_are_those_that_the_engine_itself_would_show(
    number: int, slice_number: int, tmp_path: Path
) -> None:
    """Brute force: one run of the engine for each fidelity of the shard, losses by hand."""
    sentences = [line.partition("\t")[0] for line in data().read_text().splitlines()[1:]]
    plan = lowered(ranked(), tmp_path / "pack", number, slice_number)
    losses = []
    base: NDArray[np.float64] | None = None
    for bits in (8, 6, 4, 3, 2):
        made = plan(bits)
        with sti.Engine.open(tmp_path / "pack", plan=made, threads=1, profile=PROFILE) as engine:
            logits = engine.run(sentences).logits
        found = np.asarray(logits, dtype=np.float64)
        logs = found - np.log(np.exp(found).sum(axis=1, keepdims=True))
        base = logs if base is None else base
        losses.append(float((np.exp(base) * (base - logs)).sum(axis=1).mean()))
    rounding = manifest_of(ranked()).notes["ranking"]["rounding"][number]
    reached = np.maximum.accumulate([max(loss - rounding, 0.0) for loss in losses])
    gains = stored_gains(manifest_of(ranked()))[1:, number, slice_number]
    assert gains[::-1] == pytest.approx(np.diff(reached), rel=2e-3, abs=1e-8)


def test_a_ranked_pack_is_sound_and_answers_as_before() -> None:
    assert verify(ranked()).good
    answers = []
    for path in (elastic_pack(), ranked()):
        with sti.Engine.open(path, fidelity=3, threads=1, profile=PROFILE) as engine:
            answers.append(np.asarray(engine.run(["the dog runs", "a red house"]).logits))
    assert np.array_equal(answers[0], answers[1])


def test_submodels_quality_and_rejection_are_measured() -> None:
    manifest = manifest_of(ranked())
    sizes = [(item.depth, item.width) for item in manifest.submodels]
    assert sizes[0] == (3, 4) and (1, 1) in sizes and len(sizes) > 2
    assert manifest.submodels[0].loss == 0.0
    assert all(len(item.missing) > 1 for item in manifest.submodels)
    assert all(set(item.layers) == {0, 2} for item in manifest.submodels if item.depth == 2)
    assert manifest.quality is not None and manifest.rejection is not None
    assert (manifest.quality.metric, manifest.quality.examples) == ("accuracy", 120)
    full = manifest.notes["quality"]["full_model"]
    assert 0.8 < full < 1.0
    assert manifest.quality.estimate(0.0).value == pytest.approx(full, abs=0.03)
    assert manifest.notes["quality"]["plans_held_out"] >= 40
    assert manifest.notes["ranking"]["shards"]["spearman_halves"] > 0.5
    assert manifest.rejection.label == "out of scope"
    assert 1 / 3 < manifest.rejection.threshold(0.0) < 1.0


def test_a_ranked_pack_brings_the_fidelities_worth_running_along() -> None:
    with PackReader.open(ranked()) as reader:
        raw = reader.resident(STAIRCASES).tobytes()
        found = Staircases.from_bytes(raw, reader.manifest, where="pack")
        assert found.to_bytes(reader.manifest) == raw
        assert len(found) > 20 and set(found.submodel.tolist()) >= {0}


def test_the_same_again_is_the_same_file(tmp_path: Path) -> None:
    options = replace(OPTIONS, out_of_scope=out_of_scope(), threads=2)
    rank(elastic_pack(), data(), tmp_path / "again", options)
    assert (tmp_path / "again").read_bytes() == ranked().read_bytes()


def stop_after(calls: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Interrupt the measuring; returns what counts the calls."""
    real, made = Judge.judge, [0]

    def judge(self: Judge, logits: Float32Array) -> Float32Array:
        made[0] += 1
        if made[0] == calls:
            raise KeyboardInterrupt
        return real(self, logits)

    monkeypatch.setattr(Judge, "judge", judge)
    return made


@pytest.mark.parametrize("calls", [5, 170])
def test_a_stopped_ranking_continues_where_it_stopped(
    calls: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["rank", str(elastic_pack()), "--data", str(data()), "--measure", "exhaustive"]
    arguments += ["-o", str(tmp_path / "out"), "--out-of-scope", str(out_of_scope()), "--quiet"]
    with monkeypatch.context() as patched:
        stop_after(calls, patched)
        assert main(arguments) == 130
    kept = tmp_path / "out.ranking"
    said = capsys.readouterr().err
    assert said == (
        f"sti-shard rank: interrupted; {kept} keeps what was measured; the same command continues "
        "from there\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["out.ranking"]
    made = stop_after(-1, monkeypatch)
    assert main(arguments) == 0
    assert f"continuing after {calls - 1} finished steps" in capsys.readouterr().err
    assert made[0] < 340 - calls
    assert (tmp_path / "out").read_bytes() == ranked().read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("kind", ["another pack", "other options", "damaged"])
def test_progress_of_another_ranking_is_not_used(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    other = tiny_pack("classification") if kind == "another pack" else elastic_pack()
    options = replace(OPTIONS, seed=1) if kind == "other options" else OPTIONS
    with monkeypatch.context() as patched:
        stop_after(4, patched)
        with pytest.raises(KeyboardInterrupt):
            rank(other, data(), output, options)
    if kind == "damaged":
        kept = journal_path(output)
        kept.write_bytes(kept.read_bytes()[:-100])
    notices: list[str] = []
    stop_after(2, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        rank(elastic_pack(), data(), output, OPTIONS, notice=notices.append)
    assert len(notices) == 1 and "starting again" in notices[0]


def test_a_pack_can_be_ranked_in_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack = tmp_path / "pack"
    shutil.copyfile(tiny_pack("classification"), pack)
    arguments = ["rank", str(pack), "--data", str(data()), "--examples", "100", "--json"]
    assert main([*arguments, "--measure", "proxy", "--threads", "1"]) == 0
    said = capsys.readouterr()
    document = json.loads(said.out)
    assert said.err == ""
    with PackReader.open(pack) as reader:
        assert document["pack_id"] == reader.pack_id
        assert reader.manifest.rejection is None
    assert document["ranking"]["examples"] == 100
    assert document["quality"]["submodels_measured"] == document["submodels"] == 1
    assert document["quality"]["measured"].keys() == {"3x4"}
    assert [path.name for path in tmp_path.iterdir()] == ["pack"]


def test_whole_blocks_give_the_same_sums_for_less(tmp_path: Path) -> None:
    before = stored_gains(manifest_of(elastic_pack()))
    rank(elastic_pack(), data(), tmp_path / "out", replace(OPTIONS, measure="proxy"))
    found = stored_gains(manifest_of(tmp_path / "out"))
    for block in range(found.shape[1]):
        for plane in range(1, 5):
            there = before[plane, block] > 0.0
            ratio = found[plane, block][there] / before[plane, block][there]
            assert ratio == pytest.approx(ratio.mean(), rel=2e-3)
            assert (found[plane, block][~there] == 0.0).all()


def test_a_proxy_that_agrees_saves_a_measurement(tmp_path: Path) -> None:
    """An exhaustive ranking agrees with itself, so its own gains share out the upper planes.

    But for shards that did worse at a fidelity that is not measured than at the one below it.
    """
    rank(ranked(), data(), tmp_path / "out", replace(OPTIONS, measure="auto"))
    notes = manifest_of(tmp_path / "out").notes["ranking"]
    assert notes["measured"].startswith(
        "every shard lowered alone to nothing, 2 bits, 3 bits; what"
    )
    assert [entry["measured"] for entry in notes["planes"].values()] == [True] * 2 + [False] * 3
    found, expected = (stored_gains(manifest_of(path)) for path in (tmp_path / "out", ranked()))
    assert np.isclose(found, expected, rtol=5e-3, atol=1e-8).mean() > 0.9


def test_a_proxy_that_disagrees_is_not_used(tmp_path: Path) -> None:
    rank(elastic_pack(), data(), tmp_path / "out", replace(OPTIONS, measure="auto"))
    found, expected = (stored_gains(manifest_of(path)) for path in (tmp_path / "out", ranked()))
    assert (found == expected).all()


def test_a_regression_is_ranked_by_its_values(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = write_data(tmp_path / "data.tsv", tiny_pack("regression"), texts(100, longest=3))
    pack, output = tiny_pack("regression"), tmp_path / "out"
    assert main(["rank", str(pack), "--data", str(rows), "-o", str(output)]) == 0
    assert "spearman of the full model 1.000" in capsys.readouterr().out
    quality = manifest_of(output).quality
    assert quality is not None and quality.metric == "spearman"
    assert quality.estimate(0.0).value > 0.99


def test_inspect_shows_what_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(ranked())]) == 0
    said = capsys.readouterr().out
    for part in ("expected accuracy with", "half against half", "out of scope: scores below"):
        assert part in said
    assert main(["inspect", str(ranked()), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["quality"]["metric"] == "accuracy"
    uniform = document["submodels"][0]["uniform"]
    assert [entry["bits"] for entry in uniform] == [2, 3, 4, 6, 8]
    assert uniform[-1]["loss"] == 0.0 and 0.5 < uniform[-1]["accuracy"] <= 1.0


def few(path: Path) -> Path:
    path.write_text("sentence\tlabel\n" + "the dog\tred\n" * 99)
    return path


def rows_with(path: Path, line: str) -> Path:
    path.write_text("sentence\tlabel\n" + "the dog\tred\n" * 120 + line + "\n")
    return path


@pytest.mark.parametrize(
    ("task", "make", "options", "message"),
    [
        ("classification", few, {}, "99 rows are too few to rank; 100 are needed"),
        ("classification", lambda p: rows_with(p, "a\tpink"), {}, "line 122: label 'pink' is unk"),
        ("classification", lambda p: rows_with(p, "\tred"), {}, "line 122: a text is empty"),
        ("classification", lambda p: rows_with(p, "a\tred\tb"), {}, "line 122: has 3 TAB-sep"),
        ("classification", lambda p: p, {}, "cannot be read"),
        ("classification", few, {"examples": 99}, "99 examples are too few"),
        ("regression", lambda p: rows_with(p, "a\tred"), {}, "'red' is no finite number"),
        ("embedding", few, {}, "a pack for embedding cannot be ranked"),
        ("tagging", few, {}, "a pack for tagging cannot be ranked"),
    ],
)
def test_data_that_cannot_be_used_are_refused(
    task: str, make: Callable[[Path], Path], options: dict[str, int], message: str, tmp_path: Path
) -> None:
    rows = make(tmp_path / "rows.tsv")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(sti.InputError, match=message):
        rank(tiny_pack(task), rows, tmp_path / "out", RankOptions(**options))  # type: ignore[arg-type]
    assert sorted(tmp_path.iterdir()) == before


def test_texts_out_of_scope_are_for_classifiers_only(tmp_path: Path) -> None:
    rows = write_data(tmp_path / "data.tsv", tiny_pack("regression"), texts(100))
    options = RankOptions(out_of_scope=out_of_scope())
    with pytest.raises(sti.InputError, match="only a classifier"):
        rank(tiny_pack("regression"), rows, tmp_path / "out", options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--threads", "100000"], "--threads must be a whole number from 1 to"),
        (["--seed", "-1"], "--seed must be at least 0"),
        (["-o", "{}"], "is a directory"),
        (["-o", "{}/no/out"], "no such directory"),
    ],
)
def test_a_users_mistake_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [argument.format(tmp_path) for argument in arguments]
    assert main(["rank", str(elastic_pack()), "--data", str(data()), *given]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert message in said.err


def test_notes_that_do_not_fit_the_model_are_refused(tmp_path: Path) -> None:
    def change(manifest: Manifest) -> Manifest:
        return manifest._replace(notes={"depths": {"9": list(range(9))}, "widths": [1]})

    pack = edited(tiny_pack("classification"), tmp_path / "pack", change)
    with pytest.raises(sti.PackFormatError, match=r"notes: depths\['9'\]"):
        rank(pack, data(), tmp_path / "out", OPTIONS)


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["rank", "--help"])
    assert caught.value.code == 0
    assert "  sti-shard rank " in capsys.readouterr().out


def test_rounding_counts_the_more_the_more_layers_follow() -> None:
    rounding = manifest_of(ranked()).notes["ranking"]["rounding"]
    assert len(rounding) == 6
    assert rounding[0] > 3 * rounding[-1] > 0.0


def test_the_metric_of_every_submodel_at_every_fidelity_stands_in_the_pack() -> None:
    manifest = manifest_of(ranked())
    measured = manifest.notes["quality"]["measured"]
    sizes = {f"{depth}x{width}" for depth in (1, 2, 3) for width in (1, 3, 4)}
    assert measured.keys() == sizes
    assert all(row.keys() == set(map(str, manifest.ladder)) for row in measured.values())
    assert measured["3x4"]["8"] == pytest.approx(manifest.notes["quality"]["full_model"], abs=1e-4)


def test_thresholds_are_not_dropped_in_silence(tmp_path: Path) -> None:
    notices: list[str] = []
    options = replace(OPTIONS, measure="proxy")
    rank(ranked(), data(), tmp_path / "again", options, notice=notices.append)
    assert manifest_of(tmp_path / "again").rejection is None
    assert len(notices) == 2 and "--out-of-scope" in notices[0]
    assert "was ranked before" in notices[1] and "--measure exhaustive" in notices[1]
