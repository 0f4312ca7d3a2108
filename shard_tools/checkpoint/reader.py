"""A Hugging Face model directory in float, read one tensor at a time.

In: a directory with ``config.json`` and ``model.safetensors``, or several such files with an
index. Out: its JSON files and single tensors as float32. Tensors are read rather than mapped, so
that a build never has the whole checkpoint in memory. Knows nothing of architectures:
``shard_tools.architectures`` knows what names and shapes mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from shard_tools.checkpoint.locate import INDEX, SINGLE, locate, no_config, no_weights
from sti.errors import CheckpointError, StorageError
from sti.json_fields import JsonFields
from sti.pack.safetensors_table import LENGTH_BYTES, TensorInfo, header_bytes, parse_table
from sti.storage.json_input import JsonLimits, parse_json
from sti.storage.lfs_pointers import lfs_words
from sti.storage.plain_files import read_plain, regular

DOCUMENT_LIMITS = JsonLimits(1 << 26, 1 << 20, 32)
"""Of a JSON file: a tokenizer of nearly a million words, or of 300,000 pieces with numbers."""
_TABLE_LIMITS = JsonLimits(1 << 24, 1 << 18, 8)
"""Of a tensor file's header: some 10 values a tensor."""
FLOATS = ("F32", "F16", "BF16")


class Checkpoint:
    """An open checkpoint. Not thread-safe; close it, or use it as a context manager.

    Attributes:
        directory: the checkpoint's directory; inside of a hub's cache folder, the snapshot's.
        config: ``config.json``.
        tensor_bytes: bytes of all tensors.
    """

    def __init__(self, directory: Path) -> None:
        """Read the configuration and the tables of the tensor files.

        Raises:
            CheckpointError: a file is missing or malformed; names it.
            StorageError: a file cannot be read.
        """
        self.directory = directory = locate(directory)
        self._files: dict[str, BinaryIO] = {}
        self._places: dict[str, tuple[BinaryIO, str, TensorInfo]] = {}
        self._was_read: set[str] = set()
        self._modules: dict[str, Checkpoint] = {}
        config = self.json("config.json")
        if config is None:
            raise no_config(self.directory)
        if not isinstance(config, dict):
            raise CheckpointError(f"{directory / 'config.json'}: expected a JSON object")
        self.config: Mapping[str, Any] = config
        try:
            self._open_tensors()
        except BaseException:
            self.close()
            raise
        self.tensor_bytes = sum(place.length for _, _, place in self._places.values())

    def _open_tensors(self) -> None:
        if (self.directory / SINGLE).exists():
            self._add(SINGLE)
            return
        index = self.json(INDEX)
        if index is None:
            raise no_weights(self.directory)
        where = str(self.directory / INDEX)
        fields = JsonFields(index, where=where, error=CheckpointError).object("weight_map")
        weights = {name: fields.text(name) for name in fields.keys()}
        for file in sorted(set(weights.values())):
            if Path(file).name != file or not (self.directory / file).exists():
                raise CheckpointError(f"{where}: names {file!r}, which is not in the directory")
            self._add(file)
        for name, file in weights.items():
            if name not in self._places:
                raise CheckpointError(f"{where}: tensor {name!r} is not in {file}")

    def _add(self, file: str) -> None:
        """Open one tensor file and add its tensors."""
        path = self.directory / file
        where = str(path)
        try:
            stream = open(path, "rb", buffering=0, opener=regular)  # noqa: SIM115 - close() does
            self._files[file] = stream
            size = stream.seek(0, 2)
            stream.seek(0)
            length = header_bytes(
                stream.read(LENGTH_BYTES), size, where=where, error=CheckpointError
            )
            if length > _TABLE_LIMITS.most_bytes:
                raise CheckpointError(
                    f"{path}: a header of {length} bytes; {_TABLE_LIMITS.most_bytes} may be"
                )
            raw = stream.read(length)
        except OSError as error:
            raise StorageError(f"{path}: cannot be read: {error.strerror}") from error
        table = parse_table(raw, _TABLE_LIMITS, where=where, error=CheckpointError)
        if table.end != size:
            raise CheckpointError(
                f"{path}: its tensors end at byte {table.end}, the file at {size}; fetch it again"
            )
        for name, place in table.tensors.items():
            if name in self._places:
                raise CheckpointError(f"{path}: tensor {name!r} is also in another file")
            self._places[name] = (stream, where, place)

    def json(self, relative: str) -> Any:
        """A JSON file of the checkpoint, parsed; None where there is none.

        Raises:
            CheckpointError: it is not valid JSON.
            StorageError: it cannot be read.
        """
        path = self.directory / relative
        raw = b""
        try:
            raw = read_plain(path, DOCUMENT_LIMITS.most_bytes)
            return parse_json(raw, DOCUMENT_LIMITS)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(f"{path}: cannot be read: {error.strerror}") from error
        except ValueError as error:
            words = lfs_words(raw) or f"not valid JSON: {error}"
            raise CheckpointError(f"{path}: {words}") from error

    def files(self) -> tuple[Path, ...]:
        """The files of the checkpoint that hold tensors, those of opened modules with them."""
        own = tuple(self.directory / file for file in self._files)
        return own + tuple(file for module in self._modules.values() for file in module.files())

    def module(self, folder: str) -> Checkpoint:
        """A folder inside, which has a configuration and tensors of its own; closed with this.

        Raises as the constructor.
        """
        if folder not in self._modules:
            self._modules[folder] = Checkpoint(self.directory / folder)
        return self._modules[folder]

    def names(self) -> frozenset[str]:
        """The names of all tensors."""
        return frozenset(self._places)

    def unread(self) -> frozenset[str]:
        """The names of the tensors that nobody has read so far; in modules, behind the folder's."""
        inside = (
            f"{folder}/{name}"
            for folder, module in self._modules.items()
            for name in module.unread()
        )
        return (self.names() - self._was_read).union(inside)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor.

        Raises:
            CheckpointError: there is no such tensor.
        """
        return self._place(name)[2].shape

    def tensor(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """A tensor as a new, writable float32 array.

        Args:
            name: the tensor.
            shape: the shape it must have.

        Raises:
            CheckpointError: it is missing, of another shape or type, or not finite; names it.
            StorageError: the file cannot be read.
        """
        stream, where, place = self._place(name)
        if place.shape != shape:
            raise CheckpointError(
                f"{where}: tensor {name!r} has shape {list(place.shape)}, expected {list(shape)} "
                "according to config.json"
            )
        return self._read(name, stream, where, place.dtype, place.offset, shape)

    def rows(self, name: str, start: int, stop: int) -> NDArray[np.float32]:
        """Rows ``start`` to ``stop`` of a matrix, new float32 ``[stop - start, width]``.

        Raises as ``tensor``, but does not check the shape.
        """
        stream, where, place = self._place(name)
        count, width = place.shape
        row_bytes = place.length // count
        offset = place.offset + start * row_bytes
        return self._read(name, stream, where, place.dtype, offset, (stop - start, width))

    def _place(self, name: str) -> tuple[BinaryIO, str, TensorInfo]:
        try:
            return self._places[name]
        except KeyError:
            raise CheckpointError(f"{self.directory}: tensor {name!r} is missing") from None

    def _read(
        self,
        name: str,
        stream: BinaryIO,
        where: str,
        dtype: str,
        offset: int,
        shape: tuple[int, ...],
    ) -> NDArray[np.float32]:
        self._was_read.add(name)
        if dtype not in FLOATS:
            raise CheckpointError(
                f"{where}: tensor {name!r} is of type {dtype}; supported are {', '.join(FLOATS)}"
            )
        raw = np.empty(shape, dtype={"F32": "<f4", "F16": "<f2", "BF16": "<u2"}[dtype])
        view = memoryview(raw.reshape(-1).view(np.uint8))
        try:
            stream.seek(offset)
            done = 0
            while done < len(view):
                got = stream.readinto(view[done:])  # type: ignore[attr-defined]  # not in BinaryIO
                if not got:
                    raise CheckpointError(f"{where}: ends inside tensor {name!r}; fetch it again")
                done += got
        except OSError as error:
            raise StorageError(f"{where}: cannot be read: {error.strerror}") from error
        values = _widened(raw, dtype)
        finite = np.isfinite(values)
        if not finite.all():
            bad = values.size - int(np.count_nonzero(finite))
            raise CheckpointError(
                f"{where}: tensor {name!r} has {bad} values that are NaN or infinite; "
                "export the checkpoint again"
            )
        return values

    def close(self) -> None:
        """Close the files. Idempotent."""
        for module in self._modules.values():
            module.close()
        for stream in self._files.values():
            stream.close()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _widened(raw: NDArray[Any], dtype: str) -> NDArray[np.float32]:
    """float32 from float32, float16 or bfloat16, which is the upper half of a float32."""
    if dtype == "BF16":
        wide = raw.astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)
    return raw.astype(np.float32, copy=False)
