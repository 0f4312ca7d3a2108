"""Builds a pack's tokenizer, of whichever kind.

In: an open pack. Out: a ``Tokenizer`` over the index that the pack brings along. Knows nothing of
how tokens are used.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sti.errors import PackFormatError
from sti.graphs.interfaces import Residents
from sti.pack.header import VOCABULARY
from sti.pack.pack_reader import PackReader
from sti.text.kinds import KINDS, AnyIndex
from sti.text.tokenizer import Tokenizer
from sti.text.tokenizer_spec import TokenizerSpec

MOST_VOCABULARY_BYTES = 1 << 24
"""The largest in use have a third of it."""

MOST_COPIED_BYTES = 1 << 20
"""Of a vocabulary: words are found faster in a copy, but large ones are not to be there twice."""


def pack_tokenizer(reader: PackReader) -> Tokenizer:
    """The tokenizer of a pack, which may be closed afterwards. Takes less than a
    millisecond, some more where there are hundreds of thousands of words.

    Raises:
        PackFormatError: vocabulary or index are missing, or do not fit one another or the manifest.
    """
    return checked_tokenizer(reader, where=str(reader.path))


def checked_tokenizer(source: Residents, *, where: str) -> Tokenizer:
    """The tokenizer of a manifest and resident tensors, as ``pack_tokenizer``.

    Args:
        where: names the pack in errors.
    """
    try:
        return _tokenizer(source)
    except PackFormatError as error:
        told = str(error)
        if told.startswith(where):
            raise
        raise PackFormatError(f"{where}: {told}; rebuild the pack or fetch it again") from error


def _tokenizer(source: Residents) -> Tokenizer:
    manifest, stored = source.manifest, source.resident(VOCABULARY)
    if stored.nbytes > MOST_VOCABULARY_BYTES:
        raise PackFormatError(
            f"a vocabulary of {stored.nbytes} bytes is longer than that of any pack, "
            f"{MOST_VOCABULARY_BYTES}"
        )
    copied = stored.nbytes <= MOST_COPIED_BYTES
    spec = TokenizerSpec.from_json(manifest.tokenizer)
    kind = KINDS[spec.kind]
    vocabulary = kind.indexing.vocabulary(
        stored.tobytes() if copied else memoryview(stored), stored_index(source, spec.kind)
    )
    for what, found, most in (
        ("words of the vocabulary", len(vocabulary), manifest.embeddings.rows),
        ("tokens of the tokenizer", spec.max_tokens, manifest.dimensions.max_tokens),
    ):
        if found > most:
            raise PackFormatError(f"{found} {what} are more than the {most} that the pack has")
    tables = {name: _list(source, table_name(name), dtype) for name, dtype in kind.tables.items()}
    return Tokenizer(spec, vocabulary, tables)


def table_name(name: str) -> str:
    """The tensor that holds a table of a kind of tokenizer, or an array of its index."""
    return f"tokenizer.{name}"


def stored_index(source: Residents, kind: str) -> AnyIndex:
    """The index of the vocabulary as the pack has it, unchecked but for the type.

    Args:
        kind: of tokenizer.

    Raises:
        PackFormatError: a tensor of it is missing, or is no list of unsigned 32-bit numbers.
    """
    counts, indexing = np.dtype(np.uint32), KINDS[kind].indexing
    return indexing.of_arrays(
        *(_list(source, table_name(name), counts) for name in indexing.arrays)
    )


def _list(source: Residents, name: str, dtype: np.dtype[Any]) -> NDArray[Any]:
    found = source.resident(name)
    if found.dtype != dtype or found.ndim != 1:
        kind = f"{dtype.kind.upper()}{8 * dtype.itemsize}"
        raise PackFormatError(f"tensor {name!r} must be a list of type {kind}")
    return found
