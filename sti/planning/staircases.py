"""The fidelities of a pack that are worth running on some machine: what plans are picked from.

Purpose: planning without a search. ``sti.planning.staircase_making`` finds them once for each pack;
a run prices them (``sti.planning.pricing``) and picks one (``sti.planning.choice``). In: arrays, or
the bytes that a pack or a cache keeps. Out: checked arrays, or bytes. Knows nothing of machines,
targets or files. Pure. ``FORMAT.md`` (section 2.8) specifies the bytes.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from sti.arrays import Float64Array, Int64Array, UInt16Array
from sti.errors import PlanError
from sti.model.manifest import Manifest
from sti.model.quality import MOST_LOSS

STAIRCASES_VERSION = 1
_MAGIC = b"stair"
_HEAD = np.dtype(
    [
        ("magic", "S5"),
        ("version", "u1"),
        ("planes", "<u2"),
        ("groups", "<u4"),
        ("count", "<u4"),
        ("crc32", "<u4"),
    ]
)
MOST_STAIRCASES = 4096
"""Of a pack; more would take longer to price than a search takes."""


_MOST_BYTES = 1 << 23
"""Of all of them: of a deep model they have a megabyte."""


@dataclass(frozen=True, slots=True)
class Staircases:
    """Fidelities of whole submodels, ``c`` of them, by falling loss. Not modified."""

    submodel: Int64Array
    """``[c]``: place in the manifest's submodels."""
    counts: UInt16Array
    """``[c, groups, planes]``: shards read of each plane of each of the manifest's groups; zeros
    for groups that the submodel does not run."""
    loss: Float64Array
    """``[c]``: expected loss with exact products, in the pack's unit."""
    narrow_loss: Float64Array
    """``[c]``: expected loss where groups are computed narrow that may be
    (``sti.planning.variants``)."""

    def __len__(self) -> int:
        return len(self.loss)

    def counts_of(self, number: int) -> list[tuple[int, ...]]:
        """The shard counts of each group that one of them runs, in order of execution."""
        rows = self.counts[number]
        return [tuple(row) for row in rows[rows[:, 0] > 0].tolist()]

    def to_bytes(self, manifest: Manifest) -> bytes:
        """A compact binary form that ``from_bytes`` reads back to equal arrays."""
        count, groups, planes = self.counts.shape
        body = b"".join(
            array.tobytes()
            for array in (
                self.loss.astype("<f8"),
                self.narrow_loss.astype("<f8"),
                self.submodel.astype("<u2"),
                self.counts.astype(_shard_type(manifest)),
            )
        )
        head = np.zeros((), _HEAD)
        head["magic"], head["version"] = _MAGIC, STAIRCASES_VERSION
        head["planes"], head["groups"], head["count"] = planes, groups, count
        head["crc32"] = zlib.crc32(body, zlib.crc32(head.tobytes()))
        return head.tobytes() + body

    @classmethod
    def from_bytes(cls, raw: bytes, manifest: Manifest, *, where: str) -> Staircases:
        """Read what ``to_bytes`` made, and check that it is of this pack.

        Raises:
            PlanError: damaged, of another version, or not of this pack; names ``where``.
        """
        count = _checked_head(raw, manifest, where)
        groups, planes, at = len(manifest.groups), len(manifest.ladder), _HEAD.itemsize
        loss = np.frombuffer(raw, "<f8", count, at)
        narrow_loss = np.frombuffer(raw, "<f8", count, at + 8 * count)
        submodel = np.frombuffer(raw, "<u2", count, at + 16 * count).astype(np.int64)
        shards = np.frombuffer(raw, _shard_type(manifest), offset=at + 18 * count)
        counts = shards.astype(np.uint16).reshape(count, groups, planes)
        found = cls(submodel, counts, loss, narrow_loss)
        _check(found, manifest, where)
        return found


def _shard_type(manifest: Manifest) -> np.dtype[Any]:
    """How counts of shards are stored: as bytes where that is enough for every block."""
    return np.dtype("u1" if manifest.dimensions.slices < 256 else "<u2")


def _checked_head(raw: bytes, manifest: Manifest, where: str) -> int:
    """How many staircases there are."""
    if not _HEAD.itemsize <= len(raw) <= _MOST_BYTES or not raw.startswith(_MAGIC):
        raise PlanError(f"{where}: no staircases; rank the pack again")
    head = np.frombuffer(raw, _HEAD, 1)[0].copy()
    version, count = int(head["version"]), int(head["count"])
    if version != STAIRCASES_VERSION:
        raise PlanError(
            f"{where}: staircases of version {version}, this release reads {STAIRCASES_VERSION}; "
            "rank the pack again"
        )
    groups, planes = len(manifest.groups), len(manifest.ladder)
    shape = int(head["groups"]), int(head["planes"])
    length = _HEAD.itemsize + count * (18 + _shard_type(manifest).itemsize * groups * planes)
    if shape != (groups, planes) or len(raw) != length or not 0 < count <= MOST_STAIRCASES:
        raise PlanError(
            f"{where}: {count} staircases of {shape[0]} groups in {shape[1]} planes and "
            f"{len(raw)} bytes do not fit a pack of {groups} groups in {planes} planes; rank the "
            "pack again"
        )
    expected, head["crc32"] = int(head["crc32"]), 0
    if zlib.crc32(raw[_HEAD.itemsize :], zlib.crc32(head.tobytes())) != expected:
        raise PlanError(f"{where}: staircases do not match their checksum; rank the pack again")
    return count


def _check(found: Staircases, manifest: Manifest, where: str) -> None:
    """Refuse what no plan of the pack could be: submodels, counts and losses out of range."""

    def require(good: np.bool_ | bool, what: str) -> None:
        if not good:
            raise PlanError(f"{where}: staircases {what}; rank the pack again")

    counts, submodels = found.counts, manifest.submodels
    require(int(found.submodel.max()) < len(submodels), "name a submodel that the pack lacks")
    used = used_slices(manifest)[found.submodel]
    slices = np.array([group.slices for group in manifest.groups], np.uint16)
    require(bool((counts[:, :, 0] == used).all()), "use other slices than their submodel")
    require(bool((counts <= slices[:, None]).all()), "read more shards than there are")
    # A plane's order puts slices in use between others: falling numbers of shards hold for full
    # width, and no shard of a group that is not run.
    require(not bool(counts[used == 0].any()), "read groups that their submodel does not run")
    full = (used == slices)[:, :, None]
    rising = (counts[:, :, 1:] > counts[:, :, :-1]) & full
    require(not bool(rising.any()), "read more of a plane than of the one below")
    losses = np.stack((found.loss, found.narrow_loss))
    require(bool(((losses >= 0.0) & (losses <= MOST_LOSS)).all()), "have a loss that cannot be")
    require(bool((losses[1] >= losses[0]).all()), "lose less with narrow products")


def used_slices(manifest: Manifest) -> UInt16Array:
    """Slices in use of each group, ``[submodels, groups]``; 0 where a submodel does not run it."""
    layer = np.array([group.layer for group in manifest.groups])
    first = np.array([group.first for group in manifest.groups])
    slices = np.array([group.slices for group in manifest.groups])
    widths = np.array([submodel.width for submodel in manifest.submodels])
    used = np.clip(widths[:, None] - first, 0, slices)
    runs = np.zeros((len(manifest.submodels), manifest.dimensions.layers), bool)
    for row, submodel in enumerate(manifest.submodels):
        runs[row, list(submodel.layers)] = True
    return np.where(runs[:, layer], used, 0).astype(np.uint16)
