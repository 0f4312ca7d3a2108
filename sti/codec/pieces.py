"""What a decoder of a slice group is given and what it answers: shards, their pieces, faults.

In: one buffer of bytes; for each shard of the group, where its pieces lie in it. Out: slices of the
operands' matrices, or the first ``Fault``. Both implementations, ``sti.codec.decoder`` in NumPy and
``sti.codec.native``, keep to this. Knows nothing of manifests, files or layers.

Checks are made piece by piece, the outlier list first, and for each piece in this order:

- ``bounds``: it lies inside the buffer;
- ``size``: a plane has exactly the bytes that the shard's weights need (outlier lists: see below);
- ``checksum``: its CRC-32 is the one given, unless checksums are not to be checked;
- ``outliers``: a list is long enough for its counts, exactly as long as they say, ends in zeros,
  and its positions ascend inside their segments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from sti.arrays import ByteArray
from sti.codec.codebook import WEIGHTS_MULTIPLE
from sti.errors import PackFormatError

MOST_PLANES = 7
"""A ladder within 2..8 bits has no more."""

PIECE = np.dtype(
    [("part", "<u4"), ("length", "<u4"), ("start", "<u8"), ("checksum", "<u4"), ("zero", "<u4")]
)
"""``length`` bytes at ``starts[part] + start`` of the buffer, and their CRC-32; 24 bytes."""

SHARD = np.dtype([("row", "<u4"), ("planes", "<u4"), ("pieces", PIECE, (1 + MOST_PLANES,))])
"""A shard to decode; 200 bytes.

``row`` is the slice of every operand's matrix it goes to, ``planes`` how many planes it has;
``pieces[0]`` is its outlier list, ``pieces[1 .. planes]`` are its planes in the ladder's order.
"""

_MOST_WEIGHTS = (1 << 32) - 1
"""Of an operand in one shard."""

BOUNDS, SIZE, CHECKSUM, OUTLIERS = "bounds", "size", "checksum", "outliers"


class OperandRoom(NamedTuple):
    """Where an operand of all slices in use is decoded to: one matrix.

    Of each slice it holds ``parts`` matrices of R x C weights. With ``columns`` they lie side by
    side, ``[R, slices * parts * C]``: part p of slice s has the columns from
    ``(s * parts + p) * C`` on. Otherwise they lie one below the other,
    ``[slices * parts * R, C]``. A shard stores part after part, each in row-major order.
    """

    matrix: NDArray[Any]
    """2-D, contiguous, writeable, of the type that the decoder writes."""
    slices: int
    parts: int
    """Matrices that a slice has of this operand."""
    columns: bool

    @property
    def shape(self) -> tuple[int, int]:
        """R and C."""
        rows, columns = self.matrix.shape
        each = self.slices * self.parts
        return (rows, columns // each) if self.columns else (rows // each, columns)

    def of(self, number: int) -> NDArray[Any]:
        """A slice's weights in the order in which a shard has them, a view ``[parts, R, C]``."""
        rows, columns = self.shape
        if self.columns:
            by_part = self.matrix.reshape(rows, self.slices, self.parts, columns)
            found: NDArray[Any] = by_part[:, number].transpose(1, 0, 2)
        else:
            found = self.matrix.reshape(self.slices, self.parts, rows, columns)[number]
        return found


class Fault(NamedTuple):
    """A piece that cannot be decoded."""

    row: int
    """The slice of its shard."""
    piece: int
    """0 for the outlier list, p for the p-th plane."""
    what: str
    """``"bounds"``, ``"size"``, ``"checksum"`` or ``"outliers"``."""


class GroupDecoder(Protocol):
    """Decodes slice groups with one codebook. Threads may share it, on different matrices."""

    @property
    def path(self) -> str:
        """``"portable"``, or the native kernel's ``scalar``, ``ssse3``, ``avx2`` or ``neon``."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the weights written, see ``sti.codec.weights``."""

    def decode(
        self,
        data: ByteArray,
        starts: NDArray[np.uint64],
        shards: NDArray[Any],
        operands: Sequence[OperandRoom],
        *,
        check: bool = True,
    ) -> Fault | None:
        """Decode the shards of a group.

        Args:
            data: 1-D contiguous uint8; not modified.
            starts: where each part begins in ``data``, 1-D contiguous uint64.
            shards: 1-D contiguous, of type ``SHARD``.
            operands: of ``dtype``; a shard's weights fill its slice of each, in order. A slice has
                a multiple of 8 weights of each, below 2**32.
            check: whether to check the CRC-32 of every piece.

        Returns:
            The first fault, in order of the shards and of one shard's pieces; None if there is
            none. Slices of shards before it are written; its own and later ones may be. Nothing is
            ever written outside the slices of the shards.

        Raises:
            PackFormatError: the arrays are not of these types and shapes, or slices or numbers of
                planes cannot be right, whatever the bytes are. Nothing is written then. Every
                decoder refuses the same.
        """


def check_stored(
    data: ByteArray,
    starts: NDArray[np.uint64],
    shards: NDArray[Any],
) -> None:
    """Check what ``GroupDecoder.decode`` is given of a group, but for its operands.

    Raises:
        PackFormatError: see ``GroupDecoder.decode``.
    """
    if data.dtype != np.uint8 or data.ndim != 1 or not data.flags.c_contiguous:
        raise PackFormatError("bytes to decode must be a contiguous row of uint8")
    if starts.dtype != np.uint64 or starts.ndim != 1 or not starts.flags.c_contiguous:
        raise PackFormatError("starts of parts must be a contiguous row of uint64")
    if shards.dtype != SHARD or shards.ndim != 1 or not shards.flags.c_contiguous:
        raise PackFormatError("shards to decode must be a contiguous array of their type")


def operand_sizes(
    shards: NDArray[Any], operands: Sequence[OperandRoom], dtype: np.dtype[Any], planes: int
) -> tuple[int, ...]:
    """Weights of each operand in one shard; checks that they and the shards fit together.

    Args:
        shards: which ``check_stored`` has passed.
        planes: the most that the ladder has.

    Raises:
        PackFormatError: see ``GroupDecoder.decode``.
    """
    for matrix, slices, parts, columns in operands:
        if matrix.dtype != dtype or not (matrix.flags.c_contiguous and matrix.flags.writeable):
            raise PackFormatError(f"operands to decode into must be contiguous and {dtype.name}")
        if matrix.ndim != 2 or min(slices, parts) < 1 or matrix.shape[columns] % (slices * parts):
            raise PackFormatError(
                f"a matrix {matrix.shape} cannot hold {parts} parts of {slices} slices"
            )
    sizes = tuple(room.matrix.size // room.slices for room in operands)
    if not sizes or any(size < 1 or size % WEIGHTS_MULTIPLE for size in sizes):
        raise PackFormatError(f"cannot decode operands of {sizes} weights: not multiples of 8")
    if max(sizes) > _MOST_WEIGHTS:
        raise PackFormatError(f"cannot decode operands of {sizes} weights: the limit is 2**32")
    if shards.size:
        slices = min(room.slices for room in operands)
        if int(shards["row"].max()) >= slices:
            raise PackFormatError(f"a shard is to go beyond the {slices} slices of its operands")
        if not 1 <= int(shards["planes"].min()) <= int(shards["planes"].max()) <= planes:
            raise PackFormatError(f"shards must have 1 to {planes} planes")
    return sizes
