"""From the losses of shards at lower fidelities to the gains of planes. Pure.

A plane's gain is how much the loss falls when the plane is read in addition to all planes below it.
Losses are measured shard by shard or, in less time, a block at a time. Gains that were not measured
are filled in from the pack's earlier gains (the proxy), scaled to the measured losses. Knows no
files.
"""

from __future__ import annotations

import numpy as np

from shard_tools.measuring.metrics import spearman
from shard_tools.packing.encoding import Gains
from sti.arrays import Float64Array
from sti.model.manifest import Manifest, SliceGroup

AGREEMENT = 0.8
"""Rank correlation at which a proxy stands in for a measurement."""

_DIGITS = 4
_LEAST = 1e-30


def falling(losses: Float64Array) -> Float64Array:
    """Losses ``[levels, ...]``, lowest fidelity first, such that none is below that of a higher
    fidelity: a step up that happens to do harm counts as none, and so do those below it until
    they have made up for it.
    """
    return np.asarray(np.maximum.accumulate(losses[::-1], axis=0)[::-1])


def gains_of(losses: Float64Array) -> Float64Array:
    """Gains ``[planes, ...]`` of losses ``[planes, ...]``: absent, then the lowest fidelity, and so
    on up to the one below the top, at which the loss is zero.
    """
    return steps_of(np.concatenate([losses, np.zeros_like(losses[:1])]))


def steps_of(losses: Float64Array) -> Float64Array:
    """Gains of the planes between neighbouring levels of ``losses``: one less than those."""
    levels = falling(losses)
    return np.asarray(levels[:-1] - levels[1:])


def stored_gains(manifest: Manifest) -> Float64Array:
    """The gains a pack carries, ``[planes, blocks, slices]``."""
    found = [
        np.concatenate([[plane.gains for plane in group.planes] for group in groups], axis=1)
        for groups in _blocks(manifest)
    ]
    return np.stack(found, axis=1)


def agreement(first: Float64Array, second: Float64Array) -> list[float]:
    """Spearman correlation of two rankings of shards, plane by plane."""
    return [spearman(a.reshape(-1), b.reshape(-1)) for a, b in zip(first, second, strict=True)]


def rest_agreement(losses: Float64Array, proxy: Float64Array) -> float:
    """Whether a proxy ranks what is left above the highest fidelity measured as its loss does.

    Args:
        losses: ``[levels, ...]``: absent and the lowest fidelities, at most as many as planes.
        proxy: gains ``[planes, ...]``.

    Returns:
        Spearman's rank correlation of the last loss and the proxy's gains of the planes above.
    """
    return spearman(losses[-1].reshape(-1), proxy[len(losses) - 1 :].sum(axis=0).reshape(-1))


def with_rest(losses: Float64Array, proxy: Float64Array) -> Float64Array:
    """Losses at all fidelities below the top, where only the lowest ones were measured.

    Each shard's last measured loss is what the planes above that fidelity gain together; it is
    shared out among them as the proxy does.

    Args:
        losses: ``[levels, ...]``: absent and the lowest fidelities.
        proxy: gains ``[planes, ...]``.

    Returns:
        ``[planes, ...]``
    """
    above = proxy[len(losses) - 1 :]
    left = np.cumsum(above[::-1], axis=0)[::-1]  # by planes from each one on
    shares = left[1:] / np.maximum(left[0], _LEAST)
    return np.concatenate([losses, losses[-1] * shares])


def scaled_to_blocks(proxy: Float64Array, losses: Float64Array) -> Float64Array:
    """The proxy's gains, scaled such that each block's add up to its measured ones.

    Args:
        proxy: gains ``[planes, blocks, slices]``.
        losses: ``[planes, blocks]`` of whole blocks lowered, as ``gains_of`` takes them.
    """
    wanted = gains_of(losses)
    return np.asarray(proxy * (wanted / np.maximum(proxy.sum(axis=2), _LEAST))[:, :, None])


def by_block(gains: Float64Array, manifest: Manifest) -> Gains:
    """Gains ``[planes, blocks, slices]`` as they stand in a manifest: by block, rounded."""
    return {
        (layer, kind.name): [
            [float(f"{gain:.{_DIGITS}g}") for gain in row]
            for row in gains[:, layer * len(manifest.kinds) + place]
        ]
        for layer in range(manifest.dimensions.layers)
        for place, kind in enumerate(manifest.kinds)
    }


def _blocks(manifest: Manifest) -> list[tuple[SliceGroup, ...]]:
    """The groups of each block, in the order of execution."""
    return [
        manifest.block(layer, kind.name)
        for layer in range(manifest.dimensions.layers)
        for kind in manifest.kinds
    ]
