"""``sti-shard finetune``: the checkpoint that comes out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from safetensors.numpy import load_file

from shard_tools.checkpoint.elastic import read_elastic
from shard_tools.checkpoint.reader import Checkpoint
from shard_tools.cli.main import main
from shard_tools.data.rows import read_rows
from shard_tools.packing.build import build
from shard_tools.packing.options import BuildOptions
from shard_tools.train.finetune import Finetuned, finetune
from sti.errors import CheckpointError
from sti.model.manifest import Manifest
from sti.pack.pack_reader import PackReader
from sti.pack.verify import verify
from tests.support import training
from tests.support.training import FAST, LABELS, arguments, contents, options, tuned, write_rows

BLOCKS = ("attention", "ffn")


@pytest.fixture(scope="module")
def place() -> Path:
    """See ``tests.support.training``."""
    return training.place()


@pytest.fixture(scope="module")
def made() -> Finetuned:
    """An uninterrupted run."""
    return training.uninterrupted()


def test_the_result_is_a_checkpoint_that_builds_into_a_sound_pack(
    made: Finetuned, tmp_path: Path
) -> None:
    build(made.directory, tmp_path / "pack", BuildOptions(ladder=(2, 4, 8)), progress=False)
    with PackReader.open(tmp_path / "pack") as reader:
        manifest = reader.manifest
    assert (manifest.task, manifest.labels) == ("classification", LABELS)
    assert manifest.notes["depths"] == {str(d): list(made.depths[d]) for d in sorted(made.depths)}
    assert manifest.notes["widths"] == [1, 2, 3, 4]
    assert verify(tmp_path / "pack").good


def test_the_pack_has_the_ladder_and_the_gains_of_training_unless_others_are_asked_for(
    made: Finetuned, tmp_path: Path
) -> None:
    def built(**options: Any) -> Manifest:
        return build(
            made.directory, tmp_path / "pack", BuildOptions(**options), progress=False
        ).manifest

    report = json.loads((made.directory / "elastic.json").read_text())
    trained = [block["gains"] for block in report["importance"]["blocks"]]
    manifest = built()
    assert manifest.ladder == (2, 4, 8)
    gains = [[plane.gains for plane in group.planes] for group in manifest.groups]
    np.testing.assert_array_equal(gains, np.array(trained, np.float32))
    assert "fisher" in manifest.notes["importance"]
    for group in manifest.groups:
        for plane in group.planes[1:]:
            ranked = [plane.gains[number] for number in plane.order]
            assert ranked == sorted(ranked, reverse=True)
    assert "fisher" not in built(ladder=(2, 8)).notes["importance"]
    (tmp_path / "texts").write_text("the dog runs\n")
    assert "fisher" not in built(calibration=tmp_path / "texts").notes["importance"]


def spoil(report: dict[str, Any], what: str) -> None:
    blocks = report["importance"]["blocks"]
    match what:
        case "ladder":
            report["ladder"] = [2, 9]
        case "rows":
            blocks[1]["gains"].pop()
        case "more":
            blocks[1]["gains"].append(blocks[1]["gains"][0])
        case "twice":
            blocks[2] = blocks[1]
        case "numbers":
            blocks[1]["gains"][1][1] = -1.0
        case "block":
            blocks.pop(2)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("ladder", "field 'ladder' must be a list of fidelities"),
        ("rows", r"blocks\[1\]: field 'gains' must be 3 rows of 4"),
        ("more", r"blocks\[1\]: field 'gains' must be 3 rows of 4"),
        ("twice", r"blocks\[2\]: field 'layer' must be a block that is not listed twice"),
        ("numbers", r"blocks\[1\]: field 'gains' must be 3 rows of 4 numbers of at least 0"),
        ("block", "importance has no gains of layer 1 attention"),
    ],
)
def test_an_estimate_that_cannot_be_used_is_refused(
    made: Finetuned, tmp_path: Path, what: str, message: str
) -> None:
    shutil.copytree(made.directory, tmp_path / "copy")
    report = json.loads((tmp_path / "copy" / "elastic.json").read_text())
    spoil(report, what)
    (tmp_path / "copy" / "elastic.json").write_text(json.dumps(report))
    with pytest.raises(CheckpointError, match=message):
        build(tmp_path / "copy", tmp_path / "pack", BuildOptions(), progress=False)


def test_elastic_json_tells_what_was_trained(made: Finetuned) -> None:
    with Checkpoint(made.directory) as checkpoint:
        elastic = read_elastic(checkpoint, layers=2)
    assert elastic is not None
    assert (elastic.slices, elastic.widths, dict(elastic.depths)) == (4, (1, 2, 3, 4), made.depths)
    assert made.depths == {1: (1,), 2: (0, 1)}
    report = json.loads((made.directory / "elastic.json").read_text())
    assert report["training"]["ladder"] == [2, 4, 8]
    assert (report["rows"], report["calibration_rows"]) == (made.rows, made.calibration_rows)
    assert [tuple(score.values()) for score in report["dev"]] == [
        (score.depth, score.width, score.bits, score.value) for score in made.scores
    ]
    assert {(score.depth, score.width, score.bits) for score in made.scores} == {
        (2, 4, 8), (2, 4, 2), (1, 2, 4), (1, 2, 2), (1, 1, 2)
    }  # fmt: skip
    assert str(made.directory) not in json.dumps(report)
    assert elastic.ladder == (2, 4, 8)
    assert elastic.estimate is not None
    assert (elastic.estimate.measure, elastic.estimate.examples) == ("fisher", 12)
    assert elastic.estimate.gains.keys() == {(i, kind) for i in (0, 1) for kind in BLOCKS}


def test_calibration_rows_are_rows_of_the_data_that_training_did_not_see(
    made: Finetuned, place: Path
) -> None:
    held = read_rows(made.directory / "calibration.tsv", "classification")
    rows = {(row.text, row.label) for row in read_rows(place / "classification" / "train.tsv")}
    assert len(held) == made.calibration_rows == 12
    assert {(row.text, row.label) for row in held} <= rows
    assert 0 < made.rows <= len(rows) - 12


def test_the_log_has_a_record_of_losses_and_of_every_epochs_scores(made: Finetuned) -> None:
    lines = (made.directory / "training.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    each = -(-made.rows // 16)
    losses = [(item["stage"], item["step"]) for item in records if "losses" in item]
    assert losses == [
        (stage, step)
        for stage, steps in (("plain", each), ("elastic", 2 * each))
        for step in range(4, steps + 1, 4)
    ]
    for item in records:
        if "losses" in item:
            names = (
                ["full"] if item["stage"] == "plain" else ["full", "smallest", "middle", "random"]
            )
            assert list(item["losses"]) == names
            assert all(0 < value < 9 for value in item["losses"].values())
    scores = [item for item in records if "dev" in item and "step" in item]
    assert [(item["stage"], item["step"], len(item["dev"])) for item in scores] == [
        ("elastic", each, 5)
    ]
    assert [item["event"] for item in records if "event" in item] == ["plain stage done"]


def test_nothing_is_left_beside_the_result(made: Finetuned) -> None:
    assert not made.directory.with_name("made.training").exists()
    names = {path.name for path in made.directory.iterdir()}
    assert names == {
        "1_Pooling", "calibration.tsv", "config.json", "elastic.json", "model.safetensors",
        "modules.json", "tokenizer_config.json", "training.jsonl", "vocab.txt",
    }  # fmt: skip


def test_what_the_old_head_did_is_not_said_of_the_new_one(made: Finetuned) -> None:
    config = json.loads((made.directory / "config.json").read_text())
    assert config["model_type"] == "bert" and "sentence_transformers" not in config


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(
    made: Finetuned, place: Path, tmp_path: Path
) -> None:
    torch.manual_seed(1234)
    again = tuned(place, tmp_path / "again")
    assert contents(again.directory) == contents(made.directory)
    log = "training.jsonl"
    assert (again.directory / log).read_bytes() == (made.directory / log).read_bytes()
    other = tuned(place, tmp_path / "other", seed=1)
    name = "model.safetensors"
    assert contents(other.directory)[name] != contents(made.directory)[name]


def test_training_teaches_the_submodels_at_their_lowest_fidelity(
    place: Path, tmp_path: Path
) -> None:
    (tmp_path / "classification").mkdir()
    (tmp_path / "checkpoint").symlink_to(place / "checkpoint")
    write_rows(tmp_path / "classification" / "train.tsv", 300)
    write_rows(tmp_path / "classification" / "dev.tsv", 60, seed=1)
    found = tuned(
        tmp_path, tmp_path / "out", epochs=6.0, plain_epochs=6.0, calibration_rows=0, save_s=99.0,
        refit_steps=20,
    )  # fmt: skip
    values = {(score.depth, score.width, score.bits): score.value for score in found.scores}
    assert values[2, 4, 8] > 0.85
    assert values[2, 4, 2] > 0.8
    assert values[1, 2, 2] > 0.7


@pytest.mark.parametrize(
    ("task", "labels"), [("pair", ("other", "same")), ("regression", ("score",))]
)
def test_pairs_and_regressions_build_packs_of_their_task(
    place: Path, tmp_path: Path, task: str, labels: tuple[str, ...]
) -> None:
    found = tuned(place, tmp_path / "out", task=task, epochs=1.0)
    build(found.directory, tmp_path / "pack", BuildOptions(), progress=False)
    with PackReader.open(tmp_path / "pack") as reader:
        assert reader.manifest.task == ("regression" if task == "regression" else "classification")
        assert reader.manifest.labels == labels
    held = read_rows(found.directory / "calibration.tsv", found_task(task))
    assert len(held) == 12 and isinstance(held[0].text, tuple) == (task == "pair")
    assert all(-1 <= score.value <= 1 for score in found.scores)


def test_the_licence_of_the_checkpoint_reaches_the_pack(place: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "licensed"
    shutil.copytree(place / "checkpoint", checkpoint)
    (checkpoint / "README.md").write_text("---\nlicense: mit\ntags: [x]\n---\n# Embeddings\n")
    data = place / "classification"
    found = finetune(
        checkpoint,
        data / "train.tsv",
        data / "dev.tsv",
        tmp_path / "out",
        options(),
        progress=False,
    )
    assert "Embeddings" not in (found.directory / "README.md").read_text()
    build(found.directory, tmp_path / "pack", BuildOptions(), progress=False)
    with PackReader.open(tmp_path / "pack") as reader:
        assert reader.manifest.licence == "mit"


def found_task(task: str) -> Any:
    return task


def test_without_fidelities_submodels_are_trained_in_float(place: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    fast = [item for item in FAST if item not in ("--ladder", "2,8")]
    assert main(arguments(place, output, "--no-fidelities", "--quiet", *fast)) == 0
    report = json.loads((output / "elastic.json").read_text())
    assert report["training"]["ladder"] == []
    assert {score["bits"] for score in report["dev"]} == {0}
    build(output, tmp_path / "pack", BuildOptions(), progress=False)


def test_without_calibration_rows_there_is_no_file_of_them(place: Path, tmp_path: Path) -> None:
    found = tuned(place, tmp_path / "out", calibration_rows=0, epochs=0.5, ladder=())
    assert found.rows == 90
    assert not (found.directory / "calibration.tsv").exists()


def test_only_words_of_the_data_moved(made: Finetuned, place: Path) -> None:
    name = "embeddings.word_embeddings.weight"
    before = load_file(place / "checkpoint" / "model.safetensors")
    after = load_file(made.directory / "model.safetensors")
    moved = (after[f"bert.{name}"] != before[name]).any(axis=1)
    vocabulary = (place / "checkpoint" / "vocab.txt").read_text().split("\n")
    known = {*training.WORDS, "[CLS]", "[SEP]"}
    assert {vocabulary[row] for row in moved.nonzero()[0]} == known
    query = "encoder.layer.0.attention.self.query.weight"
    assert not (after[f"bert.{query}"] == before[query]).all()
