"""Whether a pack was made of a checkpoint.

In: an open pack, a checkpoint's ``Source``. Out: nothing, or an error that names the first thing
that differs. A pack keeps biases, norms and the head as they are in the checkpoint, so these tell
models of one shape apart. Matrices are not compared: that is what comparing answers is for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shard_tools.packing.source import Source
from sti.arrays import Float32Array
from sti.codec.word_rows import decode_rows
from sti.errors import InputError
from sti.pack.header import VOCABULARY
from sti.pack.pack_reader import PackReader

_ROWS = 64
"""Token embeddings that are compared, spread over the table."""
_LEAST_COSINE = 0.9
"""Of token embeddings at 4 bits to their own: .99 and more."""


def check_own(
    reader: PackReader, source: Source, residents: Mapping[str, NDArray[Any]], where: Path
) -> None:
    """Refuse a pack of another checkpoint.

    Args:
        residents: of the checkpoint's model, by the names that they have in the pack.
        where: the checkpoint, for messages.

    Raises:
        InputError: it is of another; names what differs.
        StorageError: reading failed.
    """
    for what in _differences(reader, source, residents):
        raise InputError(
            f"{reader.path}: is not a pack of {where}: {what}; name the checkpoint that it was "
            "built from, or build it again"
        )


def _differences(
    reader: PackReader, source: Source, residents: Mapping[str, NDArray[Any]]
) -> Iterator[str]:
    manifest, model = reader.manifest, source.model
    sizes = manifest.dimensions
    pairs = {
        "architecture": (manifest.architecture, model.architecture),
        "task": (manifest.task, model.task),
        "layers": (sizes.layers, model.layers),
        "width": (sizes.hidden, model.hidden),
        "words": (manifest.embeddings.rows, model.vocabulary),
        "labels": (tuple(manifest.labels), tuple(model.labels)),
        "activation": (manifest.activation or "none", model.activation or "none"),
    }
    for name, (own, other) in pairs.items():
        if own != other:
            yield f"{name} {_shown(own)}, not {_shown(other)}"
    if dict(manifest.tokenizer) != source.tokenizer.to_json():
        yield "another tokenizer"
    if manifest.prompts != source.prompts:
        yield "other prompts"
    if reader.resident(VOCABULARY).tobytes() != source.vocabulary:
        yield "another vocabulary"
    yield from _other_tensors(reader, residents)
    if not _same_words(reader, source):
        yield "token embeddings differ"
    for layer in sorted({0, model.layers // 2, model.layers - 1}):
        for kind in model.kinds:
            vectors = model.block(layer, kind.name).vectors
            named = {f"layer.{layer}.{kind.name}.{name}": vectors[name] for name in vectors}
            yield from _other_tensors(reader, named)


def _other_tensors(reader: PackReader, expected: Mapping[str, NDArray[Any]]) -> Iterator[str]:
    """Tensors of a checkpoint that the pack has not, or not so."""
    for name, values in expected.items():
        own = reader.resident(name) if reader.has_resident(name) else None
        if own is None or own.shape != values.shape or not np.array_equal(own, values):
            yield f"tensor {name} differs"


def _same_words(reader: PackReader, source: Source) -> bool:
    """Whether a sample of the token embeddings is the checkpoint's, as far as 4 bits can tell."""
    table = reader.manifest.embeddings
    step = max(1, table.rows // _ROWS)
    numbers = np.arange(0, table.rows, step, dtype=np.int64)
    own: Float32Array = np.empty((len(numbers), reader.manifest.dimensions.hidden), np.float32)
    raw = np.stack(
        [
            np.frombuffer(
                reader.read(reader.embeddings_offset + number * table.row_bytes, table.row_bytes),
                np.uint8,
            )
            for number in numbers.tolist()
        ]
    )
    if decode_rows(raw, numbers, table.group, own) is not None:
        return False
    rows = [source.model.token_rows(number, number + 1)[0] for number in numbers.tolist()]
    other = np.stack(rows)
    norms = np.linalg.norm(own, axis=1) * np.linalg.norm(other, axis=1)
    cosines = np.einsum("nd,nd->n", own, other)[norms > 0] / norms[norms > 0]
    return not len(cosines) or float(np.median(cosines)) > _LEAST_COSINE


def _shown(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
