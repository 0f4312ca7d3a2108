"""Decompressing and computing layers of a model that `paper.model` wrote, one after the other.

In: the bytes of a layer's shards. Out: hidden states, and sentence embeddings in the end. Memory:
one layer in float32, which every layer is decompressed into; norms, biases and embeddings of all.
Knows nothing of files being read, of threads or of plans.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from safetensors.numpy import load_file

from benchmarks.paper.codes import Tables, packed_bytes
from benchmarks.paper.format import FULL, LAYER, RESIDENT, WORDS, Sizes
from sti.arrays import ByteArray, Float32Array
from sti.backend.onnxruntime.session import Graph, ort_value
from sti.storage.file_reader import FileReader
from sti.storage.reader import aligned_buffer

_INPUTS = {
    "attention": ("q_bias", "v_bias", "bias", "gamma", "beta"),
    "ffn": ("up_bias", "bias", "gamma", "beta"),
}
_LEAST_NORM = np.float32(1e-12)


def padded(rows: Sequence[Sequence[int]]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Token ids as a padded batch ``[n, S]``, and where its tokens are."""
    shape = (len(rows), max(map(len, rows)))
    ids, mask = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int32)
    for line, row in enumerate(rows):
        ids[line, : len(row)] = row
        mask[line, : len(row)] = 1
    return ids, mask


class Layers:
    """One batch on its way through the layers. Not thread-safe; close it.

    Args:
        directory: what `paper.model` wrote.
        sizes: of its index.
        ids: ``[n, S]``.
        mask: ``[n, S]``, 1 where there is a token.
        threads: compute threads; None: as many as ONNX Runtime takes.
        spinning: whether they wait actively.
        words_resident: hold all word embeddings, or read the batch's rows at every run.
    """

    def __init__(
        self,
        directory: Path,
        sizes: Sizes,
        ids: NDArray[np.int64],
        mask: NDArray[np.int32],
        *,
        threads: int | None,
        spinning: bool,
        words_resident: bool,
    ) -> None:
        self._sizes, self._ids, self._mask = sizes, ids, mask
        self._resident: dict[str, Float32Array] = load_file(directory / RESIDENT)
        self._words = _Words(directory / WORDS, sizes, resident=words_resident)
        self._weights = aligned_buffer(4 * sizes.layer_weights).view(np.float32)
        spans = [sizes.shard_spans(number) for number in range(sizes.slices)]
        self._targets = [[self._weights[span] for span in row] for row in spans]
        self._tables = Tables(max(part.size for part in self._targets[0]))
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", f"{spinning:d}")
        self._graph = Graph("layer", (directory / LAYER).read_bytes(), options)
        self._hidden = [np.zeros((*ids.shape, sizes.hidden), np.float32) for _ in range(2)]
        self._values = [ort_value(states) for states in self._hidden]
        self._vectors = [self._layer_vectors(number) for number in range(sizes.layers)]
        self._bind()

    def _layer_vectors(self, layer: int) -> dict[str, Any]:
        """Norms and biases of a layer as inputs of the graph."""
        return {
            f"{kind}.{name}": ort_value(self._resident[f"layers.{layer}.{kind}.{name}"])
            for kind, names in _INPUTS.items()
            for name in names
        }

    def _bind(self) -> None:
        """Bind what stays: the mask, and the weights in place."""
        self._graph.bind("mask", ort_value(self._mask))
        for part, span in self._sizes.spans().items():
            matrix = self._weights[span].reshape(self._sizes.shape(part))
            self._graph.bind(part, ort_value(matrix))

    def embed(self) -> None:
        """Begin: words, types and positions, normalized."""
        found = self._resident
        summed = self._words.rows(self._ids)
        summed += found["embed.positions"][: self._ids.shape[1]]
        summed += found["embed.types"][0]
        summed -= summed.mean(axis=-1, keepdims=True)
        variance = np.square(summed).mean(axis=-1, keepdims=True)
        summed /= np.sqrt(variance + np.float32(self._sizes.epsilon))
        summed *= found["embed.gamma"]
        summed += found["embed.beta"]
        np.copyto(self._hidden[0], summed)

    def decompress(
        self, layer: int, bits: Sequence[int], outliers: Sequence[int], shards: Sequence[ByteArray]
    ) -> None:
        """Fill the weights of a layer.

        Args:
            layer: whose centroids are looked up.
            bits: of each slice.
            outliers: of each slice.
            shards: bytes of each slice.
        """
        tables: dict[int, list[NDArray[Any]]] = {}
        for count in sorted(set(bits) - {FULL}):
            centroids = self._resident[f"layers.{layer}.centroids.{count}"]
            tables[count] = [self._tables.table(row, count) for row in centroids]
        for count, apart, data, targets in zip(bits, outliers, shards, self._targets, strict=True):
            if count == FULL:
                _copy(data, targets)
            else:
                self._look_up(count, apart, data, targets, tables)

    def _look_up(
        self,
        bits: int,
        outliers: int,
        data: ByteArray,
        targets: Sequence[Float32Array],
        tables: Mapping[int, Sequence[NDArray[Any]]],
    ) -> None:
        """One shard: its codes, then its outliers over them."""
        start = 8 * outliers
        for target, table in zip(targets, tables[bits], strict=True):
            length = packed_bytes(target.size, bits)
            self._tables.decode(data[start : start + length], bits, table, target)
            start += length
        places = data[: 4 * outliers].view("<u4")
        self._weights[places] = data[4 * outliers : 8 * outliers].view("<f4")

    def compute(self, layer: int) -> None:
        """Compute a layer with the weights that were just decompressed."""
        for name, value in self._vectors[layer].items():
            self._graph.bind(name, value)
        self._graph.bind("h", self._values[0])
        self._graph.bind_output(self._graph.outputs[0], self._values[1])
        self._graph.run()
        self._values.reverse()
        self._hidden.reverse()

    def pool(self) -> Float32Array:
        """End: the mean of each sentence's tokens, of length 1; a new array ``[n, d]``."""
        mask = self._mask[..., None].astype(np.float32)
        pooled = (self._hidden[0] * mask).sum(axis=1) / mask.sum(axis=1)
        norms = np.linalg.norm(pooled, axis=1, keepdims=True)
        return np.asarray(pooled / np.maximum(norms, _LEAST_NORM), dtype=np.float32)

    def close(self) -> None:
        """Close what is open."""
        self._words.close()


class _Words:
    """The word embeddings, in memory or in their file. Close it."""

    def __init__(self, path: Path, sizes: Sizes, *, resident: bool) -> None:
        self._table = self._reader = None
        self._hidden = sizes.hidden
        if resident:
            self._table = np.fromfile(path, dtype="<f4").reshape(sizes.vocabulary, sizes.hidden)
        else:
            self._reader = FileReader(path)

    def rows(self, ids: NDArray[np.int64]) -> Float32Array:
        """The rows of token ids; a new array ``[..., d]``."""
        if self._reader is None:
            assert self._table is not None
            return self._table[ids]
        wanted, places = np.unique(ids, return_inverse=True)
        rows = np.empty((len(wanted), self._hidden), dtype=np.float32)
        self._reader.read_rows(0, wanted, rows.view(np.uint8))
        return rows[places.reshape(ids.shape)]

    def close(self) -> None:
        """Close the file."""
        if self._reader is not None:
            self._reader.close()


def _copy(data: ByteArray, targets: Sequence[Float32Array]) -> None:
    """One shard whose weights are not quantized."""
    weights, start = data.view("<f4"), 0
    for target in targets:
        np.copyto(target, weights[start : start + target.size])
        start += target.size
