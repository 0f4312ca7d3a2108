"""The ``sti-shard`` command as a user meets it: answers, exit codes, never a traceback."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import shard_tools.packing.activation_importance
from shard_tools import progress
from shard_tools.cli.main import main
from shard_tools.progress import Progress
from sti.pack.pack_reader import PackReader
from tests.support.checkpoints import write_checkpoint
from tests.support.paths import ROOT


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with ``checkpoint`` and its ``pack``."""
    place = tmp_path_factory.mktemp("shard")
    write_checkpoint(place / "checkpoint", task="classification")
    assert main(["build", str(place / "checkpoint"), "-o", str(place / "pack"), "--quiet"]) == 0
    return place


def test_build_says_what_it_made(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    code = main(["build", str(place / "checkpoint"), "-o", str(output), "--name", "Tiny"])
    said = capsys.readouterr()
    assert code == 0
    assert said.err.startswith("sti-shard: notice: calibration on the built-in texts: ")
    assert said.err.count("\n") == 1
    lines = said.out.splitlines()
    assert lines[0].startswith(f"{output}: Tiny, classification, 2 layers, 4 slices, ")
    told = {line.split()[0]: line for line in lines[1:]}
    assert told["task"].endswith("classification, 3 labels: red, green, blue")
    assert "poolings pooler" in told["head"] and "wordpiece" in told["tokenizer"]
    assert told["settings"].endswith("without effect, 0 unknown")


def test_build_with_json_prints_one_document(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    arguments = ["--ladder", "2,4,8", "--slices", "2", "--grid", "6", "--json"]
    assert main(["build", str(place / "checkpoint"), "-o", str(output), *arguments]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["bytes"] == output.stat().st_size
    with PackReader.open(output) as reader:
        assert document["pack_id"] == reader.pack_id
        assert reader.manifest.ladder == (2, 4, 8)
        assert reader.manifest.dimensions.slices == 2
        assert reader.manifest.notes["grid_sigmas"] == 6.0
    assert document["summary"]["ladder"] == [2, 4, 8]
    assert "config.json: hidden_size" in document["summary"]["settings"]["applied"]


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(place.rglob("*"))
    assert main(["build", str(place / "checkpoint"), "--dry-run", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)["summary"]
    assert summary["task"] == "classification" and summary["labels"] == ["red", "green", "blue"]
    size = (place / "pack").stat().st_size
    assert 0.3 * size < summary["estimated_bytes"] < size
    assert main(["build", str(place / "checkpoint"), "--dry-run", "-o", str(tmp_path / "x")]) == 0
    assert "can be built" in capsys.readouterr().out
    assert not list(tmp_path.iterdir()) and sorted(place.rglob("*")) == before
    assert main(["build", str(place / "checkpoint"), "--dry-run", "-o", str(tmp_path)]) == 2
    assert "is a directory" in capsys.readouterr().err


def test_what_may_make_it_another_model_is_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_checkpoint(tmp_path / "checkpoint")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"alibi_slopes": 2}))
    (folder / "model_head.pkl").write_bytes(b"never opened")
    assert main(["build", str(folder), "--dry-run", "--json"]) == 0
    said = capsys.readouterr()
    warnings = json.loads(said.out)["summary"]["warnings"]
    assert [warning in said.err for warning in warnings] == [True] * 3
    assert "config.json: alibi_slopes is unknown and was ignored" in warnings[0]
    assert "model_head.pkl: the classifier that SetFit put" in warnings[1]
    assert main(["build", str(folder), "--dry-run", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_pairs_that_the_reference_does_not_tell_apart_are_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for task, expected in (("classification", True), ("embedding", False)):
        folder = write_checkpoint(tmp_path / task, task=task)
        names = {"model_input_names": ["input_ids", "attention_mask"]}
        (folder / "tokenizer_config.json").write_text(json.dumps(names))
        assert main(["build", str(folder), "--dry-run"]) == 0
        assert ("does not tell the texts of a pair apart" in capsys.readouterr().err) == expected


def test_prompts_and_what_is_answered_are_told_by_build_and_inspect(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, pack = write_checkpoint(tmp_path / "checkpoint", task="regression"), tmp_path / "pack"
    own = {
        "prompts": {"query": "the ", "none": ""},
        "default_prompt_name": "query",
        "activation_fn": "torch.nn.modules.activation.Sigmoid",
    }
    (folder / "config_sentence_transformers.json").write_text(json.dumps(own))
    assert main(["build", str(folder), "-o", str(pack)]) == 0
    said = capsys.readouterr().out
    assert "regression, sigmoid" in said and "none, query; by default query" in said
    assert main(["inspect", str(pack)]) == 0
    said = capsys.readouterr().out
    assert "answers: 1 logit through a sigmoid, of texts and pairs of texts" in said
    assert "prompts: none, query; by default query" in said


def test_quiet_says_nothing(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", str(place / "checkpoint"), "-o", str(tmp_path / "x"), "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["build", "{}/nothing", "-o", "{}/x"], "no such directory"),
        (["build", "{}/checkpoint", "-o", "{}/x", "--slices", "3"], "3 slices do not divide"),
        (["build", "{}/checkpoint", "-o", "{}/x", "--ladder", "8,2"], "ladder"),
        (["build", "{}/checkpoint", "-o", "{}/x", "--grid", "-1"], "grid"),
        (["build", "{}/checkpoint", "-o", "{}/x", "--calibration", "{}/no"], "cannot be read"),
        (["build", "{}/checkpoint", "-o", "{}"], "is a directory"),
        (["inspect", "{}/nothing"], "cannot be opened"),
        (["verify", "{}/checkpoint/vocab.txt"], "not a safetensors file"),
        (["inspect", "{}/checkpoint/model.safetensors"], "not a pack"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(
    place: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    before = sorted(place.iterdir())
    assert main([argument.format(place) for argument in arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"sti-shard {arguments[0]}: ")
    assert message in said.err
    assert said.err.count("\n") == 1
    assert sorted(place.iterdir()) == before


@pytest.mark.parametrize(
    "arguments",
    [[], ["bild"], ["build", "x"], ["build", "x", "-o", "y", "--ladder", "2;3"], ["verify"]],
)
def test_bad_usage_is_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.err.startswith("usage: sti-shard")
    assert said.out == ""


@pytest.mark.parametrize("command", ["build", "inspect", "verify"])
def test_help_has_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert f"  sti-shard {command} " in capsys.readouterr().out


def test_verify_of_a_sound_pack(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(place / "pack")]) == 0
    said = capsys.readouterr()
    digits = hashlib.sha256((place / "pack").read_bytes()).hexdigest()
    assert said.out == f"{place / 'pack'}: sound (218 checksums match)\nSHA-256 {digits}\n"
    assert said.err == ""


def test_verify_compares_the_file_with_what_its_publisher_states(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack = place / "pack"
    digits = hashlib.sha256(pack.read_bytes()).hexdigest()
    assert main(["verify", str(pack), "--sha256", digits.upper()]) == 0
    other = digits[::-1]
    assert main(["verify", str(pack), "--sha256", other]) == 2
    said = capsys.readouterr()
    assert f"another file than asked for: its SHA-256 is {digits}, not {other}" in said.err
    assert main(["verify", str(pack), "--sha256", other, "--json"]) == 2
    document = json.loads(capsys.readouterr().out)
    assert not document["good"] and document["sha256"] == digits
    assert main(["verify", str(pack), "--sha256", "12"]) == 2
    assert "'12' is not 64 hexadecimal digits" in capsys.readouterr().err


def test_verify_lists_what_is_damaged(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = bytearray((place / "pack").read_bytes())
    with PackReader.open(place / "pack") as reader:
        group = reader.manifest.group(0, "ffn", 0)
        at = reader.group_offset(group) + sum(group.outlier_bytes)
    data[at] ^= 1
    bad = tmp_path / "bad"
    bad.write_bytes(data)
    assert main(["verify", str(bad)]) == 2
    said = capsys.readouterr()
    assert f"{bad}: damaged: layer 0 ffn group 0 slice 0 plane 2 (bytes {at} to " in said.out
    assert "damaged in 1 place, as listed" in said.err
    assert main(["verify", str(bad), "--json"]) == 2
    said = capsys.readouterr()
    document = json.loads(said.out)
    assert not document["good"]
    assert (document["error"]["kind"], document["error"]["exit_code"]) == ("PackCorruptError", 2)
    assert said.err == f"sti-shard verify: {document['error']['message']}\n"
    fault = document["faults"][0]
    assert (fault["layer"], fault["kind"], fault["group"]) == (0, "ffn", 0)
    assert (fault["slice"], fault["bits"]) == (0, 2)


def test_inspect_adds_up(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(place / "pack"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    sizes = document["bytes"]
    assert sizes.pop("file") == sum(sizes.values()) == (place / "pack").stat().st_size
    assert document["bits_a_weight"]["plane 6"] == 2.0
    assert document["bits_a_weight"]["all"] < 9
    losses = [document["uniform_loss"][str(bits)] for bits in (2, 3, 4, 6, 8)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] == 0
    assert main(["inspect", str(place / "pack")]) == 0
    text = capsys.readouterr().out
    for part in ("classification, bert", "red, green, blue", "2, 3, 4, 6, 8 bits", "1 ffn"):
        assert part in text


def test_ctrl_c_leaves_nothing_and_is_exit_code_130(
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(*_: object) -> None:
        assert any(path.name.endswith(".part") for path in tmp_path.iterdir())
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(shard_tools.packing.activation_importance.Meter, "measure", interrupted)
    assert main(["build", str(place / "checkpoint"), "-o", str(tmp_path / "out")]) == 130
    assert capsys.readouterr().err == "sti-shard build: interrupted; nothing was left behind\n"
    assert list(tmp_path.iterdir()) == []


def test_the_module_runs_and_needs_no_onnx_to_look_into_packs(place: Path) -> None:
    program = (
        "import sys, shard_tools.cli.main as c\n"
        "code = c.main(sys.argv[1:])\n"
        "bad = {'onnx', 'torch', 'tokenizers', 'safetensors', 'onnxruntime'} & set(sys.modules)\n"
        "sys.exit(code or (3 if bad else 0))\n"
    )
    for command in ("inspect", "verify"):
        done = subprocess.run(
            [sys.executable, "-c", program, command, place / "pack"],
            capture_output=True,
            check=False,
            cwd=ROOT,
        )
        assert done.returncode == 0, done.stderr
    done = subprocess.run(
        [sys.executable, "-m", "shard_tools", "verify", place / "pack"],
        capture_output=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0


def test_a_reader_that_goes_away_is_no_traceback(place: Path) -> None:
    command = f"{sys.executable} -m shard_tools inspect {place / 'pack'} --json | true"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(
    ("argv", "speaker"),
    [
        (["inspect", "{}", "--json"], "sti-shard inspect"),
        (["verify", "{}"], "sti-shard verify"),
        (["--help"], "sti-shard"),
    ],
)
def test_a_full_disk_under_standard_output_is_one_line(
    place: Path, argv: list[str], speaker: str
) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "shard_tools", *(item.format(place / "pack") for item in argv)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": ""},
            check=False,
            cwd=ROOT,
        )
    said = f"{speaker}: standard output: No space left on device\n"
    assert (done.returncode, done.stderr) == (2, said)


def test_progress_is_one_line_that_is_wiped_and_only_where_it_is_wanted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(100))
    monkeypatch.setattr(progress, "monotonic", lambda: next(clock))
    with Progress(10.0, shown=True) as line:
        line.step(2.0, "first")
        line.step(3.0, "second")
        line.step(5.0, "third")
    said = capsys.readouterr().err.split("\r")
    assert [part.removeprefix("\x1b[K") for part in said] == [
        "",
        " 20% first",
        " 50% second, 2 s left",
        "100% third, 0 s left",
        "",
    ]
    with Progress(10.0) as line:  # standard error is no terminal here
        line.step(10.0, "all")
    assert capsys.readouterr() == ("", "")
