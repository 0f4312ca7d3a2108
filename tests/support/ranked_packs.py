"""Small ranked packs and data for them, with made-up measurements."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from shard_tools.measuring.forward import Forward, uniform_precision
from shard_tools.packing.build import build
from shard_tools.packing.options import BuildOptions
from sti.model.manifest import Manifest, Submodel
from sti.model.quality import Quality
from sti.pack.pack_reader import PackReader
from tests.support.checkpoints import write_checkpoint
from tests.support.edited_packs import edited
from tests.support.packs import GROUP_BYTES, SHAPE, tiny_pack

WORDS = ("the", "dog", "cat", "runs", "under", "table", "red", "house", "a", "and")
SUBMODELS = (
    Submodel(3, 2, (0, 1, 2), 0.05),
    Submodel(2, 4, (0, 2), 0.1),
    Submodel(1, 2, (1,), 0.4),
)


@cache
def _directory() -> Path:
    return Path(mkdtemp(prefix="sti-test-ranked-"))


def with_quality(manifest: Manifest) -> Manifest:
    """Smaller submodels, and a quality that falls with the loss."""
    metric = "spearman" if manifest.task == "regression" else "accuracy"
    return manifest._replace(
        submodels=(*manifest.submodels, *SUBMODELS),
        quality=Quality(metric, 500, 0.01, (0.0, 0.1, 1.0), (0.98, 0.9, 0.4)),
    )


@cache
def ranked_pack(task: Literal["classification", "regression"] = "classification") -> Path:
    """The path of a ranked pack; shared, so do not change it."""
    plain = tiny_pack(task)
    if task == "classification":
        plain = _balanced(plain)
    return edited(plain, _directory() / f"{task}.sti.safetensors", with_quality)


def _balanced(lopsided: Path) -> Path:
    """The same classifier with a bias that makes all of its classes equally likely on average."""
    logits = _full_logits(lopsided, texts(200))
    checkpoint = write_checkpoint(_directory() / "checkpoint", task="classification", shape=SHAPE)
    tensors = load_file(checkpoint / "model.safetensors")
    tensors["classifier.weight"] *= 20.0
    tensors["classifier.bias"] = (tensors["classifier.bias"] - logits.mean(axis=0)) * 20.0
    save_file(tensors, checkpoint / "model.safetensors")
    options = BuildOptions(group_bytes=GROUP_BYTES)
    build(checkpoint, _directory() / "balanced", options, progress=False)
    return _directory() / "balanced"


def _full_logits(pack: Path, sentences: Sequence[str]) -> NDArray[np.float32]:
    with PackReader.open(pack) as reader, Forward(reader, threads=1) as forward:
        manifest = reader.manifest
        top = uniform_precision(manifest, manifest.submodels[0], manifest.ladder[-1])
        return forward.logits(forward.batches(sentences), top)


def texts(count: int, *, seed: int = 0, longest: int = 12) -> list[str]:
    """Made-up sentences of 1 to ``longest`` words."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(1, longest + 1))) for _ in range(count)]


def write_data(
    path: Path, pack: Path, sentences: Sequence[str], *, wrong: float = 0.1, seed: int = 0
) -> Path:
    """Label sentences by the pack's own full model, a share of them by chance."""
    rng = np.random.default_rng(seed)
    logits = _full_logits(pack, sentences)
    with PackReader.open(pack) as reader:
        manifest = reader.manifest
    if manifest.task == "regression":
        lines = [f"{text}\t{row[0]:.6f}" for text, row in zip(sentences, logits, strict=True)]
        path.write_text("\n".join(["sentence\tscore", *lines]) + "\n")
        return path
    numbers = logits.argmax(axis=1)
    chance = rng.random(len(numbers)) < wrong
    numbers[chance] = rng.integers(0, len(manifest.labels), int(chance.sum()))
    lines = [f"{t}\t{manifest.labels[n]}" for t, n in zip(sentences, numbers, strict=True)]
    path.write_text("\n".join(["sentence\tlabel", *lines]) + "\n")
    return path
