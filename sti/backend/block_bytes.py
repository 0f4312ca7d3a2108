"""A block's compressed bytes in memory, and verifying them against the manifest's checksums."""

from __future__ import annotations

import zlib
from typing import NamedTuple

from sti.arrays import ByteArray
from sti.errors import PackCorruptError
from sti.planning.block_jobs import BlockJob, Piece


class BlockBytes(NamedTuple):
    """A block's compressed bytes at hand: ``buffer[starts[i]:]`` is the job's range ``i``.

    ``from_ring``: they lie in the ring and are given back after decoding; else they are preloaded.
    """

    buffer: ByteArray
    starts: tuple[int, ...]
    from_ring: bool

    def view(self, piece: Piece) -> ByteArray:
        """A view of the piece's bytes."""
        start = self.starts[piece.part] + piece.start
        return self.buffer[start : start + piece.length]


def check_block(job: BlockJob, data: BlockBytes, *, where: str) -> None:
    """Compare every piece with its checksum.

    Raises:
        PackCorruptError: names the file, layer, block, slice and plane.
    """
    names = ["outlier list", *(f"plane of {plane.bits} bits" for plane in job.block.planes)]
    for shard in (shard for group in job.groups for shard in group):
        for name, piece in zip(names, (shard.outliers, *shard.planes), strict=False):
            if zlib.crc32(data.view(piece).data) != piece.checksum:
                raise PackCorruptError(
                    f"{where}: layer {job.block.layer} {job.block.kind}, slice {shard.slice}, "
                    f"{name}: checksum does not match; the pack is damaged, fetch it again"
                )
