"""A pack's resident tensors as copies, so that parts of them can be taken away for a while.

In: an open pack. Out: what its graphs are made from, where scales, biases and side weights of
chosen slices are zero inside a ``with``. Sessions are bound to the copies' memory and see the
change. Knows nothing of why a slice is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sti.model.manifest import Manifest
from sti.pack.pack_reader import PackReader


class OwnResidents:
    """A pack's resident tensors; those of layers are copies that may be changed for a while.

    Args:
        reader: the open pack; must stay open.
    """

    def __init__(self, reader: PackReader) -> None:
        self._reader = reader
        self._own: dict[str, NDArray[Any]] = {}

    @property
    def manifest(self) -> Manifest:
        """The pack's."""
        return self._reader.manifest

    def resident(self, name: str) -> NDArray[Any]:
        """As the pack's; always the same array for a name."""
        if not name.startswith("layer."):
            return self._reader.resident(name)
        if name not in self._own:
            self._own[name] = self._reader.resident(name).copy()
        return self._own[name]

    def has_resident(self, name: str) -> bool:
        """As the pack's."""
        return self._reader.has_resident(name)

    def graph(self, name: str) -> bytes:
        """As the pack's."""
        return self._reader.graph(name)

    @contextmanager
    def without(self, layer: int, kind: str, absent: Sequence[int]) -> Iterator[None]:
        """Inside, what these slices of a block add beside their shards is zero, too.

        Scales, biases and side weights: with zero weights as well, a slice adds nothing to the
        block's sum and does not reach the scale of the activations, as if it were not there.
        """
        kept: list[tuple[NDArray[Any], NDArray[Any]]] = []
        try:
            if absent:
                for array, rows in self._rows(layer, kind, absent):
                    kept.append((array, array.copy()))
                    array[rows] = 0
            yield
        finally:
            for array, values in kept:
                array[:] = values

    def _rows(
        self, layer: int, name: str, absent: Sequence[int]
    ) -> Iterator[tuple[NDArray[Any], NDArray[np.bool_]]]:
        """The resident tensors that belong to slices, and which rows belong to the absent ones."""
        kind, base = self.manifest.kind(name), f"layer.{layer}.{name}"
        slices = self.manifest.dimensions.slices
        names = [*kind.sliced]
        names += [f"{side.name}_w" for side in kind.side if not side.channels_per_slice]
        for tensor in names:
            array = self.resident(f"{base}.{tensor}")
            yield array, np.isin(np.arange(len(array)) * slices // max(len(array), 1), absent)
        for side in kind.side:
            if side.channels_per_slice:
                index = self.resident(f"{base}.{side.name}_idx")
                array = self.resident(f"{base}.{side.name}_w")
                yield array, np.isin(index // side.channels_per_slice, absent)
