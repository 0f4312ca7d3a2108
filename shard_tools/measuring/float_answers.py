"""What a checkpoint itself says of texts, in float32: what a pack of it is compared with.

In: a model as its architecture reads it, encodings. Out: the hidden states behind the last block,
by the family's float reference. Weights are read block by block, so that a checkpoint never lies in
memory whole. Knows nothing of packs, heads or texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shard_tools.architectures.base import KindLayout, Model
from shard_tools.packing.calibration_text import calibration_batch
from shard_tools.progress import Progress
from sti.arrays import Float32Array
from sti.text.encoding import Encoding

_TOKENS = 1024
"""Computed at once: what the parts of a block add takes as much again for each part."""


def float_states(
    model: Model,
    residents: Mapping[str, NDArray[Any]],
    encodings: Sequence[Encoding],
    line: Progress,
) -> list[Float32Array]:
    """Hidden states ``[tokens, hidden]`` of each text, behind the last block.

    Args:
        residents: inputs of ``embed``, as ``Model.residents`` gives them.
        line: is stepped by 1 a block.

    Raises:
        CheckpointError: a tensor is missing or cannot be used.
        StorageError: reading failed.
    """
    batch = calibration_batch(encodings)
    hidden = model.embed(batch, residents)
    for layer in range(model.layers):
        for layout in model.kinds:
            hidden = _through(model, layer, layout, hidden, batch.lengths)
            line.step(1.0, f"computing layer {layer} of the checkpoint")
    return np.split(hidden, np.cumsum(batch.lengths)[:-1])


def _through(
    model: Model, layer: int, layout: KindLayout, hidden: Float32Array, lengths: Sequence[int]
) -> Float32Array:
    """Hidden states behind a block."""
    block = model.block(layer, layout.name)
    operands = {
        product.name: product.split(block.matrices[product.name]) for product in layout.products
    }
    found = np.empty_like(hidden)
    start = 0
    for some in _parts(lengths):
        stop = start + sum(some)
        part = hidden[start:stop]
        added = model.contributions(layout.name, part, some, operands, block.vectors)
        found[start:stop] = model.connect(part + added.sum(axis=0), block.vectors)
        start = stop
    return found


def _parts(lengths: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Lengths of neighbouring texts, about ``_TOKENS`` together."""
    part: list[int] = []
    for length in lengths:
        if part and sum(part) + length > _TOKENS:
            yield tuple(part)
            part = []
        part.append(length)
    yield tuple(part)
