"""Decoding with the native kernel: a ``GroupDecoder`` and rows of word tables, through ``ctypes``.

Other Python threads run while the kernel works. What it decodes and the faults it finds are equal
to those of ``sti.codec.decoder`` and ``sti.codec.word_rows``, which are the specification. Knows
nothing of manifests, files or layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import byref, c_uint64
from typing import Any
from weakref import ref

import numpy as np
from numpy.typing import NDArray

from sti.arrays import ByteArray, Float32Array, Int64Array
from sti.codec.codebook import Codebook
from sti.codec.native.library import LoadedLibrary, library
from sti.codec.native.structures import CHECK, FAULTY, FINE, FoundFault, Operand, code_of
from sti.codec.pieces import (
    BOUNDS,
    CHECKSUM,
    OUTLIERS,
    SIZE,
    Fault,
    OperandRoom,
    check_stored,
    operand_sizes,
)
from sti.codec.weights import DTYPES, WeightForm
from sti.errors import BackendError, PackFormatError

FAULTS = {1: CHECKSUM, 2: SIZE, 3: BOUNDS, 4: OUTLIERS}
"""What the kernel calls by number."""

_OPERANDS_KEPT = 64
"""Sets of operands that a decoder remembers. A run has one for each working buffer and kind of
block, and more for blocks in part. The limit is for callers that come with new arrays each time.
"""


def available_paths() -> tuple[str, ...]:
    """The paths of the kernel that run on this machine, best first; empty without a library."""
    kernel = library()
    return tuple(kernel.paths) if kernel else ()


class NativeDecoder:
    """A ``GroupDecoder`` on one path of the kernel. Threads may share it, on different matrices.

    Args:
        codebook: the codebook of the pack.
        weights: how weights are written.
        path: one of ``available_paths()``; by default the first.

    Attributes:
        path: the path in use.
        dtype: of the weights written.

    Raises:
        BackendError: there is no such path here.
    """

    def __init__(
        self, codebook: Codebook, *, weights: WeightForm = "s8", path: str | None = None
    ) -> None:
        kernel = _loaded()
        self.path = path or next(iter(kernel.paths))
        features = _features(kernel, self.path)
        self.dtype: np.dtype[Any] = DTYPES[weights]
        self._decode = kernel.decode
        self._code = byref(code_of(codebook, weights=weights, features=features))
        self._levels = len(codebook.ladder)
        self._kept: dict[tuple[int, ...], _Operands] = {}

    def decode(
        self,
        data: ByteArray,
        starts: NDArray[np.uint64],
        shards: NDArray[Any],
        operands: Sequence[OperandRoom],
        *,
        check: bool = True,
    ) -> Fault | None:
        """See ``GroupDecoder.decode``."""
        check_stored(data, starts, shards)
        given = self._operands(shards, operands)
        fault = FoundFault()
        ended = self._decode(
            *(self._code, _address(data), data.size, _address(starts), starts.size),
            *(_address(shards), shards.size, given.array, given.count),
            *(CHECK if check else 0, byref(fault)),
        )
        if ended == FAULTY:
            return Fault(fault.row, fault.piece, FAULTS[fault.what])
        if ended != FINE:
            operand_sizes(shards, operands, self.dtype, self._levels)
            raise AssertionError("the kernel refused what its specification takes")
        return None

    def _operands(self, shards: NDArray[Any], operands: Sequence[OperandRoom]) -> _Operands:
        """The operands as the kernel takes them, kept for the next call; refused if wrong."""
        key = tuple(id(room.matrix) for room in operands)
        kept = self._kept.get(key)
        if kept is not None and kept.are(operands):
            return kept
        operand_sizes(shards, operands, self.dtype, self._levels)
        if len(self._kept) >= _OPERANDS_KEPT:
            self._kept.clear()
        made = self._kept[key] = _Operands(operands)
        return made


class _Operands:
    """Operands as the kernel takes them; does not keep their memory."""

    __slots__ = ("_kept", "array", "count")

    def __init__(self, operands: Sequence[OperandRoom]) -> None:
        self._kept = [(ref(room.matrix), room[1:]) for room in operands]
        self.count = len(operands)
        self.array = (Operand * self.count)(
            *(
                Operand(_address(room.matrix), room.slices, room.parts, *room.shape, room.columns)
                for room in operands
            )
        )

    def are(self, operands: Sequence[OperandRoom]) -> bool:
        """Whether they are these very ones, and not others in the place of matrices now gone."""
        return all(
            matrix() is room.matrix and how == room[1:]
            for (matrix, how), room in zip(self._kept, operands, strict=True)
        )


def native_rows(
    raw: ByteArray,
    ids: Int64Array,
    group: int,
    out: Float32Array,
    *,
    path: str,
    check: bool = True,
) -> int | None:
    """As ``sti.codec.word_rows.decode_rows``, on one of ``available_paths()``.

    Raises:
        BackendError: there is no such path here.
        PackFormatError: the arrays do not fit together.
    """
    kernel = _loaded()
    features = _features(kernel, path)
    arrays = (raw, np.uint8, 2), (ids, np.int64, 1), (out, np.float32, 2)
    bad, right = c_uint64(), len(raw) == len(ids) == len(out)
    for array, dtype, rank in arrays:
        right = right and array.dtype == dtype and array.ndim == rank and array.flags.c_contiguous
    ended = right and kernel.rows(
        *(_address(raw), raw.size, raw.shape[1], _address(ids), len(ids), out.shape[1], group),
        *(_address(out), CHECK if check else 0, features, byref(bad)),
    )
    if not right or ended not in (FINE, FAULTY):
        raise PackFormatError(f"word rows of {raw.shape} bytes do not fit {out.shape} floats")
    return bad.value if ended == FAULTY else None


def _loaded() -> LoadedLibrary:
    kernel = library()
    if kernel is None:
        raise BackendError(
            "no native decoder here; decode on the path 'portable', or install STI again where "
            "there is a C compiler"
        )
    return kernel


def _features(kernel: LoadedLibrary, path: str) -> int:
    """The features that a path uses."""
    if path not in kernel.paths:
        there = ", ".join(kernel.paths)
        raise BackendError(f"no native decoder {path!r} here; name one of these: {there}")
    return kernel.paths[path]


def _address(array: NDArray[Any]) -> int:
    return array.ctypes.data
