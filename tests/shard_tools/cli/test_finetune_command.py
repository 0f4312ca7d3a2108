"""The command ``sti-shard finetune`` as a user meets it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")


from shard_tools.cli.main import main
from shard_tools.train.finetune import finetune
from sti.errors import CheckpointError, InputError, StorageError
from tests.support import training
from tests.support.checkpoints import write_checkpoint
from tests.support.training import FAST, OPTIONS, arguments, options, tuned


@pytest.fixture(scope="module")
def place() -> Path:
    """See ``tests.support.training``."""
    return training.place()


def test_the_command_says_what_it_made(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert main(arguments(place, output, *FAST)) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[0].startswith(f"{output}: trained on ")
    assert lines[0].endswith(", 12 kept out for `sti-shard rank`")
    assert lines[1].endswith(" rows were not used: each is part of a row kept out, or holds one")
    assert lines[2].startswith("  depth 2, width 4, 8 bits: dev 0.")
    assert said.err == ""


def test_json_is_one_document(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(place, tmp_path / "out", "--json", *FAST)) == 0
    said = capsys.readouterr()
    document = json.loads(said.out)
    counts = {"rows", "calibration_rows", "rows_left_out"}
    assert set(document) == {"version", "path", *counts, "depths", "dev", "seconds"}
    assert sum(document[name] for name in counts) == 90
    assert document["path"] == str(tmp_path / "out")
    assert document["depths"]["2"] == [0, 1]
    assert all(set(score) == {"depth", "width", "bits", "value"} for score in document["dev"])
    assert said.err == ""


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--ladder", "8,2"], "ladder: a ladder must increase within 2..8 bits"),
        (["--ladder", "1,8"], "ladder: a ladder must increase within 2..8 bits"),
        (["--slices", "3"], "3 slices do not divide"),
        (["--slices", "0"], "--slices must be a number above zero, found 0"),
        (["--epochs", "0"], "--epochs must be a number above zero, found 0.0"),
        (["--epochs", "inf"], "--epochs must be a number above zero, found inf"),
        (["--plain-rate", "0"], "--plain-rate must be a number above zero, found 0.0"),
        (["--rate", "nan"], "--rate must be a number above zero, found nan"),
        (["--batch", "-1"], "--batch must be a number above zero, found -1"),
        (["--passes", "0"], "--passes must be a number above zero, found 0"),
        (["--epochs", "1e-4"], "--epochs 0.0001: not one step of 32 of 57 rows; ask for more"),
        (["--threads", "100000"], "--threads must be a whole number from 1 to"),
        (["--seed", "-1"], "the seed must lie within 0..4294967295, found -1"),
        (["--seed", str(2**32)], "the seed must lie within 0..4294967295, found 4294967296"),
        (["--max-tokens", "4"], "texts must keep at least 5 tokens, found 4"),
        (["--calibration-rows", "90"], "with 90 rows for calibration none are left to train on"),
        (["--calibration-rows", "91"], "91 rows for calibration cannot be kept out of training"),
        (["--calibration-whole", "--calibration-rows", "91"], "that are no part of another row"),
        (["--task", "pair"], "line 2: lacks sentence1 and sentence2; it has sentence, label"),
        (["--task", "regression"], "is no finite number"),
        (["--data", "{}/none.tsv"], "none.tsv: cannot be read: No such file or directory"),
        (["--dev", "{}/pair/dev.tsv"], "dev.tsv: line 2: lacks sentence; it has sentence1"),
        (["-o", "{}/classification"], "classification: exists; name another output, or remove"),
    ],
)
def test_a_users_mistake_is_told_at_once_and_leaves_nothing(
    place: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    message: str,
) -> None:
    filled = [item.format(place) for item in more]
    assert main([*arguments(place, tmp_path / "out"), *FAST[:-2], *filled]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("sti-shard finetune: ") and said.err.count("\n") == 1
    assert message in said.err
    assert list(tmp_path.iterdir()) == []


def test_a_ladder_and_no_fidelities_exclude_each_other(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(place, tmp_path / "out", "--ladder", "2,8", "--no-fidelities")) == 2
    assert "not allowed with argument" in capsys.readouterr().err


def rewritten(place: Path, tmp_path: Path, name: str, change: Callable[[str], str]) -> list[str]:
    """Arguments with one of the data files changed."""
    text = (place / "classification" / f"{name}.tsv").read_text()
    path = tmp_path / f"{name}.tsv"
    path.write_text(change(text))
    option = {"train": "--data", "dev": "--dev"}[name]
    return [*arguments(place, tmp_path / "out"), *FAST, option, str(path)]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("dev", lambda text: text + "the dog\tblue\n", "line 32: label 'blue' is unknown; the "),
        ("dev", lambda text: text + "the dog\n", "line 32: has 1 TAB-separated fields"),
        ("dev", lambda text: text.split("\n")[0] + "\n", "has no rows"),
        ("train", lambda text: text + "\tcalm\n", "line 92: a text is empty"),
        (
            "train",
            lambda text: text.replace("calm", "none").replace("fast", "none"),
            "all rows have the label 'none'; nothing can be learned",
        ),
        (
            "train",
            lambda text: text + text.split("\n")[1].split("\t")[0] + "\trare\n",
            "is left to train on; it needs more, or fewer rows for calibration",
        ),
    ],
)
def test_data_that_cannot_be_used_is_told_with_its_file(
    place: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    change: Callable[[str], str],
    message: str,
) -> None:
    given = rewritten(place, tmp_path, name, change)
    if "fewer rows" in message:
        given[given.index("--calibration-rows") + 1] = "70"
    assert main(given) == 2
    said = capsys.readouterr().err
    assert f"{tmp_path / name}.tsv: " in said and message in said
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{name}.tsv"]


def test_labels_that_a_table_cannot_hold_are_refused(place: Path, tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text('{"text": "a dog", "label": "x"}\n{"text": "a cat", "label": "x\\ty"}\n')
    with pytest.raises(InputError, match=r"line 2: label 'x\\ty' has TABs or line ends"):
        finetune(place / "checkpoint", path, path, tmp_path / "out", OPTIONS)


def test_single_texts_and_pairs_are_not_mixed(place: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "dev.tsv"
    pairs.write_text("sentence1\tsentence2\tscore\na\tb\t1\n")
    single = place / "regression" / "train.tsv"
    with pytest.raises(InputError, match="one has single texts, the other pairs"):
        finetune(place / "checkpoint", single, pairs, tmp_path / "o", options(task="regression"))


def test_a_link_that_leads_nowhere_is_an_output_that_exists(place: Path, tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="exists; name another output"):
        tuned(place, tmp_path / "out")


def test_a_place_that_takes_no_directory_is_told(place: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be made: "):
        tuned(place, tmp_path / "file" / "out")


def test_a_checkpoint_that_the_builder_could_not_use_is_refused(
    place: Path, tmp_path: Path
) -> None:
    write_checkpoint(tmp_path / "odd", config={"hidden_act": "quick_gelu"})
    data = place / "classification"
    with pytest.raises(CheckpointError, match="hidden_act 'quick_gelu' is not supported"):
        finetune(tmp_path / "odd", data / "train.tsv", data / "dev.tsv", tmp_path / "out", OPTIONS)
