"""Tiny networks, data and runs for tests of training; imports torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from shard_tools.checkpoint.reader import Checkpoint
from shard_tools.checkpoint.tokenizer_files import load_tokenizer
from shard_tools.data.rows import Row
from shard_tools.train import record
from shard_tools.train.data import Examples, batches, encode_rows
from shard_tools.train.finetune import Finetuned, finetune
from shard_tools.train.network import ElasticNetwork, Pass, Tokens
from shard_tools.train.options import FinetuneOptions, TrainingOptions
from shard_tools.train.state import save_state
from shard_tools.train.tensors import load_network, sizes_of
from sti.text.tokenizer import Tokenizer
from tests.support.checkpoints import write_checkpoint

WORDS = ("the", "dog", "cat", "runs", "under", "table", "red", "house")
LABELS = ("calm", "fast", "none")

STEPS = TrainingOptions(
    epochs=2.0,
    plain_epochs=1.0,
    batch=16,
    rate=2e-3,
    plain_rate=2e-3,
    head_rate=1e-2,
    passes=1,
    seed=0,
    ladder=(2, 4, 8),
    refit_steps=3,
    save_s=0.0,
    log_steps=4,
)
OPTIONS = FinetuneOptions(
    STEPS, "classification", calibration_rows=12, threads=1, precision="float32"
)


def options(**changes: Any) -> FinetuneOptions:
    """``OPTIONS`` with other values, of steps or of the whole."""
    own = {key: value for key, value in changes.items() if hasattr(OPTIONS, key)}
    steps = {key: value for key, value in changes.items() if key not in own}
    return replace(OPTIONS, training=replace(STEPS, **steps), **own)


def sentences(count: int, *, seed: int = 0, longest: int = 9) -> list[str]:
    """Made-up sentences of 2 to ``longest`` words, no two alike."""
    random = Random(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        found[" ".join(random.choices(WORDS, k=random.randint(2, longest)))] = None
    return list(found)


def label_of(sentence: str) -> str:
    """A label that can be told from the words."""
    return "fast" if "runs" in sentence else "calm" if "house" in sentence else "none"


def write_rows(path: Path, count: int, *, task: str = "classification", seed: int = 0) -> Path:
    """Labelled rows for a task, half of its texts of six words or more."""
    texts = sentences(2 * count, seed=seed, longest=14)
    lines = []
    for first, second in zip(texts[:count], texts[count:], strict=True):
        same = label_of(first) == label_of(second)
        lines.append(
            {
                "classification": f"{first}\t{label_of(first)}",
                "pair": f"{first}\t{second}\t{'same' if same else 'other'}",
                "regression": f"{first}\t{len(first) / 10:.2f}",
            }[task]
        )
    header = "sentence1\tsentence2\tlabel" if task == "pair" else "sentence\tlabel"
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


@contextmanager
def opened(checkpoint: Path, *, slices: int | None = None) -> Iterator[ElasticNetwork]:
    """The float32 network of a checkpoint, with the checkpoint's head if it has one."""
    raw = load_file(checkpoint / "model.safetensors")
    outputs = len(raw["classifier.weight"]) if "classifier.weight" in raw else 3
    with Checkpoint(checkpoint) as source:
        network = load_network(
            source, sizes_of(source, outputs=outputs, slices=slices), torch.float32
        )
        if "classifier.weight" in raw:
            with torch.no_grad():
                network.classifier.copy_(torch.from_numpy(raw["classifier.weight"]))
                network.classifier_bias.copy_(torch.from_numpy(raw["classifier.bias"]))
        yield network


def examples(checkpoint: Path, texts: Sequence[str], outputs: int = 3) -> Examples:
    """Tokenized texts with labels that are as good as any."""
    spec, vocabulary, tables = load_tokenizer(checkpoint)
    rows = [Row(text, "", line) for line, text in enumerate(texts, 2)]
    targets = [float(len(text) % outputs) for text in texts]
    return encode_rows(rows, targets, Tokenizer(spec, vocabulary, tables))


def tokens(checkpoint: Path, texts: Sequence[str]) -> Tokens:
    """One padded batch in the order of the texts."""
    found = examples(checkpoint, texts)
    batch = next(batches(found, len(texts)))
    back = np.argsort(list(batch.rows))
    parts = (batch.tokens.ids, batch.tokens.types, batch.tokens.present)
    return Tokens(*(part[back] for part in parts))


def whole(network: ElasticNetwork) -> Pass:
    """The float model."""
    return network.whole()


# Runs

FAST = ["--epochs", "1", "--plain-epochs", "1", "--passes", "1", "--calibration-rows", "12"]
FAST += ["--threads", "1", "--precision", "float32", "--ladder", "2,8"]


@cache
def place() -> Path:
    """A directory with ``checkpoint``, and ``train.tsv`` and ``dev.tsv`` for every task."""
    found = Path(mkdtemp(prefix="sti-test-training-"))
    write_checkpoint(found / "checkpoint", config={"sentence_transformers": {"activation_fn": "x"}})
    for task in ("classification", "pair", "regression"):
        (found / task).mkdir()
        write_rows(found / task / "train.tsv", 90, task=task)
        write_rows(found / task / "dev.tsv", 30, task=task, seed=1)
    return found


@cache
def uninterrupted() -> Finetuned:
    """A run with ``OPTIONS``; shared, so do not change it."""
    return tuned(place(), place() / "made")


def tuned(place: Path, output: Path, **changes: Any) -> Finetuned:
    """A run on the data of its task."""
    chosen = options(**changes)
    data = place / chosen.task
    return finetune(
        place / "checkpoint", data / "train.tsv", data / "dev.tsv", output, chosen, progress=False
    )


def arguments(place: Path, output: Path, *more: str, task: str = "classification") -> list[str]:
    data = place / task
    paths = ["--data", str(data / "train.tsv"), "--dev", str(data / "dev.tsv"), "-o", str(output)]
    return ["finetune", str(place / "checkpoint"), *paths, "--task", task, *more]


def contents(directory: Path) -> dict[str, bytes]:
    """All files that do not depend on when a run was interrupted."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and path.name != "training.jsonl"
    }


class Stop(Exception):
    """What the tests stop a run with."""


def stop() -> None:
    """Stop a run."""
    raise Stop


@contextmanager
def stopping(
    monkeypatch: pytest.MonkeyPatch, saves: int, stop: Callable[[], None]
) -> Iterator[None]:
    """Call ``stop`` right behind the given number of saved states."""
    count = 0

    def counted(*args: Any) -> None:
        nonlocal count
        save_state(*args)
        count += 1
        if count == saves:
            stop()

    with monkeypatch.context() as patch:
        patch.setattr(record, "save_state", counted)
        yield
