"""Reading packs: what is there, and a clear error for whatever is wrong with a file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from shard_tools.packing.build import build
from shard_tools.packing.options import BuildOptions
from sti.errors import PackCorruptError, PackError, PackFormatError
from sti.model.manifest import ALIGNMENT, GROUP_ALIGNMENT
from sti.pack.manifest_reader import read_manifest
from sti.pack.pack_reader import PackReader
from sti.pack.verify import verify
from sti.storage.file_reader import read_cached
from tests.support.checkpoints import write_checkpoint
from tests.support.pack_bytes import damaged, manifest_of, with_header, with_manifest, with_table


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pack with side inputs, two slice groups in a block."""
    place = tmp_path_factory.mktemp("pack")
    write_checkpoint(place / "checkpoint")
    options = BuildOptions(group_bytes=512)
    build(place / "checkpoint", place / "tiny.sti.safetensors", options)
    return place / "tiny.sti.safetensors"


def test_the_reference_library_opens_a_pack(pack: Path) -> None:
    with safe_open(pack, "np") as reference, PackReader.open(pack) as reader:
        assert reference.metadata()["format"] == "sti"
        parsed = read_manifest(reference.metadata()["sti"], where="")
        assert parsed == reader.manifest._replace(groups=())
        assert set(reference.keys()) == set(reader.tensors())
        for name, place in reader.tensors().items():
            assert reference.get_slice(name).get_shape() == list(place.shape)
            if reader.has_resident(name):
                np.testing.assert_array_equal(reader.resident(name), reference.get_tensor(name))


def test_words_blocks_and_groups_are_aligned_and_follow_one_another(pack: Path) -> None:
    with PackReader.open(pack) as reader:
        words, groups = reader.manifest.embeddings, reader.manifest.groups
        end = reader.embeddings_offset + words.rows * words.row_bytes
        assert reader.embeddings_offset % ALIGNMENT == 0
        for number, group in enumerate(groups):
            assert (group.number, group.first) == (number % 2, number % 2 * 2)
            step = GROUP_ALIGNMENT if group.number else ALIGNMENT
            assert reader.group_offset(group) == -(-end // step) * step
            end = reader.group_offset(group) + group.length
        assert -(-end // ALIGNMENT) * ALIGNMENT == reader.file_bytes


def with_padding(data: bytes, more: int) -> bytes:
    """The pack with ``more`` spaces behind its header."""
    space = int.from_bytes(data[:8], "little")
    header, rest = data[8 : 8 + space], data[8 + space :]
    return with_header((space + more).to_bytes(8, "little") + header + b" " * more + rest, header)


def test_opening_takes_three_reads_at_most_and_leaves_words_and_blocks_alone(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, padding = tmp_path / "pack", 1 << 19  # the header is longer than the first read
    path.write_bytes(with_padding(pack.read_bytes(), padding))
    reads: list[tuple[int, int]] = []
    real = os.pread

    def pread(descriptor: int, length: int, offset: int) -> bytes:
        reads.append((offset, length))
        return real(descriptor, length, offset)

    monkeypatch.delattr(os, "RWF_NOWAIT", raising=False)  # what is in memory is read without it
    monkeypatch.setattr(os, "pread", pread)
    with PackReader.open(path) as reader:
        assert 0 < len(reads) <= 3
        last = max(offset + length for offset, length in reads)
        assert padding < last <= reader.embeddings_offset


def test_what_is_in_memory_is_read_without_another_thread(
    pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pack.open("rb") as file:
        if not read_cached(file.fileno(), bytearray(len(file.read())), 0):
            pytest.skip("the file system cannot tell what is in memory")
    monkeypatch.delattr(os, "pread")
    with PackReader.open(pack) as reader:
        assert reader.read(0, 8) == pack.read_bytes()[:8]


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
    with pytest.raises(PackFormatError, match="closed"):
        reader.resident("embed.gamma")
    with pytest.raises(PackFormatError, match="closed"):
        reader.read(0, 1)


def test_views_outlive_the_reader(pack: Path) -> None:
    with PackReader.open(pack) as reader:
        gamma = reader.resident("embed.gamma")
        expected = gamma.copy()
    np.testing.assert_array_equal(gamma, expected)


def test_damaged_residents_stop_opening(pack: Path, tmp_path: Path) -> None:
    with PackReader.open(pack) as reader:
        offset = reader.embeddings_offset - 3
    with pytest.raises(PackCorruptError, match=r"resident tensors .* do not match"):
        PackReader.open(damaged(pack, tmp_path / "bad", offset))


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


def test_an_older_pack_names_the_command_that_rewrites_it(pack: Path, tmp_path: Path) -> None:
    data = with_manifest(pack.read_bytes(), lambda manifest: manifest.update(format=1))
    (tmp_path / "old").write_bytes(data)
    with pytest.raises(PackFormatError, match=r"format 1.*`sti-shard upgrade .*old -o NEW`"):
        PackReader.open(tmp_path / "old")


def test_a_pack_that_requires_what_is_unknown_is_refused(pack: Path, tmp_path: Path) -> None:
    data = with_manifest(pack.read_bytes(), lambda m: m.update(requires=["state", "staircases"]))
    (tmp_path / "new").write_bytes(data)
    with pytest.raises(PackFormatError, match=r"requires .*: state, staircases; upgrade sti"):
        PackReader.open(tmp_path / "new")


def swap(table: dict[str, Any], first: str, second: str) -> None:
    """Exchange the places of two tensors of one size."""
    spans = [table[name]["data_offsets"] for name in (first, second)]
    table[second]["data_offsets"], table[first]["data_offsets"] = spans


def rename(table: dict[str, Any], old: str, new: str) -> None:
    """Give a tensor another name, in its place of the list."""
    renamed = {new if name == old else name: item for name, item in table.items()}
    table.clear()
    table.update(renamed)


def exchange(table: dict[str, Any], first: str, second: str) -> None:
    """Exchange the names of two tensors."""
    rename(table, first, "other")
    rename(table, second, first)
    rename(table, "other", second)


TABLE_CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "hole": (lambda t: t["words"]["data_offsets"].__setitem__(0, 0), "words"),
    "shape": (lambda t: t["embed.gamma"].update(shape=[33]), "embed.gamma.*does not fill"),
    "negative shape": (lambda t: t["embed.gamma"].update(shape=[-32]), "embed.gamma.*malformed"),
    "huge shape": (lambda t: t["embed.gamma"].update(shape=[2**62] * 8), "embed.gamma.*fill"),
    "many axes": (lambda t: t["embed.gamma"].update(shape=[1] * 9), "embed.gamma.*malformed"),
    "float shape": (lambda t: t["embed.gamma"].update(shape=[32.0]), "embed.gamma.*malformed"),
    "no offsets": (lambda t: t["embed.gamma"].pop("data_offsets"), "embed.gamma.*malformed"),
    "dtype": (lambda t: t["embed.gamma"].update(dtype="F33"), "embed.gamma.*unknown type"),
    "resident dtype": (lambda t: t["embed.gamma"].update(dtype="I32"), "embed.gamma.*type I32"),
    "words dtype": (lambda t: t["words"].update(dtype="I8"), "'words' must be of type U8"),
    "entry": (lambda t: t.update({"embed.gamma": 3}), "embed.gamma.*not an object"),
    "words gone": (lambda t: rename(t, "words", "wards"), "'words' is missing"),
    "block gone": (lambda t: rename(t, "block.0.ffn", "block.7.ffn"), "'block.0.ffn' is missing"),
    "blocks swapped": (lambda t: exchange(t, "block.0.ffn", "block.1.ffn"), "out of order"),
    "blocks listed out of order": (
        lambda t: swap(t, "block.0.ffn", "block.1.ffn"),
        "not listed in the order in which they are stored; .* fetch the pack again",
    ),
    "a tensor listed last": (
        lambda t: t.update({"embed.gamma": t.pop("embed.gamma")}),
        "not listed in the order in which they are stored",
    ),
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


def without(values: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in keys}


MANIFEST_CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "task": (lambda m: m.update(task="singing"), "task 'singing'"),
    "ladder": (lambda m: m.update(ladder=[4, 2]), "ladder must increase"),
    "many axes": (
        lambda m: m["kinds"][0]["operands"][0].update(shape=[8, *[1] * 8]),
        "operand 'q' has an odd shape",
    ),
    "far operand": (
        lambda m: m["kinds"][0]["operands"][0].update(shape=[2**40, 8]),
        "operand 'q' has an odd shape",
    ),
    "half a character": (lambda m: m.update(name="\ud800"), "not valid JSON.*surrogates"),
    "a field gone": (lambda m: m.pop("licence"), "'licence' must be a string"),
    "a fidelity": (lambda m: m.update(ladder=[2, 3, 4, 6, 9]), r"increase within 2\.\.8 bits"),
    "a plane less": (
        lambda m: m.update(
            ladder=[2, 3, 4, 6],
            book={"ladder": [2, 3, 4, 6], "values": without(m["book"]["values"], "8")},
        ),
        r"'index\.checksums' must be",
    ),
    "another ladder in the codebook": (
        lambda m: m["book"].update(ladder=[2, 4, 8], values=without(m["book"]["values"], "3", "6")),
        "bad: manifest: the codebook is for another ladder than the pack's; .* fetch the pack",
    ),
    "no codebook": (
        lambda m: m.update(book={}),
        "bad: manifest: book: codebook: expected a ladder and values; .* fetch the pack",
    ),
    "layers": (lambda m: m["dimensions"].update(layers=10**15), "must be the full model"),
    "twice": (lambda m: m["kinds"].__setitem__(1, m["kinds"][0]), "kind is listed twice"),
    "no kinds": (lambda m: m.update(kinds=[]), "kinds or submodels are missing"),
    "slices": (lambda m: m["dimensions"].update(slices=65536), "groups do not add up to 65536"),
    "more slices": (lambda m: m["dimensions"].update(slices=65537), "65537 slices, more than 655"),
    "groups": (lambda m: m["kinds"][1].update(groups=[2, 3]), "ffn: its groups do not add up to 4"),
    "an empty group": (lambda m: m["kinds"][1].update(groups=[4, 0]), "'groups' must be"),
    "other groups": (lambda m: m["kinds"][0].update(groups=[1, 3]), "no order of its group|order"),
    "hash": (lambda m: m["sha256"].update(content="A" * 64), r"sha256\.content must be 64"),
    "short hash": (lambda m: m["sha256"].update(index="a" * 63), r"sha256\.index must be 64"),
    "no requires": (lambda m: m.pop("requires"), "'requires' must be a list"),
    "row bytes": (lambda m: m["words"].update(row_bytes=20), "a token embedding takes 22 bytes"),
    "rows": (lambda m: m["words"].update(rows=10**12), "'words' has the wrong length"),
    "operand": (
        lambda m: m["kinds"][0]["operands"][0].update(shape=[3, 5]),
        "must have a multiple of 8 weights per slice",
    ),
    "group": (lambda m: m["words"].update(group=7), "halves, and groups that share a scale"),
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
    manifest = manifest_of(good)
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


@pytest.mark.parametrize("member", ["name", "licence", "source", "generator", "labels"])
@pytest.mark.parametrize("mark", ["\x1b[31m", "\n", "\t", "\x9b", "\u202e", "\x7f"])
def test_texts_for_people_are_of_one_line_without_control_characters(
    pack: Path, member: str, mark: str
) -> None:
    found = manifest_of(pack.read_bytes())
    text = f"a{mark}b"
    found[member] = [text] if member == "labels" else text
    with pytest.raises(PackFormatError, match=f"here: manifest: {member}: control characters") as e:
        read_manifest(json.dumps(found), where="here")
    assert mark not in str(e.value)


def test_members_that_nobody_knows_may_not_be_many(pack: Path) -> None:
    text = json.dumps(manifest_of(pack.read_bytes()))
    for padding in (" " * (1 << 20), '"x":[' + "0," * 140_000 + "0],", '"x":' + "[" * 20):
        with pytest.raises(PackFormatError, match="here: the manifest is not valid JSON: "):
            read_manifest("{" + padding + text[1:], where="here")
