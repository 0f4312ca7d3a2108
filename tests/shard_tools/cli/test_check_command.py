"""``sti-shard check``: a pack beside its own float checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shard_tools.checkpoint.reader import Checkpoint
from shard_tools.measuring.float_answers import float_states
from shard_tools.packing.options import BuildOptions
from shard_tools.packing.source import read_source
from shard_tools.progress import Progress
from sti.text.tokenizer import Tokenizer
from tests.support.checkpoints import Task, write_checkpoint
from tests.support.commands import Cli

LINES = "the dog runs\n\nunder the table, the red house\ncat\n"


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "lines.txt"
    path.write_text(LINES, encoding="utf-8")
    return path


@pytest.mark.parametrize("task", ["embedding", "classification", "tagging"])
def test_a_pack_is_close_to_its_checkpoint_and_the_worst_texts_are_named(
    task: Task, shard: Cli, pack_for: Callable[[Task], Path], texts: Path
) -> None:
    pack = pack_for(task)
    arguments = ("check", pack, pack.parent / "checkpoint", "--texts", texts, "--worst", "2")
    found: dict[str, Any] = json.loads(shard(*arguments, "--json").out)
    assert found["good"] and found["texts"] == 3
    assert 0.98 < found["least_cosine"] <= found["cosine"] <= 1
    assert (found["agreement"] is None) == (task == "embedding")
    assert {item["line"] for item in found["worst"]} < {1, 3, 4}
    assert found["worst"][0]["cosine"] <= found["worst"][1]["cosine"]
    if task == "embedding":
        low = json.loads(shard(*arguments, "--fidelity", "2", "--json").out)
        assert low["cosine"] < found["cosine"]


def test_labels_that_each_hold_agree_together(shard: Cli, texts: Path, tmp_path: Path) -> None:
    config = {"problem_type": "multi_label_classification"}
    folder = write_checkpoint(tmp_path / "checkpoint", task="classification", config=config)
    pack = tmp_path / "pack"
    assert shard("build", folder, "-o", pack, "--quiet").code == 0
    found = json.loads(shard("check", pack, folder, "--texts", texts, "--json").out)
    assert found["task"] == "multi_label" and found["agreement"] is not None


def test_a_mean_below_the_threshold_is_exit_code_1(
    shard: Cli, tiny_pack: Path, texts: Path
) -> None:
    arguments = ("check", tiny_pack, tiny_pack.parent / "checkpoint", "--texts", texts)
    assert shard(*arguments, "--least-cosine", ".9").code == 0
    answer = shard(*arguments, "--least-cosine", "1")
    assert (answer.code, answer.err) == (1, "")
    assert "3 texts: cosine 0.99" in answer.out and "\n  line " in answer.out
    answer = shard(*arguments, "--least-agreement", ".9")
    assert answer.code == 2 and "has no labels to agree on" in answer.err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 7}, "tensor embed.positions differs"),
        ({"task": "classification"}, "task embedding, not classification"),
        ({"config": {"vocab_size": None}}, "vocab_size"),
    ],
)
def test_a_pack_of_another_checkpoint_is_refused(
    change: dict[str, Any], message: str, shard: Cli, tiny_pack: Path, texts: Path, tmp_path: Path
) -> None:
    other = write_checkpoint(tmp_path / "other", **change)
    answer = shard("check", tiny_pack, other, "--texts", texts)
    assert answer.code == 2 and message in answer.err and answer.err.count("\n") == 1


def test_text_that_is_not_utf_8_is_named_by_its_line(
    shard: Cli, tiny_pack: Path, texts: Path
) -> None:
    texts.write_bytes(b"good\nbad \xff\n")
    answer = shard("check", tiny_pack, tiny_pack.parent / "checkpoint", "--texts", texts)
    assert answer.code == 2 and f"{texts}: line 2 is not UTF-8" in answer.err


def test_states_of_a_text_do_not_depend_on_the_texts_beside_it(tmp_path: Path) -> None:
    with Checkpoint(write_checkpoint(tmp_path / "checkpoint")) as checkpoint:
        source = read_source(checkpoint, BuildOptions())
        tokenizer = Tokenizer(source.tokenizer, source.vocabulary, source.tables)
        residents = source.model.residents(source.tokenizer.max_tokens)
        encodings = [tokenizer.encode(text) for text in ("the dog " * 20, "cat") * 20]
        with Progress(1.0, shown=False) as line:
            many = float_states(source.model, residents, encodings, line)
            alone = float_states(source.model, residents, encodings[1:2], line)
    assert [len(states) for states in many] == [len(encoding.ids) for encoding in encodings]
    for states in many[1::2]:
        np.testing.assert_allclose(states, alone[0], atol=2e-6)
