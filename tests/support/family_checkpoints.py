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
from tests.support.checkpoints import (
    Shape,
    encoder_tensors,
    packed,
    save_tensors,
    write_checkpoint,
)


def weights(name: str, shape: Sequence[int]) -> Float32Array:
    """A tensor's random values; those of positions are what half precision can hold."""
    rng = np.random.default_rng(crc32(name.encode()))
    values = rng.standard_normal(tuple(shape), dtype=np.float32) * np.float32(0.15)
    if name.endswith("orm.weight"):  # LayerNorm, layer_norm
        values += np.float32(1)
    if "position_embeddings" in name:
        values = values.astype(np.float16).astype(np.float32)
    return values


_MPNET = {
    "attention.self.query": "attention.attn.q",
    "attention.self.key": "attention.attn.k",
    "attention.self.value": "attention.attn.v",
    "attention.output.dense": "attention.attn.o",
    "attention.output.LayerNorm": "attention.LayerNorm",
}
_BUCKETS = 32


def write_mpnet(directory: Path, shape: Shape) -> Path:
    """Write an MPNet of the weights of ``write_checkpoint``, with its tokenizer; the directory."""
    write_checkpoint(directory, shape=shape, config={"model_type": "mpnet", "architectures": None})
    names = ("cls", "sep", "pad", "mask", "unk")
    special = {f"{name}_token": f"[{name.upper()}]" for name in names}
    special |= {"bos_token": "[CLS]", "eos_token": "[SEP]"}
    (directory / "tokenizer_config.json").write_text(json.dumps(special))
    tensors = {}
    for name, values in encoder_tensors(shape, 0):
        for old, new in _MPNET.items():
            name = name.replace(old, new)
        if "token_type" not in name:
            tensors[name] = packed(values, "F32")
    bias = "encoder.relative_attention_bias.weight"
    tensors[bias] = packed(weights(bias, (_BUCKETS, shape.heads)) * np.float32(10), "F32")
    save_tensors(directory / "model.safetensors", tensors)
    return directory


def write_family(
    directory: Path, config: Mapping[str, Any], tensors: Mapping[str, Sequence[int]]
) -> Path:
    """Write ``config.json`` and the weights, without a tokenizer; the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config))
    found = {name: packed(weights(name, shape), "F32") for name, shape in tensors.items()}
    save_tensors(directory / "model.safetensors", found)
    return directory
