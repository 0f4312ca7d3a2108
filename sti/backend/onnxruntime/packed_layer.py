"""One layer of a graph whose weights ONNX Runtime packs: its nodes, and its constants in a file.

In: nodes, and constants as arrays. Out: what ONNX Runtime saved of them: initializers, and a file
with their values and packed copies. Knows nothing of plans or blocks.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from sti.backend.onnxruntime.onnx_model import (
    PREPACKED,
    Named,
    Node,
    external_data,
    external_tensor,
    plain_node,
    read_model,
    small_tensor,
)
from sti.backend.onnxruntime.session import save_prepacked
from sti.errors import BackendError, GraphError

_PACKED = "packed.bin"
LEAST = 1024
"""Bytes; smaller constants are inside the model."""
_ALIGNMENT = 64
"""Of constants in the file."""
_SIDE_WEIGHTS = "_w"
"""What names of weights beyond the int8 grid end in."""
_MATRIX = 2
"""Axes of what a product takes as it is."""


class PackedLayer:
    """What belongs to one layer; large constants are in a file already. Not thread-safe.

    Args:
        directory: where files are made, and removed by ``close``.

    Attributes:
        nodes: in their order.
        initializers: constants by name, as they were before they were packed.
    """

    def __init__(self, directory: Path) -> None:
        self.nodes: list[Node] = []
        self.initializers: dict[str, Named] = {}
        self._place = directory / "layer"
        self._place.mkdir()
        self._file = (self._place / "plain.bin").open("xb")
        self._weights: list[str] = []

    def constant(self, name: str, array: NDArray[Any]) -> str:
        """Add a constant; the name that nodes take it by."""
        if array.nbytes < LEAST:
            self.initializers[name] = small_tensor(name, array)
        else:
            offset = filled(self._file.tell(), _ALIGNMENT)
            self._file.seek(offset)
            self._file.write(np.ascontiguousarray(array).data)
            self.initializers[name] = external_tensor(name, array, file="plain.bin", offset=offset)
            if array.dtype.itemsize == 1:
                self._weights.append(name)
        if not name.endswith(_SIDE_WEIGHTS) or array.ndim > _MATRIX:
            return name
        # Packed, a product of floats adds up in another order: hidden from the packing.
        self.nodes.append(plain_node(f"{name}.plain", "Identity", (name,), f"{name}.plain"))
        return f"{name}.plain"

    def packed(self, model: bytes) -> tuple[Named, ...]:
        """The initializers of the layer's model as ONNX Runtime saved it.

        Raises:
            GraphError: it could not be saved, or not whole.
            BackendError: ONNX Runtime did not pack the weights.
        """
        self._file.close()
        source, target = self._place / "plain.onnx", self._place / "packed.onnx"
        source.write_bytes(model)
        try:
            save_prepacked(str(source), str(target), file=_PACKED, least=LEAST)
        except BackendError as error:
            raise GraphError(f"{target}: cannot be written; is storage full? {error}") from error
        found = read_model(target.read_bytes(), where="the packed graph").initializers
        self._check_saved({item.name: external_data(item) for item in found})
        return found

    def _check_saved(self, entries: Mapping[str, Mapping[str, str]]) -> None:
        """Whether ONNX Runtime wrote all that it says, and packed all weights."""
        path = self._place / _PACKED
        size = path.stat().st_size if path.exists() else 0
        for found in entries.values():
            if found and int(found["offset"]) + int(found["length"]) > size:
                raise GraphError(
                    f"{path}: was not written whole; is storage full? Free some, or set "
                    "XDG_CACHE_HOME to a directory with more"
                )
        for name in self._weights:
            if not any(key.startswith(PREPACKED) for key in entries.get(name, ())):
                raise BackendError(
                    "this ONNX Runtime does not save packed weights; install a later version"
                )

    def append_packed(self, stream: BinaryIO) -> None:
        """Copy the file of packed weights to the end of another one."""
        path = self._place / _PACKED
        if path.exists():
            with path.open("rb") as file:
                shutil.copyfileobj(file, stream, 1 << 20)

    def close(self) -> None:
        """Remove the layer's files."""
        self._file.close()
        shutil.rmtree(self._place, ignore_errors=True)


def filled(size: int, multiple: int) -> int:
    """A size filled up to a multiple."""
    return -(-size // multiple) * multiple
