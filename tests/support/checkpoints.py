"""Tiny random checkpoints of every supported kind, for tests.

A few input channels of the FFN-down matrices have weights far beyond the grid, as real ones do.
Files are written by hand rather than with the safetensors library, so that malformed ones can be,
too. ``benchmarks.base_model`` writes checkpoints of real sizes.
"""

from __future__ import annotations

import json
import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Task = Literal["embedding", "classification", "mean_classification", "regression", "tagging"]
DType = Literal["F32", "F16", "BF16"]

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LABELS = ("red", "green", "blue")


@dataclass(frozen=True)
class Shape:
    """Sizes of a BERT."""

    layers: int = 2
    hidden: int = 32
    heads: int = 4
    inner: int = 64
    positions: int = 48
    words: int = 0
    """Rows of the embedding table; 0 for as many as the tiny vocabulary has."""
    types: int = 2


TINY = Shape()


def vocabulary(size: int) -> list[str]:
    """Special tokens, characters, character pieces, and made-up words up to ``size``."""
    letters = string.ascii_lowercase + string.digits
    found = [*SPECIALS, *letters, *string.punctuation, *(f"##{char}" for char in letters)]
    found += ["the", "dog", "cat", "runs", "under", "table", "red", "house", "##ing", "##ed"]
    found += [f"word{number}" for number in range(max(0, size - len(found)))]
    return found[:size] if size else found


def save_tensors(path: Path, tensors: Mapping[str, tuple[str, tuple[int, ...], bytes]]) -> None:
    """Write ``name -> (dtype, shape, bytes)`` as a safetensors file."""
    table: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape, data) in tensors.items():
        table[name] = {
            "dtype": dtype,
            "shape": list(shape),
            "data_offsets": [end, end + len(data)],
        }
        end += len(data)
    header = json.dumps(table).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as stream:
        stream.write(len(header).to_bytes(8, "little") + header)
        for _, _, data in tensors.values():
            stream.write(data)


def packed(values: NDArray[np.float32], dtype: DType) -> tuple[str, tuple[int, ...], bytes]:
    """A tensor as ``save_tensors`` takes it."""
    if dtype == "F16":
        return dtype, values.shape, values.astype(np.float16).tobytes()
    if dtype == "BF16":
        upper = (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        return dtype, values.shape, upper.tobytes()
    return dtype, values.shape, values.astype(np.float32).tobytes()


def encoder_tensors(
    shape: Shape, seed: int, *, far: int = 2
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Names without prefix, and random values; ``far`` FFN-down inputs reach beyond the grid."""
    rng = np.random.default_rng(seed)
    hidden, inner = shape.hidden, shape.inner
    words = len(vocabulary(shape.words))

    def normal(*size: int, scale: float = 0.04) -> NDArray[np.float32]:
        values = rng.standard_normal(size, dtype=np.float32)
        values *= np.float32(scale)
        return values

    def norm(name: str) -> Iterator[tuple[str, NDArray[np.float32]]]:
        yield f"{name}.weight", 1 + normal(hidden)
        yield f"{name}.bias", normal(hidden)

    def linear(name: str, inputs: int, outputs: int) -> Iterator[tuple[str, NDArray[np.float32]]]:
        yield f"{name}.weight", normal(outputs, inputs)
        yield f"{name}.bias", normal(outputs)

    yield "embeddings.word_embeddings.weight", normal(words, hidden)
    yield "embeddings.position_embeddings.weight", normal(shape.positions, hidden)
    yield "embeddings.token_type_embeddings.weight", normal(shape.types, hidden)
    yield from norm("embeddings.LayerNorm")
    for layer in range(shape.layers):
        base = f"encoder.layer.{layer}"
        for part in ("query", "key", "value"):
            yield from linear(f"{base}.attention.self.{part}", hidden, hidden)
        yield from linear(f"{base}.attention.output.dense", hidden, hidden)
        yield from norm(f"{base}.attention.output.LayerNorm")
        yield from linear(f"{base}.intermediate.dense", hidden, inner)
        for name, values in linear(f"{base}.output.dense", inner, hidden):
            if values.ndim == 2:
                channels = rng.choice(inner, size=far, replace=False)
                values[:: max(1, hidden // 16), channels] = 0.04 * 24
            yield name, values
        yield from norm(f"{base}.output.LayerNorm")


def write_checkpoint(
    directory: Path,
    *,
    task: Task = "embedding",
    shape: Shape = TINY,
    seed: int = 0,
    prefix: bool = False,
    dtype: DType = "F32",
    files: int = 1,
    far: int = 2,
    config: Mapping[str, object] | None = None,
) -> Path:
    """Write a checkpoint.

    Args:
        directory: created if need be.
        task: ``mean_classification`` is mean pooling plus a linear head; ``classification`` and
            ``regression`` go through the pooler.
        prefix: whether encoder names start with ``bert.``.
        files: into how many safetensors files to split it.
        far: how many FFN-down inputs a layer have weights beyond the grid.
        config: entries that replace those of ``config.json``; None removes one.

    Returns:
        The directory.
    """
    directory.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed + 1)
    start = "bert." if prefix else ""
    tensors = {
        start + name: packed(values, dtype)
        for name, values in encoder_tensors(shape, seed, far=far)
    }
    heads: dict[str, tuple[int, ...]] = {}
    if task in ("classification", "regression"):
        heads[f"{start}pooler.dense.weight"] = (shape.hidden, shape.hidden)
        heads[f"{start}pooler.dense.bias"] = (shape.hidden,)
    if task != "embedding":
        count = 1 if task == "regression" else len(LABELS)
        heads["classifier.weight"], heads["classifier.bias"] = (count, shape.hidden), (count,)
    for name, size in heads.items():
        tensors[name] = packed(rng.standard_normal(size).astype(np.float32) * 0.3, dtype)
    _write_tensors(directory, tensors, files)
    _write_config(directory, task, shape, config or {})
    _write_tokenizer(directory, shape)
    if task in ("embedding", "mean_classification"):
        _write_modules(directory, normalize=task == "embedding")
    return directory


def _write_tensors(
    directory: Path, tensors: Mapping[str, tuple[str, tuple[int, ...], bytes]], files: int
) -> None:
    if files == 1:
        save_tensors(directory / "model.safetensors", tensors)
        return
    places: dict[str, str] = {}
    for number in range(files):
        name = f"model-{number + 1:05d}-of-{files:05d}.safetensors"
        part = dict(list(tensors.items())[number::files])
        save_tensors(directory / name, part)
        places |= dict.fromkeys(part, name)
    index = {"metadata": {}, "weight_map": places}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


def _write_config(directory: Path, task: Task, shape: Shape, changes: Mapping[str, object]) -> None:
    architectures = {
        "embedding": "BertModel",
        "tagging": "BertForTokenClassification",
    }
    values: dict[str, object] = {
        "model_type": "bert",
        "architectures": [architectures.get(task, "BertForSequenceClassification")],
        "hidden_act": "gelu",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.inner,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "max_position_embeddings": shape.positions,
        "type_vocab_size": shape.types,
        "vocab_size": len(vocabulary(shape.words)),
        "layer_norm_eps": 1e-12,
    }
    if task == "regression":
        values["problem_type"] = "regression"
    if task not in ("embedding", "regression"):
        values["id2label"] = {str(number): label for number, label in enumerate(LABELS)}
    values |= changes
    kept = {key: value for key, value in values.items() if value is not None}
    (directory / "config.json").write_text(json.dumps(kept))


def _write_tokenizer(directory: Path, shape: Shape) -> None:
    (directory / "vocab.txt").write_text("\n".join(vocabulary(shape.words)) + "\n")
    (directory / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))


def _write_modules(directory: Path, *, normalize: bool) -> None:
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling")]
    kinds += [("2_Normalize", "Normalize")] if normalize else []
    modules = [
        {"idx": number, "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (path, kind) in enumerate(kinds)
    ]
    (directory / "modules.json").write_text(json.dumps(modules))
    (directory / "1_Pooling").mkdir(exist_ok=True)
    modes = {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
    (directory / "1_Pooling" / "config.json").write_text(json.dumps(modes))
