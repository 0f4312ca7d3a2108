"""From tokens to the hidden states before the first block.

In: encoded texts, and where rows of the token embedding table are read from. Out: one state of the
back end for each group of sentences. The row of each distinct token is read once per batch. Rows
are decoded to where their tokens are. Knows nothing of blocks, lanes or what tokens mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from sti.arrays import ByteArray, Float32Array, Int64Array
from sti.backend.interface import Backend, SentenceState
from sti.codec.word_rows import decode_rows
from sti.errors import PackCorruptError
from sti.model.manifest import EmbeddingTable
from sti.text.batching import SentenceGroup
from sti.text.encoding import Encoding

_ROWS_AT_ONCE = 64
"""So that copies of rows as they are stored stay small."""

ReadRows = Callable[[Int64Array, ByteArray], None]
"""Fills ``[n, row_bytes]`` with ``n`` ascending, distinct rows of the table, as they are stored."""


class TokenRows(NamedTuple):
    """The rows of all tokens of some texts. Belongs to the ``Embedder`` until it reads the next."""

    ids: Int64Array
    """``[n]``: which rows of the table."""
    raw: ByteArray
    """``[n, row_bytes]``, as they are stored."""
    places: Int64Array
    """Index of the row of each token, text after text."""


class Embedder:
    """Embeds texts; keeps the memory that this takes for later ones. Not thread-safe.

    Args:
        table: how rows are stored.
        read_rows: reads them.
        backend: what embeds.
        where: name of the pack, for messages.
        check: whether every row is compared with its checksum.
    """

    def __init__(
        self,
        table: EmbeddingTable,
        read_rows: ReadRows,
        backend: Backend,
        *,
        where: str,
        check: bool = True,
    ) -> None:
        self._table = table
        self._read_rows = read_rows
        self._backend = backend
        self._where, self._check = where, check
        self._raw: ByteArray = np.empty((0, 0), dtype=np.uint8)

    def read(self, encodings: Sequence[Encoding]) -> TokenRows:
        """Read the rows of all tokens.

        Raises:
            What ``read_rows`` raises.
        """
        tokens = np.concatenate([encoding.ids for encoding in encodings])
        used, places = np.unique(tokens, return_inverse=True)
        self._reserve(len(used))
        raw = self._raw[: len(used)]
        self._read_rows(used, raw)
        return TokenRows(used, raw, places)

    def start(
        self,
        encodings: Sequence[Encoding],
        groups: Sequence[SentenceGroup],
        rows: TokenRows,
        *,
        reuse: bool = True,
    ) -> list[SentenceState]:
        """The state of each group, embedded.

        Args:
            encodings: the texts.
            groups: members of a group are indices of them.
            rows: what ``read`` gave for the same texts.
            reuse: whether hidden states lie in memory that the next ``start`` takes over.

        Raises:
            PackCorruptError: a row does not match its checksum.
            BackendError: computing failed.
        """
        ends = np.cumsum([len(encoding.ids) for encoding in encodings])
        shapes = [(len(group.members), group.tokens) for group in groups]
        largest = max(shapes, key=lambda shape: shape[0] * shape[1])
        room = self._backend.embedding_buffer(*largest)  # now, so that it does not grow meanwhile
        if self._check:
            self._check_rows(rows, room.reshape(-1, self._table.hidden)[:_ROWS_AT_ONCE])
        states = []
        for number, (group, shape) in enumerate(zip(groups, shapes, strict=True)):
            # Padding takes any row: it is masked.
            index, types = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
            lengths = []
            for line, member in enumerate(group.members):
                length = len(encodings[member].ids)
                lengths.append(length)
                index[line, :length] = rows.places[ends[member] - length : ends[member]]
                types[line, :length] = encodings[member].type_ids
            embeddings = self._backend.embedding_buffer(*shape)
            self._decode(index.reshape(-1), rows, embeddings.reshape(-1, self._table.hidden))
            place = number if reuse else None
            states.append(self._backend.start(embeddings, types, lengths, place=place))
        return states

    def _check_rows(self, rows: TokenRows, room: Float32Array) -> None:
        """Compare all rows with their checksums, before anything is computed with one.

        Args:
            room: ``[n, hidden]``, overwritten.
        """
        for first in range(0, len(rows.raw), len(room)):
            some = slice(first, first + len(room))
            raw = rows.raw[some]
            bad = decode_rows(raw, rows.ids[some], self._table.group, room[: len(raw)])
            if bad is not None:
                raise PackCorruptError(
                    f"{self._where}: token embedding {rows.ids[first + bad]}: checksum does not "
                    "match; the pack is damaged, fetch it again (`sti-shard verify` lists all "
                    "damage)"
                )

    def _decode(self, index: Int64Array, rows: TokenRows, out: Float32Array) -> None:
        """Decode rows to where their tokens are.

        Args:
            index: ``[T]``, of the row of each token.
            out: ``[T, hidden]``, overwritten.
        """
        for first in range(0, len(index), _ROWS_AT_ONCE):
            some = slice(first, first + _ROWS_AT_ONCE)
            raw, ids = rows.raw[index[some]], rows.ids[index[some]]
            decode_rows(raw, ids, self._table.group, out[some], check=False)

    def close(self) -> None:
        """Let go of the memory. Idempotent."""
        self._raw = np.empty((0, 0), dtype=np.uint8)

    def _reserve(self, count: int) -> None:
        """Memory for ``count`` rows as they are stored; kept for later texts."""
        if len(self._raw) < count:
            self._raw = np.empty((count, self._table.row_bytes), dtype=np.uint8)
