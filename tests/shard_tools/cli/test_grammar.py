"""What holds for every command of ``sti-shard``: JSON, errors as JSON, help."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sti.report.installation import install_hint
from tests.support.commands import ENVIRONMENT, Cli
from tests.support.packs import PROFILE, tiny_pack
from tests.support.ranked_packs import ranked_pack, texts, write_data

COMMANDS = {
    "build": ("{}/none", "-o", "{}/x"),
    "check": ("{}/none", "{}/none", "--texts", "{}/none.txt"),
    "inspect": ("{}/none",),
    "verify": ("{}/none",),
    "share": ("{}/none", "--layers", "0", "-o", "{}/x"),
    "rank": ("{}/none", "--data", "{}/none.tsv"),
    "finetune": ("{}/none", "--data", "{}/none.tsv", "--dev", "{}/none.tsv", "-o", "{}/y"),
    "evaluate": ("{}/none", "--data", "{}/none.tsv", "--targets", "1s"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_with_json_bad_input_is_a_document_and_one_line(
    command: str, shard: Cli, tmp_path: Path
) -> None:
    if command == "finetune":
        pytest.importorskip("torch")
    answer = shard(command, *(item.format(tmp_path) for item in COMMANDS[command]), "--json")
    assert answer.error["exit_code"] == 2
    assert answer.error["kind"] in ("InputError", "PackError", "CheckpointError")
    assert answer.err == f"sti-shard {command}: {answer.error['message']}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_with_json_bad_usage_is_a_document(command: str, shard: Cli) -> None:
    answer = shard(command, "--json")
    assert answer.error["kind"] == "UsageError"
    assert answer.err.startswith(f"usage: sti-shard {command} ")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_a_summary_examples_and_what_must_be_installed(command: str, shard: Cli) -> None:
    answer = shard(command, "--help")
    assert (answer.code, answer.err) == (0, "")
    assert f"  sti-shard {command} " in answer.out
    assert "\nNeeds " in answer.out or "Needs nothing but NumPy" in answer.out
    assert "--json" in answer.out
    assert command in shard("--help").out


def test_options_are_not_abbreviated(shard: Cli, tmp_path: Path) -> None:
    answer = shard("verify", tmp_path, "--js")
    assert (answer.code, answer.out) == (2, "")
    assert "unrecognized arguments: --js" in answer.err


def test_with_json_every_look_into_a_pack_is_one_document(shard: Cli) -> None:
    for command in ("inspect", "verify"):
        assert "error" not in shard(command, ranked_pack(), "--json").json


def test_with_json_a_ranking_is_one_document(shard: Cli, tmp_path: Path) -> None:
    pack = tiny_pack("classification")
    write_data(tmp_path / "data.tsv", pack, texts(120, longest=3))
    options = ("--data", tmp_path / "data.tsv", "-o", tmp_path / "out", "--measure", "proxy")
    answer = shard("rank", pack, *options, "--json")
    assert answer.json["path"] == str(tmp_path / "out")
    assert answer.err == ""


def test_with_json_an_evaluation_is_one_document(shard: Cli, tmp_path: Path) -> None:
    write_data(tmp_path / "data.tsv", ranked_pack(), texts(40))
    (tmp_path / "device.json").write_text(json.dumps(PROFILE.to_json()))
    options = ("--data", tmp_path / "data.tsv", "--targets", "20ms")
    answer = shard(
        "evaluate", ranked_pack(), *options, "--device", tmp_path / "device.json", "--json"
    )
    assert answer.json["examples"] == 40
    assert answer.err == ""


@pytest.mark.parametrize(
    ("command", "module", "extra"),
    [
        ("build", "onnx", "build"),
        ("finetune", "torch", "train"),
        ("finetune", "onnx", "train"),
    ],
)
def test_a_command_that_lacks_a_package_says_how_to_install_all_it_needs(
    command: str, module: str, extra: str, tmp_path: Path
) -> None:
    if module == "onnx" and command == "finetune":
        pytest.importorskip("torch")
    given = [command, *(item.format(tmp_path) for item in COMMANDS[command]), "--json"]
    code = (
        "import sys\n"
        f"sys.modules[{module!r}] = None\n"
        "from shard_tools.cli.main import main\n"
        f"sys.exit(main({given!r}))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **ENVIRONMENT},
        check=False,
    )
    hint = install_hint(module, extra=extra)
    assert ended.returncode == 2
    error = json.loads(ended.stdout)["error"]
    assert error["message"] == f"the Python package {module} is missing: {hint}"
    assert ended.stderr == f"sti-shard {command}: {error['message']}\n"
