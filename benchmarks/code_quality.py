"""Quality of the nested code compared with GOBO: cosine of embeddings to float, by fidelity.

    python -m benchmarks.code_quality CHECKPOINT --sentences FILE

CHECKPOINT is a sentence-embedding checkpoint (all-MiniLM-L6-v2 is what the limits are for), FILE
holds one sentence a line (``-`` reads standard input). All shards of the encoder are at the
fidelity of the row; activations, embeddings and everything else stay float, so that nothing but
the code is compared. GOBO is stored once for every fidelity, the nested code once for all.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import gobo
from benchmarks.common import (
    LIMITS,
    Column,
    Report,
    Table,
    about_machine,
    at_least,
    at_most,
    parser,
    print_report,
)
from shard_tools.architectures.base import KindLayout, Model, TokenBatch
from shard_tools.architectures.registry import open_model
from shard_tools.checkpoint.reader import Checkpoint
from shard_tools.checkpoint.tokenizer_files import load_tokenizer
from shard_tools.packing.calibration_text import calibration_batch
from shard_tools.packing.quantized_model import fitting_grid
from shard_tools.quantization.blocks import QuantizedBlock, quantize_block
from shard_tools.quantization.codebook import build_codebook, histogram
from shard_tools.quantization.encode import Encoder, best_codes
from shard_tools.quantization.grids import outlier_cut
from sti.arrays import Float32Array
from sti.codec.codebook import DEFAULT_LADDER, Codebook
from sti.errors import InputError
from sti.text.tokenizer import Tokenizer

Operands = Mapping[str, Float32Array]
OperandsOf = Callable[[int, KindLayout], Operands]
"""Float operands ``[parts, in, out]`` of a block, by layer and kind."""

COMPARED = (2, 3, 4, 6)
"""Fidelities at which the nested code is to be at least as good as GOBO."""
MOST_BITS = 8.6
_BATCH_SENTENCES = 50
_QUERY = "q"


@dataclass(frozen=True, slots=True)
class Stored:
    """Bits that a model's encoder takes, by what they hold."""

    weights: int
    outliers: int
    scales: int
    side: int

    def total(self, bits: int) -> float:
        """Bits a weight with planes up to ``bits`` bits."""
        return bits + (self.outliers + self.scales + self.side) / self.weights


class Embedder:
    """Embeds sentences by the float arithmetic of the offline tool, on any weights."""

    def __init__(self, model: Model, batches: Sequence[TokenBatch], most_tokens: int) -> None:
        self._model = model
        residents = model.residents(most_tokens)
        self._batches = [(model.embed(batch, residents), batch.lengths) for batch in batches]

    def embed(self, operands_of: OperandsOf) -> Float32Array:
        """Embeddings of unit length, ``[n, d]``."""
        model = self._model
        hiddens = [hidden for hidden, _ in self._batches]
        for layer in range(model.layers):
            for kind in model.kinds:
                operands = operands_of(layer, kind)
                vectors = model.block(layer, kind.name).vectors
                for place, (_, lengths) in enumerate(self._batches):
                    hidden = hiddens[place]
                    parts = model.contributions(kind.name, hidden, lengths, operands, vectors)
                    hiddens[place] = model.connect(hidden + parts.sum(axis=0), vectors)
        found = np.concatenate(
            [
                model.readout(hidden, lengths)
                for hidden, (_, lengths) in zip(hiddens, self._batches, strict=True)
            ]
        )
        found /= np.linalg.norm(found, axis=1, keepdims=True)
        return found


class Nested:
    """A model's encoder in the nested code."""

    def __init__(self, model: Model, *, grid_sigmas: float) -> None:
        self.blocks: dict[tuple[int, str], QuantizedBlock] = {}
        counts = np.zeros(256, dtype=np.int64)
        for layer in range(model.layers):
            for kind in model.kinds:
                weights = model.block(layer, kind.name)
                block = quantize_block(layer, kind, weights, grid_sigmas=grid_sigmas)
                self.blocks[layer, kind.name] = block
                for grid in block.matrices.values():
                    counts += histogram(grid.q)
        self.cut = outlier_cut(grid_sigmas=grid_sigmas)
        self.codebook = build_codebook(counts, cut=self.cut, ladder=DEFAULT_LADDER)

    def operands_at(self, bits: int) -> OperandsOf:
        """The weights at a fidelity."""
        values = values_at(self.codebook, bits, self.cut)
        return lambda layer, kind: self.blocks[layer, kind.name].operands(values)

    def stored(self, slices: int) -> Stored:
        """What the pack holds of the encoder, besides planes, counted on the bytes themselves."""
        encoder = Encoder(self.codebook, cut=self.cut)
        grids = [grid for block in self.blocks.values() for grid in block.matrices.values()]
        outliers = sum(
            encoder.encode(block.shard(index, slices), block.operand_sizes(slices)).outliers.nbytes
            for block in self.blocks.values()
            for index in range(slices)
        )
        side = sum(grid.side_index.nbytes + grid.side_weights.nbytes for grid in grids)
        scales = sum(grid.scale.nbytes for grid in grids)
        weights = sum(grid.q.size for grid in grids)
        return Stored(weights, 8 * outliers, 8 * scales, 8 * side)


def values_at(codebook: Codebook, bits: int, cut: int) -> Float32Array:
    """What stands for each int8 value, by its bits as uint8, ``[256]``; outliers are exact."""
    alphabet = np.arange(256, dtype=np.uint8).view(np.int8)
    coded = codebook.values[bits][best_codes(codebook) >> (codebook.ladder[-1] - bits)]
    exact = np.abs(alphabet.astype(np.int64)) > cut
    return np.where(exact, alphabet, coded).astype(np.float32)


def original(model: Model) -> OperandsOf:
    """The weights of the checkpoint."""

    def operands(layer: int, kind: KindLayout) -> Operands:
        matrices = model.block(layer, kind.name).matrices
        return {product.name: product.split(matrices[product.name]) for product in kind.products}

    return operands


class Gobo:
    """A model's encoder in GOBO at one number of bits; counts what it stores as it goes."""

    def __init__(self, model: Model, bits: int) -> None:
        self._model, self._bits = model, bits
        self.stored_bits = self.weights = 0

    def operands(self, layer: int, kind: KindLayout) -> Operands:
        """The weights of a block, quantized."""
        matrices = self._model.block(layer, kind.name).matrices
        found = {}
        for product in kind.products:
            # The offline tool folds one over the root of the head's size into the query.
            is_query = product.name == _QUERY
            unit = product.part_shape[1] ** -0.5 if is_query else 1.0
            tensor = gobo.quantize(matrices[product.name], self._bits, unit=unit)
            self.stored_bits += tensor.stored_bits(self._bits)
            self.weights += tensor.weights.size
            found[product.name] = product.split(tensor.weights)
        return found


def measure(checkpoint: Path, sentences: Sequence[str], *, grid_sigmas: float | None) -> Report:
    """Compare both codes at every fidelity of the default ladder."""
    table = Table(
        "Cosine of sentence embeddings to float, mean",
        (
            Column("bits"),
            Column("nested", ".5f"),
            Column("GOBO", ".5f"),
            Column("nested, bits a weight", ".3f"),
            Column("GOBO, bits a weight", ".3f"),
        ),
    )
    limits = Table("Limits", LIMITS)
    with Checkpoint(checkpoint) as opened:
        model = open_model(opened)
        spec, vocabulary, tables = load_tokenizer(checkpoint)
        batches = list(_batches(sentences, Tokenizer(spec, vocabulary, tables)))
        embedder = Embedder(model, batches, spec.max_tokens)
        reference = embedder.embed(original(model))
        nested = Nested(model, grid_sigmas=grid_sigmas or fitting_grid(model))
        stored = nested.stored(model.slices)
        copies = 0.0
        for bits in DEFAULT_LADDER:
            found = _cosine(reference, embedder.embed(nested.operands_at(bits)))
            cosine = size = None
            if bits in COMPARED:
                copy = Gobo(model, bits)
                cosine = _cosine(reference, embedder.embed(copy.operands))
                size = copy.stored_bits / copy.weights
                copies += size
                limits.rows.append(at_least(f"nested, {bits} bits, against GOBO", found, cosine))
            table.rows.append((bits, found, cosine, stored.total(bits), size))
    total = stored.total(DEFAULT_LADDER[-1])
    limits.rows.append(at_most("all fidelities together, bits a weight", total, MOST_BITS))
    about = [*about_machine(), f"{checkpoint.name}, {len(sentences)} sentences"]
    return Report("Quality of the codes", about, [table, limits], _notes(nested, stored, copies))


def _notes(nested: Nested, stored: Stored, copies: float) -> list[str]:
    shares = {
        name: getattr(stored, name) / stored.weights for name in ("outliers", "scales", "side")
    }
    parts = ", ".join(f"{name} {share:.3f}" for name, share in shares.items())
    return [
        f"of the nested code's bits a weight: {parts}; side inputs counted as they stand in memory",
        f"outliers beyond +-{nested.cut} on the grid; the whole ladder is stored once",
        f"GOBO's copies at {', '.join(map(str, COMPARED))} bits take {copies:.2f} bits a weight",
    ]


def _cosine(reference: Float32Array, found: Float32Array) -> float:
    return float(np.einsum("nd,nd->n", reference, found, dtype=np.float64).mean())


def _batches(sentences: Sequence[str], tokenizer: Tokenizer) -> Iterator[TokenBatch]:
    for start in range(0, len(sentences), _BATCH_SENTENCES):
        part = sentences[start : start + _BATCH_SENTENCES]
        yield calibration_batch([tokenizer.encode(text) for text in part])


def read_sentences(path: Path, count: int) -> list[str]:
    """The first ``count`` lines that hold a text.

    Raises:
        InputError: there is none, or they are not UTF-8.
    """
    raw = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    try:
        lines = raw.decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text: {error}") from error
    found = [line.strip() for line in lines if line.strip()][:count]
    if not found:
        raise InputError(f"{path}: holds no sentence; give one per line")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    made = parser("code_quality", __doc__, "minilm/ --sentences sentences.txt")
    made.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    made.add_argument("--sentences", type=Path, required=True, metavar="FILE")
    made.add_argument("--count", type=int, default=200, help="sentences used; default: 200")
    made.add_argument("--grid-sigmas", type=float, help="default: the builder's")
    options = made.parse_args(arguments)

    def measured() -> Report:
        sentences = read_sentences(options.sentences, options.count)
        return measure(options.checkpoint, sentences, grid_sigmas=options.grid_sigmas)

    return print_report(made, options, measured)


if __name__ == "__main__":
    sys.exit(main())
