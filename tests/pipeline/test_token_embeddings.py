"""Texts to the states that blocks start from: rows are read once, and go where their tokens are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from sti.arrays import ByteArray, Float32Array, Int64Array
from sti.codec.word_rows import decode_rows
from sti.errors import PackCorruptError
from sti.pack.pack_reader import PackReader
from sti.pipeline.token_embeddings import Embedder
from sti.text.batching import group_by_length
from sti.text.encoding import Alignment, Encoding
from tests.support.numpy_backend import NumpyBackend, NumpyState
from tests.support.packs import tiny_pack

TEXTS = ([2, 9, 5, 3], [2, 5, 3], [2, 9, 9, 7, 3], [2, 11, 3])


class Watched(NumpyBackend):
    """Keeps what it is asked to start with."""

    def __init__(self, reader: PackReader) -> None:
        super().__init__(reader)
        self.started: list[tuple[Float32Array, Int64Array, list[int], int | None]] = []

    def start(
        self,
        embeddings: Float32Array,
        types: Int64Array,
        lengths: Sequence[int],
        *,
        place: int | None = None,
    ) -> NumpyState:
        self.started.append((embeddings.copy(), types, list(lengths), place))
        return super().start(embeddings, types, lengths, place=place)


@pytest.fixture(scope="module")
def reader() -> Iterator[PackReader]:
    with PackReader.open(tiny_pack()) as opened:
        yield opened


def encoding(ids: Sequence[int]) -> Encoding:
    types = np.arange(len(ids)) % 2
    return Encoding(np.array(ids), types.astype(np.int64), False, Alignment(list))


def table_of(reader: PackReader) -> ByteArray:
    table = reader.manifest.embeddings
    found = np.fromfile(reader.path, dtype=np.uint8, offset=reader.embeddings_offset)
    return found[: table.rows * table.row_bytes].reshape(table.rows, table.row_bytes)


@pytest.mark.parametrize("reuse", [True, False])
def test_every_token_gets_its_row_which_is_read_once(reader: PackReader, reuse: bool) -> None:
    raw, backend, asked = table_of(reader), Watched(reader), []

    def read_rows(rows: Int64Array, out: ByteArray) -> None:
        asked.append(rows.tolist())
        out[:] = raw[rows]

    encodings = [encoding(ids) for ids in TEXTS]
    groups = group_by_length([len(ids) for ids in TEXTS])
    embedder = Embedder(reader.manifest.embeddings, read_rows, backend, where="pack")
    rows = embedder.read(encodings)
    states = embedder.start(encodings, groups, rows, reuse=reuse)
    assert asked == [[2, 3, 5, 7, 9, 11]]
    assert rows.raw.nbytes == 6 * reader.manifest.embeddings.row_bytes
    assert len(states) == len(groups) == len(backend.started)
    expected = np.empty((len(raw), reader.manifest.dimensions.hidden), dtype=np.float32)
    table = reader.manifest.embeddings
    assert decode_rows(raw, np.arange(len(raw)), table.group, expected) is None
    for number, (group, found) in enumerate(zip(groups, backend.started, strict=True)):
        embeddings, types, lengths, place = found
        assert place == (number if reuse else None)
        assert embeddings.shape[1] == group.tokens
        assert lengths == [len(TEXTS[member]) for member in group.members]
        for line, member in enumerate(group.members):
            ids = TEXTS[member]
            np.testing.assert_array_equal(embeddings[line, : len(ids)], expected[ids])
            assert types[line, : len(ids)].tolist() == [place % 2 for place in range(len(ids))]


def test_later_texts_are_embedded_as_if_they_were_the_first(reader: PackReader) -> None:
    raw = table_of(reader)

    def read_rows(rows: Int64Array, out: ByteArray) -> None:
        out[:] = raw[rows]

    def embedded(embedder: Embedder, texts: Sequence[Sequence[int]]) -> list[Float32Array]:
        encodings = [encoding(ids) for ids in texts]
        groups = group_by_length([len(ids) for ids in texts])
        states = embedder.start(encodings, groups, embedder.read(encodings))
        return [state.hidden() for state in states]

    table = reader.manifest.embeddings
    expected = embedded(Embedder(table, read_rows, NumpyBackend(reader), where="pack"), TEXTS[:1])
    used = Embedder(table, read_rows, NumpyBackend(reader), where="pack")
    embedded(used, TEXTS)
    np.testing.assert_array_equal(embedded(used, TEXTS[:1])[0], expected[0])
    used.close()
    np.testing.assert_array_equal(embedded(used, TEXTS[:1])[0], expected[0])


def test_a_row_that_is_not_its_own_is_refused_with_its_token(reader: PackReader) -> None:
    raw = table_of(reader).copy()
    raw[[5, 9]] = raw[[9, 5]]

    def read_rows(rows: Int64Array, out: ByteArray) -> None:
        out[:] = raw[rows]

    encodings, groups = [encoding(TEXTS[0])], group_by_length([len(TEXTS[0])])
    table, backend = reader.manifest.embeddings, NumpyBackend(reader)
    embedder = Embedder(table, read_rows, backend, where="my pack")
    with pytest.raises(PackCorruptError, match="my pack: token embedding 5: checksum"):
        embedder.start(encodings, groups, embedder.read(encodings))
    careless = Embedder(table, read_rows, backend, where="my pack", check=False)
    assert careless.start(encodings, groups, careless.read(encodings))
