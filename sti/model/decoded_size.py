"""How much memory decoded weights take. Pure."""

from __future__ import annotations

from math import prod

from sti.model.manifest import BlockKind, Manifest

ALIGNMENT = 64
"""Operands start at multiples of this many bytes: stores that cross cache lines are slow."""


def aligned(size: int) -> int:
    """``size`` bytes, rounded up to where the next operand may start."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def decoded_bytes(kind: BlockKind, slices: int) -> int:
    """Bytes of so many slices of a kind."""
    return sum(aligned(slices * prod(operand.shape)) for operand in kind.operands)


def largest_group_bytes(manifest: Manifest) -> int:
    """Bytes of the largest slice group of a pack."""
    return max(decoded_bytes(kind, max(kind.groups)) for kind in manifest.kinds)
