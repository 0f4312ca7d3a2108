"""Checkpoints of any family, their weights by the names of their tensors.

In: a configuration, shapes of tensors. Out: a directory. The same weights wherever they are made.
Knows no family.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from sti.arrays import Float32Array
from tests.support.checkpoints import packed, save_tensors


def weights(name: str, shape: Sequence[int]) -> Float32Array:
    """A tensor's random values; those of positions are what half precision can hold."""
    rng = np.random.default_rng(crc32(name.encode()))
    values = rng.standard_normal(tuple(shape), dtype=np.float32) * np.float32(0.15)
    if name.endswith("orm.weight"):  # LayerNorm, layer_norm
        values += np.float32(1)
    if "position_embeddings" in name:
        values = values.astype(np.float16).astype(np.float32)
    return values


def write_family(
    directory: Path, config: Mapping[str, Any], tensors: Mapping[str, Sequence[int]]
) -> Path:
    """Write ``config.json`` and the weights, without a tokenizer; the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config))
    found = {name: packed(weights(name, shape), "F32") for name, shape in tensors.items()}
    save_tensors(directory / "model.safetensors", found)
    return directory
