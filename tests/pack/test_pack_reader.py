"""Reading packs: what is there, and a clear error for whatever is wrong with a file."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from shard_tools.packing.build import build
from shard_tools.packing.options import BuildOptions
from shard_tools.quantization.embedding_table import encode_rows, group_size, row_bytes
from sti.errors import PackCorruptError, PackError, PackFormatError
from sti.model.manifest import ALIGNMENT, EmbeddingTable
from sti.pack.embedding_table import decode_rows
from sti.pack.header import HEADER_START, header_checksum
from sti.pack.manifest_reader import read_manifest
from sti.pack.pack_reader import PackReader
from sti.pack.verify import verify
from tests.support.checkpoints import write_checkpoint


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pack with side inputs."""
    place = tmp_path_factory.mktemp("pack")
    write_checkpoint(place / "checkpoint")
    build(place / "checkpoint", place / "tiny.sti.safetensors", BuildOptions())
    return place / "tiny.sti.safetensors"


def with_header(data: bytes, header: bytes) -> bytes:
    """The pack with another header of the same length, its checksum made good."""
    start, space = len(HEADER_START), int.from_bytes(data[:8], "little")
    assert len(header) <= space
    header = header.ljust(space)
    digits = b"%08x" % header_checksum(header)
    return data[:8] + header[:start] + digits + header[start + 8 :] + data[8 + space :]


def with_table(data: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    """The pack with a changed tensor table (manifest included, as text)."""
    space = int.from_bytes(data[:8], "little")
    table = json.loads(data[8 : 8 + space])
    change(table)
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False)
    return with_header(data, text.encode())


def with_manifest(data: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    """The pack with a changed manifest."""

    def inside(table: dict[str, Any]) -> None:
        manifest = json.loads(table["__metadata__"]["sti"])
        change(manifest)
        table["__metadata__"]["sti"] = json.dumps(manifest, separators=(",", ":"))

    return with_table(data, inside)


def test_the_reference_library_opens_a_pack(pack: Path) -> None:
    with safe_open(pack, "np") as reference, PackReader.open(pack) as reader:
        assert reference.metadata()["format"] == "sti"
        assert read_manifest(reference.metadata()["sti"], where="") == reader.manifest
        assert set(reference.keys()) == set(reader.tensors())
        for name, place in reader.tensors().items():
            assert reference.get_slice(name).get_shape() == list(place.shape)
            if reader.has_resident(name):
                np.testing.assert_array_equal(reader.resident(name), reference.get_tensor(name))


def test_words_and_blocks_are_aligned_and_follow_one_another(pack: Path) -> None:
    with PackReader.open(pack) as reader:
        offsets = [reader.embeddings_offset]
        offsets += [reader.block_offset(block.tensor) for block in reader.manifest.blocks]
        assert all(offset % ALIGNMENT == 0 for offset in offsets)
        lengths = [end - start for start, end in pairwise(offsets)]
        words = reader.manifest.embeddings
        used = [words.rows * words.row_bytes]
        used += [block.length for block in reader.manifest.blocks]
        assert lengths == [-(-length // ALIGNMENT) * ALIGNMENT for length in used[:-1]]
        assert offsets[-1] + -(-used[-1] // ALIGNMENT) * ALIGNMENT == reader.file_bytes


class CountedFile(io.FileIO):
    """A file that notes what is read of it."""

    reads: list[tuple[int, int]]

    def read(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        self.reads.append((self.tell(), size))
        return super().read(size) or b""


def with_padding(data: bytes, more: int) -> bytes:
    """The pack with ``more`` spaces behind its header."""
    space = int.from_bytes(data[:8], "little")
    header, rest = data[8 : 8 + space], data[8 + space :]
    return with_header((space + more).to_bytes(8, "little") + header + b" " * more + rest, header)


def test_opening_takes_three_reads_at_most_and_leaves_words_and_blocks_alone(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, padding = tmp_path / "pack", 1 << 20  # the header is longer than the first read
    path.write_bytes(with_padding(pack.read_bytes(), padding))
    CountedFile.reads = []
    monkeypatch.setattr("sti.pack.pack_reader.open_file", CountedFile)
    with PackReader.open(path) as reader:
        assert 0 < len(CountedFile.reads) <= 3
        last = max(offset + length for offset, length in CountedFile.reads)
        assert padding < last <= reader.embeddings_offset


def test_resident_tensors_cannot_be_written(pack: Path) -> None:
    with PackReader.open(pack) as reader:
        scale = reader.resident("layer.0.ffn.up_scale")
        assert scale.dtype == np.float32
        with pytest.raises(ValueError, match="read-only"):
            scale[0] = 1


def test_what_is_not_there_is_named(pack: Path) -> None:
    with PackReader.open(pack) as reader:
        for name in ("nothing", "words", "block.0.ffn"):
            assert not reader.has_resident(name)
            with pytest.raises(PackFormatError, match=name):
                reader.resident(name)
        for name in ("block.9.ffn", "words", "embed.gamma"):
            with pytest.raises(PackFormatError, match=name):
                reader.block_offset(name)
    with pytest.raises(PackFormatError, match="closed"):
        reader.resident("embed.gamma")


def test_views_outlive_the_reader(pack: Path) -> None:
    with PackReader.open(pack) as reader:
        gamma = reader.resident("embed.gamma")
        expected = gamma.copy()
    np.testing.assert_array_equal(gamma, expected)


def test_a_sound_pack_verifies(pack: Path) -> None:
    calls: list[tuple[int, int]] = []
    report = verify(pack, lambda done, total: calls.append((done, total)))
    slices, planes, blocks = 4, 5, 4
    assert report.good
    assert report.checksums == 2 + blocks * slices * (planes + 1)
    assert calls[-1] == (report.file_bytes, report.file_bytes)
    assert calls == sorted(calls)


def damaged(pack: Path, place: Path, *offsets: int) -> Path:
    data = bytearray(pack.read_bytes())
    for offset in offsets:
        data[offset] ^= 0x40
    place.write_bytes(data)
    return place


def test_damage_is_named_by_layer_kind_slice_and_plane(pack: Path, tmp_path: Path) -> None:
    with PackReader.open(pack) as reader:
        block = reader.manifest.blocks[3]
        offset = reader.block_offset(block.tensor)
        words = reader.embeddings_offset
    at = sum(block.outlier_bytes) + 4 * (block.planes[0].shard_bytes + block.planes[1].shard_bytes)
    in_plane = offset + at + 2 * block.planes[2].shard_bytes + 5
    in_list = offset + block.outlier_bytes[0] + 1
    report = verify(damaged(pack, tmp_path / "bad", words + 7, in_list, in_plane))
    assert [fault.part for fault in report.faults] == ["words", "outliers", "plane"]
    listed, plane = report.faults[1:]
    assert (listed.layer, listed.kind, listed.slice) == (1, "ffn", 1)
    slice_ = block.planes[2].order[2]
    assert (plane.layer, plane.kind, plane.slice, plane.bits) == (1, "ffn", slice_, 4)
    assert str(plane).startswith(f"layer 1 ffn slice {slice_} plane 4 (bytes ")
    assert not report.good


def test_padding_that_is_not_zero_is_found(pack: Path, tmp_path: Path) -> None:
    with PackReader.open(pack) as reader:
        block = reader.manifest.blocks[0]
        behind_block = reader.block_offset(block.tensor) + block.length
        table = reader.manifest.embeddings
        behind_words = reader.embeddings_offset + table.rows * table.row_bytes
    report = verify(damaged(pack, tmp_path / "bad", behind_words, behind_block))
    assert [fault.part for fault in report.faults] == ["padding", "padding"]


def test_damaged_residents_stop_opening_and_are_reported(pack: Path, tmp_path: Path) -> None:
    with PackReader.open(pack) as reader:
        offset = reader.embeddings_offset - 3
    bad = damaged(pack, tmp_path / "bad", offset)
    with pytest.raises(PackCorruptError, match=r"resident tensors .* do not match"):
        PackReader.open(bad)
    assert [fault.part for fault in verify(bad).faults] == ["resident"]


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


@settings(max_examples=80)
@given(data=st.data())
def test_a_truncated_or_extended_pack_is_refused(
    pack: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    good = pack.read_bytes()
    size = data.draw(st.one_of(st.integers(0, 40), st.integers(0, len(good) - 1)))
    extra = data.draw(st.binary(min_size=1, max_size=9))
    path = tmp_path_factory.getbasetemp() / "cut"
    for content in (good[:size], good + extra):
        path.write_bytes(content)
        with pytest.raises(PackError, match="cut: "):
            PackReader.open(path)


@settings(max_examples=80)
@given(content=st.binary(max_size=200), length=st.integers(0, 2**64 - 1))
def test_arbitrary_bytes_are_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, length: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "noise"
    for data in (content, length.to_bytes(8, "little") + content):
        path.write_bytes(data)
        with pytest.raises(PackFormatError):
            PackReader.open(path)


def test_a_truncated_pack_says_so(pack: Path, tmp_path: Path) -> None:
    good = pack.read_bytes()
    (tmp_path / "cut").write_bytes(good[:-1])
    with pytest.raises(PackCorruptError, match=r"has \d+ bytes, .*truncated"):
        PackReader.open(tmp_path / "cut")


def test_a_file_that_is_no_pack_says_so(pack: Path, tmp_path: Path) -> None:
    checkpoint = pack.parent / "checkpoint" / "model.safetensors"
    with pytest.raises(PackFormatError, match=r"not a pack .*sti-shard build"):
        PackReader.open(checkpoint)
    (tmp_path / "text").write_text("hello " * 100)
    with pytest.raises(PackFormatError, match="not a safetensors file"):
        PackReader.open(tmp_path / "text")


def test_a_missing_file_or_a_directory_is_the_callers_mistake(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(PackError, match="cannot be opened") as caught:
            PackReader.open(path)
        assert caught.value.exit_code == 2


def test_an_unknown_version_asks_for_an_upgrade(pack: Path, tmp_path: Path) -> None:
    data = with_manifest(pack.read_bytes(), lambda manifest: manifest.update(format=99))
    (tmp_path / "new").write_bytes(data)
    with pytest.raises(PackFormatError, match=r"format 99 is unknown.*upgrade"):
        PackReader.open(tmp_path / "new")


def swap(table: dict[str, Any], first: str, second: str) -> None:
    """Exchange the places of two tensors of one size."""
    spans = [table[name]["data_offsets"] for name in (first, second)]
    table[second]["data_offsets"], table[first]["data_offsets"] = spans


def rename(table: dict[str, Any], old: str, new: str) -> None:
    table[new] = table.pop(old)


TABLE_CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "hole": (lambda t: t["words"]["data_offsets"].__setitem__(0, 0), "words"),
    "shape": (lambda t: t["embed.gamma"].update(shape=[33]), "embed.gamma.*does not fill"),
    "negative shape": (lambda t: t["embed.gamma"].update(shape=[-32]), "embed.gamma.*malformed"),
    "huge shape": (lambda t: t["embed.gamma"].update(shape=[2**62] * 9), "embed.gamma.*fill"),
    "float shape": (lambda t: t["embed.gamma"].update(shape=[32.0]), "embed.gamma.*malformed"),
    "no offsets": (lambda t: t["embed.gamma"].pop("data_offsets"), "embed.gamma.*malformed"),
    "dtype": (lambda t: t["embed.gamma"].update(dtype="F33"), "embed.gamma.*unknown type"),
    "resident dtype": (lambda t: t["embed.gamma"].update(dtype="I32"), "embed.gamma.*type I32"),
    "words dtype": (lambda t: t["words"].update(dtype="I8"), "'words' must be of type U8"),
    "entry": (lambda t: t.update({"embed.gamma": 3}), "embed.gamma.*not an object"),
    "words gone": (lambda t: rename(t, "words", "wards"), "'words' is missing"),
    "block gone": (lambda t: rename(t, "block.0.ffn", "block.7.ffn"), "'block.0.ffn' is missing"),
    "blocks swapped": (lambda t: swap(t, "block.0.ffn", "block.1.ffn"), "out of order"),
    "graph gone": (lambda t: rename(t, "graph.head", "graph.hand"), "'graph.head' is missing"),
    "vocabulary gone": (lambda t: rename(t, "tokenizer.vocab", "v"), "tokenizer.vocab"),
    "no manifest": (lambda t: t["__metadata__"].pop("sti"), "no manifest|not a pack"),
    "metadata": (lambda t: t["__metadata__"].update(sti=5), "must map names to strings"),
}


@pytest.mark.parametrize("case", TABLE_CHANGES)
def test_a_malformed_table_is_refused(pack: Path, tmp_path: Path, case: str) -> None:
    change, message = TABLE_CHANGES[case]
    (tmp_path / "bad").write_bytes(with_table(pack.read_bytes(), change))
    with pytest.raises(PackFormatError, match=message):
        PackReader.open(tmp_path / "bad")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"embed.gamma"', b'"embed.beta" '),  # a name twice
        (b'"words":', b'"words";'),  # no JSON
        (b'"embed.gamma"', b'"embed.gamm\xff"'),  # no UTF-8
    ],
)
def test_a_header_that_is_not_json_is_refused(
    pack: Path, tmp_path: Path, old: bytes, new: bytes
) -> None:
    data = pack.read_bytes()
    header = data[8 : 8 + int.from_bytes(data[:8], "little")]
    assert old in header
    (tmp_path / "bad").write_bytes(with_header(data, header.replace(old, new, 1)))
    with pytest.raises(PackFormatError, match="not valid JSON"):
        PackReader.open(tmp_path / "bad")


def test_a_header_that_does_not_match_its_checksum_is_damaged(pack: Path, tmp_path: Path) -> None:
    data = pack.read_bytes()
    changed = data.replace(b"checkpoint", b"chackpoint", 1)
    assert changed != data
    (tmp_path / "bad").write_bytes(changed)
    with pytest.raises(PackCorruptError, match="header does not match its checksum"):
        PackReader.open(tmp_path / "bad")


MANIFEST_CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "task": (lambda m: m.update(task="singing"), "task 'singing'"),
    "ladder": (lambda m: m.update(ladder=[4, 2]), "ladder must increase"),
    "a field gone": (lambda m: m.pop("licence"), "'licence' must be a string"),
    "layer": (lambda m: m["blocks"][0].update(layer=9), "beyond the last layer"),
    "kind": (lambda m: m["blocks"][0].update(kind="gate"), "unknown kind"),
    "twice": (lambda m: m["blocks"].__setitem__(1, m["blocks"][0]), "listed twice"),
    "slices": (lambda m: m["dimensions"].update(slices=10**15), "one entry per slice"),
    "shard size": (lambda m: m["blocks"][0]["planes"][0].update(shard_bytes=8), "another size"),
    "order": (lambda m: m["blocks"][0]["planes"][1].update(order=[0, 1, 2, 2]), "order of plane"),
    "first order": (
        lambda m: m["blocks"][0]["planes"][0].update(order=[1, 0, 2, 3]),
        "first plane are not in order",
    ),
    "gain": (lambda m: m["blocks"][0]["planes"][2]["gains"].__setitem__(1, -0.1), "negative"),
    "length": (lambda m: m["blocks"][0].update(length=16384), "add up to its length"),
    "row bytes": (lambda m: m["words"].update(row_bytes=20), "a token embedding takes 18 bytes"),
    "rows": (lambda m: m["words"].update(rows=10**12), "'words' has the wrong length"),
    "operand": (
        lambda m: m["kinds"][0]["operands"][0].update(shape=[3, 5]),
        "must have a multiple of 8 weights per slice",
    ),
    "group": (lambda m: m["words"].update(group=7), "halves and groups"),
    "resident": (lambda m: m["resident"].update(length=16384), "resident region"),
    "resident name": (lambda m: m["resident"].update(first="embed.beta"), "does not begin with"),
    "submodel": (lambda m: m["submodels"][0].update(layers=[0, 5]), "submodel 2x4 does not fit"),
    "full model": (lambda m: m["submodels"][0].update(width=3), "must be the full model"),
    "graph": (lambda m: m["graphs"].update(extra="words"), "'words' is missing"),
}


@pytest.mark.parametrize("case", MANIFEST_CHANGES)
def test_a_manifest_that_contradicts_itself_is_refused(
    pack: Path, tmp_path: Path, case: str
) -> None:
    change, message = MANIFEST_CHANGES[case]
    (tmp_path / "bad").write_bytes(with_manifest(pack.read_bytes(), change))
    with pytest.raises(PackFormatError, match=message):
        PackReader.open(tmp_path / "bad")


def paths_of(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Every place in a JSON value; of long lists only the first entries."""
    found = [path] if path else []
    if isinstance(value, dict):
        for key, item in value.items():
            found += paths_of(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value[:2]):
            found += paths_of(item, (*path, index))
    return found


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(
        [0, 1, -1, 2, 3, 7, 8, 2**31, 2**63, 10**30, 10**400, 0.5, "", "x", [], {}, [0], [[]]]
    ),
)


@settings(max_examples=250)
@given(data=st.data())
def test_an_odd_manifest_raises_nothing_but_pack_errors(
    pack: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    good = pack.read_bytes()
    space = int.from_bytes(good[:8], "little")
    manifest = json.loads(json.loads(good[8 : 8 + space])["__metadata__"]["sti"])
    *parents, last = data.draw(st.sampled_from(paths_of(manifest)))
    value = data.draw(ODD)

    def change(root: Any) -> None:
        for key in parents:
            root = root[key]
        root[last] = value

    path = tmp_path_factory.getbasetemp() / "odd"
    path.write_bytes(with_manifest(good, change))
    with suppress(PackError), PackReader.open(path):
        verify(path)


@settings(max_examples=60)
@given(
    rows=st.integers(1, 5),
    hidden=st.sampled_from([2, 6, 32, 48, 96]),
    seed=st.integers(0, 2**32 - 1),
    scale=st.sampled_from([0.0, 1e-12, 1e-3, 1.0, 1e4]),
)
def test_token_rows_decode_to_what_their_bytes_say_and_near_the_original(
    rows: int, hidden: int, seed: int, scale: float
) -> None:
    values = np.random.default_rng(seed).standard_normal((rows, hidden), dtype=np.float32)
    values *= np.float32(scale)
    group = group_size(hidden)
    raw = encode_rows(values, group=group)
    assert raw.shape == (rows, row_bytes(hidden, group))
    out = np.empty((rows, hidden), dtype=np.float32)
    decode_rows(raw, EmbeddingTable(rows, hidden, group, raw.shape[1], 0), out)
    half = hidden // 2
    for row, data in enumerate(raw):
        scales = np.frombuffer(data[half:].tobytes(), "<f2").astype(np.float32)
        codes = [int(byte) & 15 for byte in data[:half]] + [int(byte) >> 4 for byte in data[:half]]
        expected = [(code - 8) * scales[at // group] for at, code in enumerate(codes)]
        np.testing.assert_array_equal(out[row], np.array(expected, dtype=np.float32))
    # A step is at most 1/7 of a group's range, and half precision fails below 6e-8.
    reach = np.abs(values.reshape(rows, -1, group)).max(axis=2).repeat(group, axis=1)
    assert (np.abs(out - values) <= reach * 0.2 + 1e-6).all()


def test_word_scales_lower_the_error_of_plain_rounding() -> None:
    values = np.random.default_rng(5).standard_normal((200, 96), dtype=np.float32)
    out = np.empty_like(values)
    raw = encode_rows(values, group=32)
    decode_rows(raw, EmbeddingTable(200, 96, 32, raw.shape[1], 0), out)
    groups = values.reshape(-1, 32)
    step = np.abs(groups).max(axis=1, keepdims=True) / 7
    plain = np.clip(np.rint(groups / step), -8, 7) * step
    assert np.square(out - values).sum() < 0.8 * np.square(plain - groups).sum()
