"""The files of a model that is cut and stored as in the STI paper.

    index.json             sizes of the model, and the place of every shard at every fidelity
    shards.bin             the shards: layer after layer, fidelity after fidelity, slice after slice
    resident.safetensors   norms, biases, positions, types, and GOBO's centroids: float32
    words.f32              word embeddings, float32, row after row
    layer.onnx             one layer, its weights inputs

A shard is one slice of one layer: a head's rows of q, k, v and columns of o, and 1/M of the FFN.
Each fidelity is a copy of its own. At 32 bits: the weights. Below: positions of the outliers (their
places among the layer's weights, uint32), their values (float32), then the codes of the six parts.

Knows nothing of reading, planning or computing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.paper.codes import packed_bytes

INDEX, SHARDS, RESIDENT = "index.json", "shards.bin", "resident.safetensors"
WORDS, LAYER = "words.f32", "layer.onnx"

FULL = 32
"""Bits of weights that are not quantized."""
OUTLIER_BYTES = 8
ALIGNMENT = 8
"""Of shards in the file, so that their numbers can be viewed in place."""

PARTS = ("q", "k", "v", "o", "up", "down")
"""Of a layer's weights, in order. q, k, v and up are ``[out, in]``, o and down ``[in, out]``: so
the part of a slice lies in one piece in all of them."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of the model."""

    layers: int
    slices: int
    hidden: int
    inner: int
    vocabulary: int
    epsilon: float

    def shape(self, part: str) -> tuple[int, int]:
        """The matrix of a part."""
        return (self.inner if part in ("up", "down") else self.hidden), self.hidden

    def spans(self) -> dict[str, slice]:
        """Where each part lies in the flat weights of a layer."""
        found: dict[str, slice] = {}
        start = 0
        for part in PARTS:
            rows, columns = self.shape(part)
            found[part] = slice(start, start + rows * columns)
            start += rows * columns
        return found

    def shard_spans(self, number: int) -> tuple[slice, ...]:
        """Where the parts of a slice lie in the flat weights of a layer."""
        found = []
        for span in self.spans().values():
            size = (span.stop - span.start) // self.slices
            start = span.start + number * size
            found.append(slice(start, start + size))
        return tuple(found)

    @property
    def layer_weights(self) -> int:
        """Weights of a layer."""
        return sum(rows * columns for rows, columns in map(self.shape, PARTS))


@dataclass(frozen=True, slots=True)
class Shard:
    """A copy of a shard in the file."""

    offset: int
    length: int
    outliers: int


@dataclass(frozen=True, slots=True)
class Index:
    """What ``index.json`` says."""

    sizes: Sizes
    shards: tuple[Mapping[int, tuple[Shard, ...]], ...]
    """Layer, bits, slice."""

    @property
    def bits(self) -> tuple[int, ...]:
        """The fidelities, ascending."""
        return tuple(sorted(self.shards[0]))

    def save(self, directory: Path) -> None:
        """Write it."""
        sizes = asdict(self.sizes)
        shards = [
            {str(bits): [[s.offset, s.length, s.outliers] for s in row] for bits, row in by.items()}
            for by in self.shards
        ]
        body = json.dumps({"sizes": sizes, "shards": shards})
        (directory / INDEX).write_text(body + "\n", encoding="utf-8")

    @classmethod
    def load(cls, directory: Path) -> Index:
        """Read what ``save`` wrote.

        Raises:
            ValueError: there is no such file, or it is something else; says what to do.
        """
        path = directory / INDEX
        try:
            body: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            shards = tuple(
                {int(bits): tuple(Shard(*place) for place in row) for bits, row in by.items()}
                for by in body["shards"]
            )
            return cls(Sizes(**body["sizes"]), shards)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}: {error}; write the model with "
                f"`python -m benchmarks.paper.model CHECKPOINT {directory}`"
            ) from error


def shard_bytes(weights: int, bits: int, outliers: int) -> int:
    """Bytes of a shard, what aligns the next one included."""
    used = weights * 4 if bits == FULL else packed_bytes(weights, bits) + outliers * OUTLIER_BYTES
    return -(-used // ALIGNMENT) * ALIGNMENT
