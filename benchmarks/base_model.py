"""Write a checkpoint of BERT's shape with random weights: what speed is measured on.

    python -m benchmarks.base_model OUT [--size base]

The run time's speed depends on shapes, on how many weights lie outside a code's bulk and on which
channels leave its grid, not on what a model has learned; so these are made as trained encoders
have them, and the rest is noise. Same options, same bytes. Answers of such a model mean nothing.

Knows nothing of packs: `sti-shard build OUT -o PACK` makes one of it.
"""

from __future__ import annotations

import argparse
import json
import string
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from sti.arrays import Float32Array

_SIGMA = 0.03
_SIGMA_SPREAD = 0.2
"""By which matrices differ. Were they alike to the bit, ONNX Runtime would share their equal
scales, and fuse less of the int8 models than of a trained one."""
_WORD_SIGMA = 0.05
# A mixture with 0.5 % of its weights beyond 3 sigma, as trained encoders have (a normal: 0.27 %).
_WIDE_SHARE, _WIDE = 0.05, 1.8
_BULK = 7.0
"""Sigmas within which all weights lie but the planted ones."""
_PLANTED_ROWS = 24
"""Out-of-grid weights in a planted channel."""
_SPECIAL = ("[PAD]", *(f"[unused{number}]" for number in range(99)), "[UNK]", "[CLS]", "[SEP]")
_MASK = "[MASK]"


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a model of the BERT family."""

    layers: int
    hidden: int
    heads: int
    inner: int
    vocabulary: int
    positions: int = 512


SIZES: Mapping[str, Shape] = {
    "base": Shape(12, 768, 12, 3072, 30522),
    "large": Shape(24, 1024, 16, 4096, 30522),
    "tiny": Shape(2, 64, 4, 256, 400, 256),
}


@dataclass(frozen=True, slots=True)
class Planting:
    """Input channels of each layer's second FFN matrix that hold out-of-grid weights."""

    channels: int = 4
    sigmas: float = 30.0


def write_checkpoint(directory: Path, shape: Shape, planting: Planting, *, seed: int = 0) -> int:
    """Write a sentence-embedding checkpoint (mean pooling, L2 norm).

    Args:
        directory: made if need be; files of the same names are replaced.
        shape: sizes; ``vocabulary`` at least 200.
        planting: channels beyond the grid.
        seed: same seed, same bytes.

    Returns:
        Bytes of the tensor file.
    """
    directory.mkdir(parents=True, exist_ok=True)
    pooling = directory / "1_Pooling"
    pooling.mkdir(exist_ok=True)
    _write_json(directory / "config.json", _config(shape))
    _write_json(directory / "tokenizer_config.json", {"do_lower_case": True})
    _write_json(directory / "sentence_bert_config.json", {"max_seq_length": shape.positions})
    _write_json(directory / "modules.json", _modules())
    _write_json(
        pooling / "config.json",
        {"word_embedding_dimension": shape.hidden, "pooling_mode_mean_tokens": True},
    )
    words = vocabulary(shape.vocabulary)
    (directory / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    target = directory / "model.safetensors"
    save_file(tensors(shape, planting, np.random.default_rng(seed)), target)
    return target.stat().st_size


def vocabulary(size: int) -> list[str]:
    """A WordPiece vocabulary: special tokens, characters with their pieces, made-up words."""
    characters = string.ascii_lowercase + string.digits + string.punctuation
    pieces = [f"##{character}" for character in string.ascii_lowercase + string.digits]
    words = [*_SPECIAL, _MASK, *characters, *pieces]
    if size < len(words) + 26:
        raise ValueError(f"a vocabulary of {size} words is too small; take {len(words) + 26}")
    words += islice(_made_up(), size - len(words))
    return words


def _made_up() -> Iterator[str]:
    """Pronounceable words of two syllables and up, each once."""
    syllables = ["".join(pair) for pair in product("bdfgklmnprstvz", "aeiou")]
    for count in (2, 3):
        for parts in product(syllables, repeat=count):
            yield "".join(parts)


def tensors(shape: Shape, planting: Planting, rng: np.random.Generator) -> dict[str, Float32Array]:
    """All tensors under the names of ``BertModel``, linear weights as ``[out, in]``."""
    size = shape.hidden
    found: dict[str, Float32Array] = {}

    def linear(module: str, outputs: int, inputs: int) -> None:
        found[f"{module}.weight"] = heavy_tailed(rng, outputs, inputs)
        found[f"{module}.bias"] = _normal(rng, _SIGMA, outputs)

    def norm(module: str) -> None:
        found[f"{module}.weight"] = 1.0 + _normal(rng, 0.1, size)
        found[f"{module}.bias"] = _normal(rng, _SIGMA, size)

    base = "embeddings."
    found[base + "word_embeddings.weight"] = _normal(rng, _WORD_SIGMA, shape.vocabulary, size)
    found[base + "position_embeddings.weight"] = _normal(rng, _SIGMA, shape.positions, size)
    found[base + "token_type_embeddings.weight"] = _normal(rng, _SIGMA, 2, size)
    norm(base + "LayerNorm")
    for layer in range(shape.layers):
        base = f"encoder.layer.{layer}."
        for name in ("self.query", "self.key", "self.value", "output.dense"):
            linear(f"{base}attention.{name}", size, size)
        norm(base + "attention.output.LayerNorm")
        linear(base + "intermediate.dense", shape.inner, size)
        linear(base + "output.dense", size, shape.inner)
        _plant(found[base + "output.dense.weight"], planting, rng)
        norm(base + "output.LayerNorm")
    return found


def heavy_tailed(rng: np.random.Generator, outputs: int, inputs: int) -> Float32Array:
    """A matrix with the tails of a trained encoder, inside the grid."""
    values = rng.standard_normal((outputs, inputs), dtype=np.float32)
    wide = rng.random((outputs, inputs), dtype=np.float32) < _WIDE_SHARE
    np.multiply(values, np.float32(_WIDE), out=values, where=wide)
    deviation = np.float32(np.sqrt(1.0 + _WIDE_SHARE * (_WIDE**2 - 1.0)))
    np.clip(values / deviation, -_BULK, _BULK, out=values)
    values *= np.float32(_SIGMA * rng.uniform(1.0 - _SIGMA_SPREAD, 1.0 + _SIGMA_SPREAD))
    return values


def _plant(weights: Float32Array, planting: Planting, rng: np.random.Generator) -> None:
    """Put weights of 9 sigma up to the planting's size into some input channels."""
    outputs, inputs = weights.shape
    sigma = weights.std()
    channels = rng.choice(inputs, size=planting.channels, replace=False)
    for channel in channels:
        rows = rng.choice(outputs, size=min(_PLANTED_ROWS, outputs), replace=False)
        sigmas = np.geomspace(9.0, planting.sigmas, len(rows)) * rng.choice((-1.0, 1.0), len(rows))
        weights[rows, channel] = (sigma * sigmas).astype(np.float32)


def _normal(rng: np.random.Generator, sigma: float, *shape: int) -> Float32Array:
    values = rng.standard_normal(shape, dtype=np.float32)
    values *= np.float32(sigma)
    return values


def _config(shape: Shape) -> dict[str, Any]:
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_act": "gelu",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.inner,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": shape.positions,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "pad_token_id": 0,
        "position_embedding_type": "absolute",
        "type_vocab_size": 2,
        "vocab_size": shape.vocabulary,
    }


def _modules() -> list[dict[str, Any]]:
    chain = (("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize"))
    return [
        {"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.{kind}"}
        for place, (kind, path) in enumerate(chain)
    ]


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the checkpoint the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.base_model",
        description=__doc__,
        epilog="example: python -m benchmarks.base_model /tmp/bert-base",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="directory to write")
    parser.add_argument("--size", choices=sorted(SIZES), default="base", help="default: base")
    parser.add_argument("--layers", type=int, help="instead of the size's own")
    parser.add_argument("--hidden", type=int, help="instead of the size's own")
    parser.add_argument("--heads", type=int, help="instead of the size's own")
    parser.add_argument("--inner", type=int, help="neurons of the FFN, instead of the size's own")
    parser.add_argument(
        "--channels", type=int, default=Planting().channels, help="planted a layer; default: 4"
    )
    parser.add_argument(
        "--sigmas", type=float, default=Planting().sigmas, help="largest planted; default: 30"
    )
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    options = parser.parse_args(arguments)
    shape = SIZES[options.size]
    for name in ("layers", "hidden", "heads", "inner"):
        if getattr(options, name) is not None:
            shape = replace(shape, **{name: getattr(options, name)})
    planting = Planting(options.channels, options.sigmas)
    size = write_checkpoint(options.out, shape, planting, seed=options.seed)
    print(f"{options.out}: {size / 1e6:.0f} MB, {shape}, {planting}, seed {options.seed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
