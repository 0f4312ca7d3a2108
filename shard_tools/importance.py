"""How much each plane of each shard matters: error met by activations on calibration text.

In: a block on its grids, the hidden states that calibration sentences bring to it, the code book's
values at every fidelity. Out: a gain for each (plane, slice). The slice's float contribution to
the block's sum is computed at every fidelity; its squared distance from the contribution at the
top fidelity is the quantization error weighted by the activations it meets, soft-max and
activation function included. Divided by the energy of what the following norm normalizes, errors
of all blocks share one unit. Used until a measured ranking replaces it. Knows no architecture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from shard_tools.blocks import QuantizedBlock
from shard_tools.model import Floats, Model, TokenBatch
from sti.errors import InputError
from sti.tokenizer import Tokenizer

BUILT_IN = "calibration.txt"
_MOST_TOKENS = 640
"""Calibration stops here: more tokens make the build slower and the ranking hardly better."""

_DIGITS = 4


@dataclass(frozen=True, slots=True)
class BlockImportance:
    """What one block's shards are worth.

    ``gains[p][s]`` is by how much plane ``p`` lowers the relative error of slice ``s``; the first
    plane's counts from the slice being absent. ``hidden`` goes into the next block.
    """

    gains: tuple[tuple[float, ...], ...]
    hidden: Floats


def calibration_texts(path: Path | None) -> list[str]:
    """One text a line, of ``path`` or of the set that comes with the builder.

    Raises:
        InputError: the file cannot be read or holds no text.
    """
    try:
        if path is None:
            text = resources.files("shard_tools").joinpath(BUILT_IN).read_text(encoding="utf-8")
        else:
            text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise InputError(f"{path}: holds no text; give one calibration text a line")
    return lines


def calibration_batch(texts: Sequence[str], tokenizer: Tokenizer) -> TokenBatch:
    """Token ids of as many texts as the limit on tokens allows, at least one."""
    ids, types, positions, lengths = [], [], [], []
    for text in texts:
        encoding = tokenizer.encode(text)
        if lengths and sum(lengths) + len(encoding.ids) > _MOST_TOKENS:
            break
        ids.append(encoding.ids)
        types.append(encoding.type_ids)
        positions.append(np.arange(len(encoding.ids), dtype=np.int64))
        lengths.append(len(encoding.ids))
    return TokenBatch(
        np.concatenate(ids), np.concatenate(types), np.concatenate(positions), tuple(lengths)
    )


def measure_block(
    model: Model,
    block: QuantizedBlock,
    hidden: Floats,
    lengths: Sequence[int],
    values: Mapping[int, Floats],
) -> BlockImportance:
    """Gains of one block, and the hidden states behind it.

    Args:
        model: the float arithmetic.
        block: the block.
        hidden: float32 ``[T, d]``, what goes into the block.
        lengths: tokens of each sentence.
        values: for each fidelity, ascending, float32 ``[256]``: what stands for each int8 value.
    """
    *lower, top = values
    reference = _contributions(model, block, hidden, lengths, values[top])
    summed = hidden + reference.sum(axis=0)
    errors = [_energy(reference)]
    for bits in lower:
        missed = _contributions(model, block, hidden, lengths, values[bits])
        missed -= reference
        errors.append(_energy(missed))
    errors.append(np.zeros_like(errors[0]))
    total = _centred_energy(summed + block.vectors["bias"])
    gains = _gains(np.stack(errors) / total)
    return BlockImportance(gains, model.connect(summed, block.vectors))


def _contributions(
    model: Model, block: QuantizedBlock, hidden: Floats, lengths: Sequence[int], values: Floats
) -> Floats:
    """What each slice adds, ``[slices, T, d]``."""
    operands = block.operands(values)
    found = model.contributions(block.layout.name, hidden, lengths, operands, block.vectors)
    if len(found) == model.slices:
        return found
    return found.reshape(model.slices, -1, *hidden.shape).sum(axis=1)


def _energy(contributions: Floats) -> Floats:
    return np.asarray(np.einsum("std,std->s", contributions, contributions), dtype=np.float64)


def _centred_energy(summed: Floats) -> float:
    """Energy of what the norm divides by its spread; tiny for a model that is all zeros."""
    centred = summed - summed.mean(axis=1, keepdims=True)
    return max(float(np.square(centred).sum(dtype=np.float64)), 1e-30)


def _gains(errors: Floats) -> tuple[tuple[float, ...], ...]:
    """Errors ``[planes + 1, slices]``, from absent to the top -> gains, rounded, never negative.

    A step up that happens to make the error larger counts as none, and so do the steps below it
    as far as they reach: each error is at least that of every higher fidelity.
    """
    falling = np.maximum.accumulate(errors[::-1], axis=0)[::-1]
    return tuple(
        tuple(float(f"{gain:.{_DIGITS}g}") for gain in row) for row in falling[:-1] - falling[1:]
    )
