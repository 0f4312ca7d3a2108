"""Verifying: all damage is found, and named by where it is."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.security_graphs import HOSTILE
from benchmarks.security_hostile_kinds import KINDS
from benchmarks.security_packs import PackParts, Tensor
from shard_tools.packing.build import build
from shard_tools.packing.options import BuildOptions
from sti.errors import PackCorruptError, PackError, PackFormatError
from sti.pack.index import INDEX
from sti.pack.pack_reader import PackReader
from sti.pack.verify import verify, verify_content
from tests.support.checkpoints import write_checkpoint
from tests.support.pack_bytes import damaged, with_manifest, with_resident


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers, four slices, two groups in a block."""
    place = tmp_path_factory.mktemp("verify")
    write_checkpoint(place / "checkpoint")
    build(place / "checkpoint", place / "pack", BuildOptions(group_bytes=512), progress=False)
    return place / "pack"


def test_a_sound_pack_verifies(pack: Path) -> None:
    calls: list[tuple[int, int]] = []
    report = verify(pack, lambda done, total: calls.append((done, total)))
    slices, planes, blocks = 4, 5, 4
    with PackReader.open(pack) as reader:
        rows = reader.manifest.embeddings.rows
        verify_content(reader)
    assert report.good
    assert report.checksums == 3 + rows + blocks * slices * (planes + 1)
    assert calls[-1] == (report.file_bytes, report.file_bytes)
    assert calls == sorted(calls)


def test_damage_is_named_by_layer_kind_group_slice_and_plane(pack: Path, tmp_path: Path) -> None:
    with PackReader.open(pack) as reader:
        group = reader.manifest.group(1, "ffn", 1)
        offset = reader.group_offset(group)
        words, row = reader.embeddings_offset, reader.manifest.embeddings.row_bytes
    start = sum(group.outlier_bytes) + 2 * sum(plane.shard_bytes for plane in group.planes[:2])
    in_plane = offset + start + group.planes[2].shard_bytes + 5
    in_list = offset + group.outlier_bytes[0] + 1
    places = (words + 3 * row + 7, words + 5 * row, words + 4 * row, in_list, in_plane)
    bad = damaged(pack, tmp_path / "bad", *places)
    report = verify(bad)
    assert [item.part for item in report.damage] == ["words", "outliers", "plane"]
    rows, listed, plane = report.damage
    assert (rows.row, rows.offset, rows.length) == (3, words + 3 * row, 3 * row)
    assert str(rows).startswith("words, from row 3 (bytes ")
    assert (listed.layer, listed.kind, listed.group, listed.slice) == (1, "ffn", 1, 3)
    slice_ = 2 + group.planes[2].order[1]
    named = (plane.layer, plane.kind, plane.group, plane.slice, plane.bits)
    assert named == (1, "ffn", 1, slice_, 4)
    assert str(plane).startswith(f"layer 1 ffn group 1 slice {slice_} plane 4 (bytes ")
    with PackReader.open(bad) as reader, pytest.raises(PackCorruptError, match="content does not"):
        verify_content(reader)


def test_padding_that_is_not_zero_is_found(pack: Path, tmp_path: Path) -> None:
    with PackReader.open(pack) as reader:
        first, last = reader.manifest.block(0, "attention")
        between = reader.group_offset(first) + first.length
        behind_block = reader.group_offset(last) + last.length
        table = reader.manifest.embeddings
        behind_words = reader.embeddings_offset + table.rows * table.row_bytes
    report = verify(damaged(pack, tmp_path / "bad", behind_words, between, behind_block))
    assert [item.part for item in report.damage] == ["padding"] * 3
    assert [item.group for item in report.damage] == [None, 0, 1]


def test_damaged_residents_are_reported_and_the_rest_is_still_checked(
    pack: Path, tmp_path: Path
) -> None:
    with PackReader.open(pack) as reader:
        place = reader.tensors()["layer.0.ffn.gamma"].offset
        block = reader.group_offset(reader.manifest.group(1, "attention", 0))
    bad = damaged(pack, tmp_path / "bad", place, block)
    assert [item.part for item in verify(bad).damage] == ["resident", "outliers"]


@pytest.mark.parametrize("name", ["outlier_bytes", "checksums", "orders", "gains"])
def test_where_the_index_is_damaged_the_rows_of_the_embedding_table_are_still_compared(
    pack: Path, tmp_path: Path, name: str
) -> None:
    with PackReader.open(pack) as reader:
        place, words = reader.tensors()[f"index.{name}"].offset, reader.embeddings_offset
        table = reader.manifest.embeddings
    after = words + table.rows * table.row_bytes
    bad = damaged(pack, tmp_path / "bad", place, words, words + 2 * table.row_bytes, after)
    found = [(item.part, item.row) for item in verify(bad).damage]
    assert found == [("resident", None), ("words", 0), ("words", 2), ("padding", None)]


def test_an_index_that_was_changed_with_its_checksum_is_found_by_its_hash(
    pack: Path, tmp_path: Path
) -> None:
    changed = with_resident(
        pack.read_bytes(), "index.gains", lambda gains: np.multiply(gains, 2, out=gains)
    )
    (tmp_path / "bad").write_bytes(changed)
    assert [item.part for item in verify(tmp_path / "bad").damage] == ["index"]
    with PackReader.open(pack) as reader:
        places = [reader.tensors()[name] for name in INDEX]
        row_0 = reader.embeddings_offset
    index, words = verify(damaged(tmp_path / "bad", tmp_path / "worse", row_0)).damage
    assert (index.part, index.offset) == ("index", min(place.offset for place in places))
    assert index.offset + index.length == max(place.offset + place.length for place in places)
    assert (words.part, words.row, words.offset) == ("words", 0, row_0)
    refused = pytest.raises(PackCorruptError, match=r"index does not match its SHA-256.*verify")
    with PackReader.open(tmp_path / "bad") as reader, refused:
        verify_content(reader)


def test_content_that_was_changed_with_its_checksums_is_found_by_its_hash(
    pack: Path, tmp_path: Path
) -> None:
    changed = with_resident(
        pack.read_bytes(), "layer.1.ffn.gamma", lambda gamma: np.multiply(gamma, 2, out=gamma)
    )
    (tmp_path / "bad").write_bytes(changed)
    assert [item.part for item in verify(tmp_path / "bad").damage] == ["content"]
    with (
        PackReader.open(tmp_path / "bad") as reader,
        pytest.raises(PackCorruptError, match="content does not match its SHA-256"),
    ):
        verify_content(reader)


def test_a_row_in_the_place_of_another_is_found(pack: Path, tmp_path: Path) -> None:
    with PackReader.open(pack) as reader:
        start, size = reader.embeddings_offset, reader.manifest.embeddings.row_bytes
    data = bytearray(pack.read_bytes())
    data[start : start + 2 * size] = (
        data[start + size : start + 2 * size] + data[start : start + size]
    )
    (tmp_path / "bad").write_bytes(data)
    (found,) = verify(tmp_path / "bad").damage
    assert (found.part, found.row, found.length) == ("words", 0, 2 * size)


def test_an_index_that_contradicts_the_file_is_no_report(pack: Path, tmp_path: Path) -> None:
    data = with_manifest(pack.read_bytes(), lambda m: m["kinds"][0].update(groups=[4]))
    (tmp_path / "bad").write_bytes(data)
    with pytest.raises(PackFormatError):
        verify(tmp_path / "bad")


@pytest.mark.parametrize("kind", ["a word of many bytes", "words not UTF-8", "graph"])
def test_what_is_refused_at_opening_does_not_verify(kind: str, pack: Path, tmp_path: Path) -> None:
    parts = PackParts(pack)
    if kind == "graph":
        raw = HOSTILE["all places"](parts.residents["graph.embed"].data, Random(0))
        parts.residents["graph.embed"] = Tensor("U8", (len(raw),), raw)
    else:
        KINDS[kind].harm(parts, Random(0))
    (tmp_path / "bad").write_bytes(parts.sealed())
    try:
        noticed = not verify(tmp_path / "bad").good
    except PackFormatError as error:
        noticed = str(tmp_path / "bad") in str(error)
    assert noticed


def test_a_tokenizer_that_is_refused_at_opening_does_not_verify(
    pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sti.text.vocabulary_index.LONGEST_WORD", 2)
    with pytest.raises(PackFormatError, match=f"{pack}: tokenizer: a word has more than 2 bytes"):
        verify(pack)


@settings(max_examples=150)
@given(data=st.data())
def test_no_flipped_bit_goes_unnoticed(
    pack: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    good = pack.read_bytes()
    offset = data.draw(st.one_of(st.integers(0, 8191), st.integers(0, len(good) - 1)))
    bit = data.draw(st.integers(0, 7))
    changed = bytearray(good)
    changed[offset] ^= 1 << bit
    path = tmp_path_factory.getbasetemp() / "flipped"
    path.write_bytes(changed)
    try:
        noticed = not verify(path).good
    except PackError:
        noticed = True
    assert noticed
