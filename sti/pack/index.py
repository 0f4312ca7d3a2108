"""The binary index of a pack: what differs from slice group to slice group, as four tensors.

In: four arrays of the resident region and a manifest without groups, or a manifest's groups. Out:
the groups, checked, or the arrays. All numbers are checked as arrays, so that opening a deep model
takes milliseconds. Knows nothing of files; ``FORMAT.md`` specifies the tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sti.codec.codebook import plane_bytes
from sti.codec.outliers import PADDED, SEGMENT_WEIGHTS
from sti.errors import PackFormatError
from sti.model.manifest import GROUP_ALIGNMENT, BlockKind, Manifest, Plane, SliceGroup
from sti.model.quality import MOST_LOSS
from sti.storage.digest import sha256

OUTLIER_BYTES = "index.outlier_bytes"
CHECKSUMS = "index.checksums"
ORDERS = "index.orders"
GAINS = "index.gains"
INDEX = (OUTLIER_BYTES, CHECKSUMS, ORDERS, GAINS)
"""The tensors of the index, in the order in which they are hashed."""

_DTYPES: Mapping[str, np.dtype[Any]] = {
    OUTLIER_BYTES: np.dtype("<u4"),
    CHECKSUMS: np.dtype("<u4"),
    ORDERS: np.dtype("<u2"),
    GAINS: np.dtype("<f4"),
}
_BYTES_PER_COUNT, _BYTES_PER_OUTLIER = 4, 3  # a segment has a count

MOST_SLICES = 1 << 16
"""Of a block: orders are 16 bits."""


def group_start(end: int) -> int:
    """Where the group after one that ends at ``end`` starts; both inside the block's tensor."""
    return -(-end // GROUP_ALIGNMENT) * GROUP_ALIGNMENT


def index_shapes(manifest: Manifest) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor of the index."""
    dims = manifest.dimensions
    blocks, planes = dims.layers * len(manifest.kinds), len(manifest.ladder)
    return {
        OUTLIER_BYTES: (blocks, dims.slices),
        CHECKSUMS: (blocks, planes + 1, dims.slices),
        ORDERS: (blocks, planes, dims.slices),
        GAINS: (blocks, planes, dims.slices),
    }


def index_arrays(manifest: Manifest) -> dict[str, NDArray[Any]]:
    """The tensors of the index of a manifest that has all its groups."""
    found = {name: np.zeros(shape, _DTYPES[name]) for name, shape in index_shapes(manifest).items()}
    kinds = {kind.name: number for number, kind in enumerate(manifest.kinds)}
    for group in manifest.groups:
        block = group.layer * len(kinds) + kinds[group.kind]
        part = slice(group.first, group.first + group.slices)
        found[OUTLIER_BYTES][block, part] = group.outlier_bytes
        found[CHECKSUMS][block, 0, part] = group.outlier_checksums
        for number, plane in enumerate(group.planes):
            found[CHECKSUMS][block, number + 1, part] = plane.checksums
            found[ORDERS][block, number, part] = plane.order
            with np.errstate(over="ignore"):  # infinite gains are refused by `read_index`, which
                # `PackWriter.finish` calls
                found[GAINS][block, number, part] = plane.gains
    return found


def index_hash(arrays: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 of the index, as the manifest states it."""
    found = sha256()
    for name in INDEX:
        found.update(np.ascontiguousarray(arrays[name], _DTYPES[name]).data)
    return found.hexdigest()


def read_index(
    manifest: Manifest, tensor: Callable[[str], NDArray[Any]], *, where: str
) -> tuple[SliceGroup, ...]:
    """The slice groups, in the order of execution.

    Args:
        manifest: without groups, checked.
        tensor: gives a resident tensor by name, or raises.
        where: the file, for messages.

    Raises:
        PackFormatError: a tensor is missing, of another type or shape, or holds numbers that cannot
            be; names the block where it is one block's.
    """
    shapes = index_shapes(manifest)
    arrays = {name: tensor(name) for name in INDEX}
    for name, array in arrays.items():
        if array.dtype != _DTYPES[name] or array.shape != shapes[name]:
            raise PackFormatError(
                f"{where}: tensor {name!r} must be {_DTYPES[name].name} {list(shapes[name])}, is "
                f"{array.dtype.name} {list(array.shape)}; rebuild or fetch the pack again"
            )
    _Check(manifest, where).all(arrays)
    return _groups(manifest, arrays)


def _groups(manifest: Manifest, arrays: Mapping[str, NDArray[Any]]) -> tuple[SliceGroup, ...]:
    lists, checksums, orders, gains = (arrays[name].tolist() for name in INDEX)
    sizes = {kind.name: plane_bytes(manifest.ladder, kind.shard_weights) for kind in manifest.kinds}
    groups = []
    blocks = product(range(manifest.dimensions.layers), manifest.kinds)
    for block, (layer, kind) in enumerate(blocks):
        start = first = 0
        each = sizes[kind.name]
        weights, whole = kind.shard_weights, sum(each)
        planes = tuple(enumerate(zip(manifest.ladder, each, strict=True)))
        for number, count in enumerate(kind.groups):
            stop = first + count
            listed = tuple(lists[block][first:stop])
            length = sum(listed) + count * whole
            groups.append(
                SliceGroup(
                    layer=layer,
                    kind=kind.name,
                    number=number,
                    first=first,
                    start=start,
                    length=length,
                    shard_weights=weights,
                    outlier_bytes=listed,
                    outlier_checksums=tuple(checksums[block][0][first:stop]),
                    planes=tuple(
                        Plane(
                            bits,
                            size,
                            tuple(orders[block][plane][first:stop]),
                            tuple(checksums[block][plane + 1][first:stop]),
                            tuple(gains[block][plane][first:stop]),
                        )
                        for plane, (bits, size) in planes
                    ),
                )
            )
            start, first = group_start(start + length), stop
    return tuple(groups)


class _Check:
    """Refuses numbers of the index that cannot be, kind by kind."""

    def __init__(self, manifest: Manifest, where: str) -> None:
        self._manifest, self._where = manifest, where

    def all(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Check every tensor but the checksums, which may be anything."""
        lists, orders, gains = arrays[OUTLIER_BYTES], arrays[ORDERS], arrays[GAINS]
        kinds = self._manifest.kinds
        for number, kind in enumerate(kinds):
            own = slice(number, None, len(kinds))
            sizes = [prod(operand.shape) for operand in kind.operands]
            least = _BYTES_PER_COUNT * sum(-(-size // SEGMENT_WEIGHTS) for size in sizes)
            most = least + -(-_BYTES_PER_OUTLIER * kind.shard_weights // PADDED) * PADDED
            some = lists[own]
            good = (some % PADDED == 0) & (some >= least) & (some <= most)
            self._require(good, kind, "an outlier list has an impossible length")
            with np.errstate(invalid="ignore"):
                good = (gains[own] >= 0.0) & (gains[own] <= MOST_LOSS)
            self._require(good, kind, f"a gain is negative or no finite number up to {MOST_LOSS:g}")
            start = 0
            for count in kind.groups:
                slices = np.arange(count)
                part = orders[own, :, start : start + count]
                good = part[:, 0] == slices
                self._require(good, kind, "slices of the first plane are not in order")
                good = np.sort(part, axis=-1) == slices
                self._require(good, kind, "the order of a plane is no order of its group")
                start += count

    def _require(self, good: NDArray[np.bool_], kind: BlockKind, message: str) -> None:
        """``good`` has an entry, of any shape, for each layer."""
        if not good.all():
            layer = int(np.flatnonzero(~good.reshape(len(good), -1).all(axis=1))[0])
            raise PackFormatError(
                f"{self._where}: index: layer {layer} {kind.name}: {message}; rebuild or fetch the "
                "pack again"
            )
