"""Checking the parts of a pack against one another: graphs and residents.

In: a checked manifest, the tensor table, and the resident tensors. Out: nothing, or an error that
names the tensor or member. Shapes and types come from the table, so that a deep model is checked
without an array a tensor; numbers are looked at in long runs of neighbouring tensors. Knows nothing
of files, or of what is inside of graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import groupby, takewhile
from math import prod
from operator import lt
from typing import NamedTuple

import numpy as np

from sti.errors import PackFormatError
from sti.graphs.interfaces import SEQUENCE, STEP_PARTS, graph_names
from sti.model.manifest import COLUMNS, POSITION_BIAS, ROWS, BlockKind, Manifest
from sti.pack.header import WORDS
from sti.pack.safetensors_table import TensorInfo

MOST_NUMBER = 1e15
"""Of a resident float: products of more would be no finite numbers."""

MOST_EXTENT = 1 << 19
"""Of what a step of a head is fed: a hidden state pooled in eight ways."""

MOST_TYPES = 16
"""Rows of ``embed.types``; texts have two types."""

MOST_DISTANCES = 4095
"""Of tokens that attention tells apart, both ways."""

_CHUNK = 1 << 16
_OF_OPERANDS = ("scale", "bias")
_EXPONENT = np.uint16(0x7C00)
"""Bits of a float16 that are all set where it is no finite number."""


class _Wanted(NamedTuple):
    """A tensor that must be there: the end of its name, type and shape (0: any extent)."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class _Side(NamedTuple):
    """A side input: the product's name, and the channels there are."""

    product: str
    channels: int
    shape: tuple[int, ...]
    """Of the weights; 0 where as many as the index has."""


def check_parts(
    manifest: Manifest,
    tensors: Mapping[str, TensorInfo],
    region: Callable[[int, int], memoryview],
    *,
    where: str,
) -> None:
    """Refuse parts that do not fit one another. Takes a few tenths of a millisecond.

    Args:
        manifest: checked.
        tensors: those of the file by name, in the order in which they lie.
        region: gives bytes of the resident region by their offset in the file and their number.
        where: the file, for messages.

    Raises:
        PackFormatError: names the tensor or the member.
    """
    _Check(manifest, tensors, region, where).all()


class _Check:
    """Refuses parts that do not fit, part by part."""

    def __init__(
        self,
        manifest: Manifest,
        tensors: Mapping[str, TensorInfo],
        region: Callable[[int, int], memoryview],
        where: str,
    ) -> None:
        self._manifest, self._tensors = manifest, tensors
        self._region, self._where = region, where

    def all(self) -> None:
        """Check every part."""
        self._graphs()
        self._ends()
        for kind in self._manifest.kinds:
            self._kind(kind)
        self._numbers()

    def _fail(self, message: str) -> PackFormatError:
        return PackFormatError(f"{self._where}: {message}; rebuild or fetch the pack again")

    def _graphs(self) -> None:
        found, wanted = set(self._manifest.graphs), set(graph_names(self._manifest))
        for name in sorted(wanted - found):
            raise self._fail(f"graph {name!r} is missing")
        for name in sorted(found - wanted):
            raise self._fail(f"graph {name!r:.80} is none that a pack has")

    def _ends(self) -> None:
        """What the graphs ``embed`` and ``head`` are fed."""
        dims, labels = self._manifest.dimensions, len(self._manifest.labels)
        hidden = dims.hidden
        known = {
            "embed.positions": ("F16", (dims.max_tokens, hidden)),
            "embed.types": ("F32", (0, hidden)),
            "embed.gamma": ("F32", (hidden,)),
            "embed.beta": ("F32", (hidden,)),
            "head.pooler_w": ("F32", (hidden, hidden)),
            "head.pooler_b": ("F32", (hidden,)),
            "head.classifier_w": ("F32", (0, labels)),
            "head.classifier_b": ("F32", (labels,)),
        }
        known |= {name: ("F32", shape) for name, shape in self._steps().items()}
        for name, (dtype, shape) in known.items():
            if name in self._tensors:
                self._expect(name, dtype, shape)
        for name in self._tensors:
            if name.startswith(("embed.", "head.")) and name not in known:
                raise self._fail(f"tensor {name!r:.80} is none that a pack has")
        types = self._tensors.get("embed.types")
        if types is not None and not 2 <= types.shape[0] <= MOST_TYPES:
            raise self._fail(f"tensor 'embed.types' must have rows for 2 to {MOST_TYPES} types")

    def _steps(self) -> dict[str, tuple[int, ...]]:
        """What steps of the head are fed, of any extents; graphs are checked to fit them."""
        found: dict[str, tuple[int, ...]] = {}
        for name in (f"head.{part}" for part in STEP_PARTS):
            place = self._tensors.get(name)
            if place is not None:
                found[name] = (0, 0) if name.endswith("_w") and len(place.shape) == 2 else (0,)
                if max(place.shape, default=0) > MOST_EXTENT:
                    raise self._fail(f"tensor {name!r} has more than {MOST_EXTENT} of a kind")
        return found

    def _kind(self, kind: BlockKind) -> None:
        """What the graphs of a kind are fed, in each layer."""
        wanted = list(self._of_kind(kind))
        sides = [_side(self._manifest, kind, *side) for side in kind.side]
        for layer in self._manifest.held_layers:
            base = f"layer.{layer}.{kind.name}."
            for name, dtype, shape in wanted:
                place = self._tensors.get(base + name)
                if place is None or place.dtype != dtype or place.shape != shape:
                    self._expect(base + name, dtype, shape)
                    self._whole(base + name, kind)
            for side in sides:
                self._side(base, side)

    def _of_kind(self, kind: BlockKind) -> Iterator[_Wanted]:
        slices, hidden = self._manifest.dimensions.slices, self._manifest.dimensions.hidden
        operands = {operand.name: operand for operand in kind.operands}
        for name in (*kind.sliced, *kind.shared):
            product, _, part = name.rpartition("_")
            if name == POSITION_BIAS and kind.by_distance:
                yield self._by_distance(kind)
                continue
            operand = operands.get(product)
            if operand is None or part not in _OF_OPERANDS:
                raise self._fail(f"{kind.name}: input {name!r:.80} is none of an operand")
            columns = operand.shape[-1]
            if name in kind.shared:
                yield _Wanted(name, "F32", (columns,))
            else:
                units = slices * prod(operand.shape[:-2])
                yield _Wanted(name, "F32", (units, 1, columns))
        for name in ("bias", "gamma", "beta"):
            yield _Wanted(name, "F32", (hidden,))

    def _by_distance(self, kind: BlockKind) -> _Wanted:
        """Biases of as many distances as the first of such kinds has, in the first layer there."""
        dims, layer = self._manifest.dimensions, self._manifest.held_layers.start
        first = next(other for other in self._manifest.kinds if other.by_distance)
        place = self._tensors.get(f"layer.{layer}.{first.name}.{POSITION_BIAS}")
        count = place.shape[-1] if place is not None and place.shape else 0
        if kind.input_kind != SEQUENCE or not (count % 2 and 0 < count <= MOST_DISTANCES):
            raise self._fail(
                f"{kind.name}: {POSITION_BIAS} is for blocks that read a sequence, and has an odd "
                f"number of distances up to {MOST_DISTANCES}"
            )
        units = dims.slices * prod(kind.operands[0].shape[:-2])
        return _Wanted(POSITION_BIAS, "F32", (units, 1, count))

    def _expect(self, name: str, dtype: str, shape: tuple[int, ...]) -> None:
        """Refuse a tensor that is missing, or not of this type and shape (0: any extent)."""
        place = self._tensors.get(name)
        if place is None:
            raise self._fail(f"resident tensor {name!r} is missing")
        fits = place.dtype == dtype and len(place.shape) == len(shape)
        pairs = zip(place.shape, shape, strict=False)
        if not fits or any(want not in (0, found) or not found for found, want in pairs):
            told = [extent or "any" for extent in shape]
            raise self._fail(
                f"tensor {name!r} must be {dtype} [{', '.join(map(str, told))}], is "
                f"{place.dtype} {list(place.shape)}"
            )

    def _whole(self, name: str, kind: BlockKind) -> None:
        """Refuse a tensor that is cut to the width, and cannot be: one of no operand's columns."""
        slices = self._manifest.dimensions.slices
        sliced = name.rpartition(".")[2] in kind.sliced
        if sliced and self._tensors[name].shape[0] % slices:
            raise self._fail(f"tensor {name!r} cannot be divided into {slices} slices")

    def _side(self, base: str, side: _Side) -> None:
        name = f"{base}{side.product}_idx"
        place = self._tensors.get(name)
        if place is None or place.dtype != "I64" or len(place.shape) != 1:
            raise self._fail(f"tensor {name!r} must be a list of type I64")
        count = place.shape[0]
        good = not count
        if 0 < count <= side.channels:
            index = np.frombuffer(self._region(place.offset, place.length), "<i8").tolist()
            rises = all(map(lt, index, index[1:]))
            good = rises and index[0] >= 0 and index[-1] < side.channels
        if not good or side.channels < 0:
            raise self._fail(f"tensor {name!r} must rise within {max(0, side.channels)} channels")
        shape = tuple(count if extent == 0 else extent for extent in side.shape)
        name = f"{base}{side.product}_w"
        place = self._tensors.get(name)
        if place is None or place.dtype != "F32" or place.shape != shape:
            raise self._fail(f"tensor {name!r} must be F32 {list(shape)}")

    def _numbers(self) -> None:
        """Refuse floats that are not finite, or absurdly large."""
        resident = takewhile(lambda item: item[0] != WORDS, self._tensors.items())
        for dtype, run in groupby(resident, key=lambda item: item[1].dtype):
            usual = _USUAL.get(dtype)
            if usual is None:
                continue
            places = list(run)
            start, last = places[0][1].offset, places[-1][1]
            if usual(self._region(start, last.offset + last.length - start)):
                continue
            for name, place in places:
                if not usual(self._region(place.offset, place.length)):
                    raise self._fail(f"tensor {name!r} holds what is no finite or usual number")


def _singles(data: memoryview) -> bool:
    values = np.frombuffer(data, "<f4")
    return not len(values) or bool(values.min() >= -MOST_NUMBER and values.max() <= MOST_NUMBER)


def _halves(data: memoryview) -> bool:
    bits = np.frombuffer(data, "<u2")
    chunks = (bits[at : at + _CHUNK] for at in range(0, len(bits), _CHUNK))
    return not any(((chunk & _EXPONENT) == _EXPONENT).any() for chunk in chunks)


_USUAL = {"F32": _singles, "F16": _halves}
"""Whether all numbers of a type of floats are finite and not absurdly large."""


def _side(manifest: Manifest, kind: BlockKind, name: str, channels_per_slice: int) -> _Side:
    """What a side input must be; of an operand that the kind does not have, nothing fits."""
    operand = next((item for item in kind.operands if item.name == name), None)
    slices = manifest.dimensions.slices
    channels, shape = -1, tuple[int, ...]()
    if operand is not None:
        units, (rows, columns) = prod(operand.shape[:-2]), operand.shape[-2:]
        if operand.joined == COLUMNS and channels_per_slice == 0:
            channels, shape = rows, (slices * units, 0, columns)
        elif operand.joined == ROWS and channels_per_slice == units * rows:
            channels, shape = slices * units * rows, (0, columns)
    return _Side(name, channels, shape)
