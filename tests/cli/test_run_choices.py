"""Prompts and thresholds on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shard_tools.packing.build import build
from shard_tools.packing.options import BuildOptions
from tests.support.checkpoints import write_checkpoint
from tests.support.commands import Cli
from tests.support.packs import SHAPE


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of labels that each hold or not, behind a prompt."""
    place = tmp_path_factory.mktemp("choices")
    config = {"problem_type": "multi_label_classification"}
    write_checkpoint(place / "checkpoint", task="classification", shape=SHAPE, config=config)
    prompts = {"prompts": {"query": "the dog "}, "default_prompt_name": "query"}
    (place / "checkpoint" / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    build(place / "checkpoint", place / "pack", BuildOptions(), progress=False)
    return place / "pack"


def test_a_prompt_is_the_default_or_chosen(cli: Cli, pack: Path) -> None:
    run = ("run", pack, "--fidelity", 8, "--json")
    default, whole = cli(*run, "runs").json, cli(*run, "the dog runs", "--prompt", "").json
    assert default["logits"] == whole["logits"]
    assert default["prompt"] == "the dog " and "prompt" not in whole
    assert cli(*run, "runs", "--prompt-name", "query").json["logits"] == default["logits"]
    refused = cli("run", pack, "runs", "--prompt", "x", "--prompt-name", "query")
    assert refused.code == 2 and "not both" in refused.err


def test_the_labels_are_shown_that_hold(cli: Cli, pack: Path) -> None:
    none = cli("run", pack, "runs", "--fidelity", 8, "--threshold", 1)
    assert "no label (best guess" in none.out and "below 1.00" in none.out
    found = cli("run", pack, "runs", "--fidelity", 8, "--threshold", 0, "--jsonl")
    row = json.loads(found.out)
    assert row["labels"] == [item["name"] for item in row["classes"]] and row["threshold"] == 0
    refused = cli("run", pack, "runs", "--threshold", 2)
    assert refused.code == 2 and "from 0 to 1" in refused.err
