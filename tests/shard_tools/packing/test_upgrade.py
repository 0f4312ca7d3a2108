"""Upgrading packs of format 1: same weights at every fidelity, same measurements, or an error."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sti
from shard_tools.cli.main import main
from shard_tools.graphs.parse import parse_graphs
from shard_tools.graphs.spec import GraphSpec
from shard_tools.packing.format1 import Format1
from shard_tools.packing.format1_bits import add_plane, read_outliers
from shard_tools.packing.upgrade import upgrade
from shard_tools.quantization.encode import stored_shard
from sti.codec.codebook import Codebook
from sti.codec.decoder import NumpyDecoder
from sti.errors import InputError, PackCorruptError, PackError, PackFormatError
from sti.pack.header import pack_id_of
from sti.pack.pack_reader import PackReader
from sti.pack.verify import verify
from tests.support.codes import bell_codebook
from tests.support.first_graphs import FIRST_GRAPHS, first_graphs
from tests.support.groups import rooms_for, stored_group
from tests.support.pack_bytes import damaged, manifest_of, table_of, with_manifest
from tests.support.packs import tiny_pack
from tests.support.paths import ROOT
from tests.support.stored_weights import shard

FIXTURE = ROOT / "tests" / "golden" / "format1.sti.safetensors.gz"
LOGITS = ROOT / "tests" / "golden" / "format1_logits.json"
LADDER = (2, 3, 4, 7, 8)
"""Of the fixture, which has two layers, four slices and a side input."""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "old"
    path.write_bytes(gzip.decompress(FIXTURE.read_bytes()))
    return path


def old_values(pack: Format1, planes: int) -> dict[tuple[int, str, int], np.ndarray]:
    """Every shard of a pack of format 1 at the fidelity of its first ``planes`` planes."""
    book = Codebook.from_json(pack.fields.raw("book"))
    found = {}
    for block in pack.blocks:
        for number, item in enumerate(pack.shards(block)):
            bits = book.ladder[planes - 1]
            values = book.values[bits][item.codes >> (book.ladder[-1] - bits)]
            values[item.places] = item.exact.view(np.int8)
            found[block.layer, block.kind, number] = values
    return found


@pytest.mark.parametrize("group_bytes", [1 << 18, 100, 1])
def test_weights_are_equal_at_every_fidelity(old: Path, tmp_path: Path, group_bytes: int) -> None:
    upgrade(old, tmp_path / "new", group_bytes=group_bytes, progress=False)
    assert verify(tmp_path / "new").good
    with Format1(old) as before, PackReader.open(tmp_path / "new") as after:
        groups = {1 << 18: 1, 100: 2, 1: 4}[group_bytes]
        assert [len(kind.groups) for kind in after.manifest.kinds] == [groups] * 2
        for planes in range(1, len(LADDER) + 1):
            for (layer, kind, number), values in old_values(before, planes).items():
                found = shard(after, layer, kind, number, planes)
                np.testing.assert_array_equal(found, values)


def test_old_weights_are_decoded_as_format_1_said(old: Path) -> None:
    """A second reader of format 1, bit by bit."""
    data = old.read_bytes()
    base = 8 + int.from_bytes(data[:8], "little")
    table, manifest = json.loads(data[8:base]), manifest_of(data)
    block, slice_ = manifest["blocks"][3], 2
    begin, _ = table["block.1.ffn"]["data_offsets"]
    start, count = base + begin + sum(block["outlier_bytes"]), block["shard_weights"]
    codes = [0] * count
    for (lower, bits), plane in zip(pairwise((0, *LADDER)), block["planes"], strict=True):
        at = start + plane["order"].index(slice_) * plane["shard_bytes"]
        for _ in range((bits - lower) // 2):
            for weight in range(count):
                two = data[at + weight // 4] >> 2 * (weight % 4) & 3
                codes[weight] = codes[weight] << 2 | two
            at += count // 4
        if (bits - lower) % 2:
            for byte in range(count // 8):
                for bit in range(4):
                    for weight, shift in ((4 * byte, bit), (4 * byte + count // 2, 4 + bit)):
                        one = data[at + byte] >> shift & 1
                        codes[weight + bit] = codes[weight + bit] << 1 | one
        start += plane["shard_bytes"] * 4
    with Format1(old) as pack:
        assert pack.shards(pack.blocks[3])[slice_].codes.tolist() == codes


def test_what_was_measured_is_carried_over(old: Path, tmp_path: Path) -> None:
    manifest = upgrade(old, tmp_path / "new", group_bytes=100, progress=False)
    before = manifest_of(old.read_bytes())
    after = manifest_of((tmp_path / "new").read_bytes())
    same = ("quality", "rejection", "submodels", "labels", "tokenizer", "book", "ladder", "name")
    for name in (*same, "licence", "source", "task", "dimensions"):
        assert after[name] == before[name]
    with Format1(old) as pack:
        upgraded = {"format": 1, "pack_id": pack.pack_id}
        residents = pack.residents()
    assert after["notes"] == before["notes"] | {"upgraded": upgraded}
    for group in manifest.groups:
        (block,) = (
            item
            for item in before["blocks"]
            if (item["layer"], item["kind"]) == (group.layer, group.kind)
        )
        inside = range(group.first, group.first + group.slices)
        for plane, was in zip(group.planes, block["planes"], strict=True):
            gains = np.array(was["gains"], np.float32)[group.first : group.first + group.slices]
            assert plane.gains == tuple(gains.tolist())
            order = [index - group.first for index in was["order"] if index in inside]
            assert list(plane.order) == order
    with PackReader.open(tmp_path / "new") as reader:
        for name, array in residents.items():
            if not name.startswith("graph."):
                np.testing.assert_array_equal(reader.resident(name), array)
        words = reader.manifest.embeddings
        rows = np.frombuffer(
            reader.read(reader.embeddings_offset, words.rows * words.row_bytes), np.uint8
        ).reshape(words.rows, -1)
    with Format1(old) as pack:
        np.testing.assert_array_equal(rows[:, :-4], np.concatenate(list(pack.word_rows())))


@pytest.mark.parametrize("group_bytes", [1 << 18, 100, 1])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_an_upgraded_pack_answers_as_the_release_before_did(
    old: Path, tmp_path: Path, group_bytes: int, bits: int
) -> None:
    """But for activations, which are now quantized for each slice group by itself."""
    upgrade(old, tmp_path / "new", group_bytes=group_bytes, progress=False)
    golden = json.loads(LOGITS.read_text())
    with sti.Engine.open(tmp_path / "new", fidelity=bits, threads=1) as engine:
        found = engine.run(golden["texts"]).logits
    np.testing.assert_allclose(found, golden["logits"][str(bits)], rtol=0, atol=1e-3)


def test_graphs_are_made_again_from_the_manifest_alone(old: Path, tmp_path: Path) -> None:
    upgrade(old, tmp_path / "new", progress=False)
    for path in (tmp_path / "new", tiny_pack("tagging")):
        with PackReader.open(path) as reader:
            graphs = GraphSpec.from_json(reader.manifest.graph_spec, where="").build()
            for name, tensor in reader.manifest.graphs.items():
                assert reader.resident(tensor).tobytes() == graphs.pop(name)
        assert not graphs


def test_outliers_of_large_operands_find_their_segments() -> None:
    rng = np.random.default_rng(4)
    sizes = (70_000, 65_536, 8, 131_080)
    book = bell_codebook()
    weights = sum(sizes)
    codes = rng.integers(0, 256, weights).astype(np.uint8)
    places = np.flatnonzero(rng.random(weights) < 0.01)
    exact = rng.integers(0, 256, places.size).astype(np.uint8)
    # Format 1: segments over the whole shard.
    counts = np.bincount(places // 65_536, minlength=-(-weights // 65_536)).astype("<u4")
    listed = counts.tobytes() + (places % 65_536).astype("<u2").tobytes() + exact.tobytes()
    found = read_outliers(np.frombuffer(listed, np.uint8), weights)
    np.testing.assert_array_equal(found[0], places)
    np.testing.assert_array_equal(found[1], exact)
    group = stored_group([stored_shard(book.ladder, codes, *found, sizes)], [5])
    operands = rooms_for(sizes, 1, np.int8)
    assert NumpyDecoder(book).decode(*group, operands) is None
    expected = book.values[8][codes]
    expected[places] = exact.view(np.int8)
    np.testing.assert_array_equal(np.concatenate([room.matrix[0] for room in operands]), expected)


@settings(max_examples=60)
@given(
    ladder=st.sets(st.integers(2, 8), min_size=1).map(lambda steps: tuple(sorted(steps))),
    weights=st.integers(1, 40).map(lambda n: 8 * n),
    seed=st.integers(0, 2**32 - 1),
)
def test_old_planes_give_their_codes(ladder: tuple[int, ...], weights: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 1 << ladder[-1], weights).astype(np.uint8)
    found = np.zeros(weights, np.uint8)
    for lower, bits in pairwise((0, *ladder)):
        add_plane(found, old_plane(codes >> (ladder[-1] - bits), bits - lower), bits - lower)
    np.testing.assert_array_equal(found, codes)


def old_plane(codes: np.ndarray, width: int) -> np.ndarray:
    """A shard's bytes in a plane of format 1."""
    parts, left = [], width
    while left:
        bits = min(left, 2)
        left -= bits
        quads = (codes >> left & (1 << bits) - 1).reshape(-1, 4)
        packed = sum(quads[:, place] << place * bits for place in range(4)).astype(np.uint8)
        if bits == 1:
            low, high = packed.reshape(2, -1)
            packed = low | high << 4
        parts.append(packed)
    return np.concatenate(parts)


def test_it_may_take_the_place_of_the_old_pack(old: Path, tmp_path: Path) -> None:
    upgrade(old, tmp_path / "new", progress=False)
    upgrade(old, old, progress=False)
    assert old.read_bytes() == (tmp_path / "new").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "old"]


def test_a_pack_of_format_2_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is of format 2 already"):
        upgrade(tiny_pack(), tmp_path / "new", progress=False)
    assert not list(tmp_path.iterdir())


# Packs of format 2 from before slices were joined


def unjoin(manifest: dict[str, Any]) -> None:
    manifest["requires"].remove("joined")
    for kind in manifest["kinds"]:
        for operand in kind["operands"]:
            del operand["joined"]
    manifest["graphs"] = {n: t for n, t in manifest["graphs"].items() if not n.endswith(".s7")}


@pytest.fixture
def unjoined(tmp_path: Path) -> Path:
    """A pack as earlier releases wrote it, but for what is in its graphs."""
    path = tmp_path / "unjoined"
    path.write_bytes(with_manifest(tiny_pack("classification").read_bytes(), unjoin))
    return path


def test_an_earlier_pack_of_format_2_is_refused_with_a_remedy(unjoined: Path) -> None:
    with pytest.raises(
        PackFormatError, match=f"rewrite it once with `sti-shard upgrade {unjoined}"
    ):
        PackReader.open(unjoined)


def test_an_earlier_pack_of_format_2_is_upgraded_to_what_it_would_be_today(
    unjoined: Path, tmp_path: Path
) -> None:
    before_id = pack_id_of(table_of(unjoined.read_bytes())["__metadata__"]["sti"])
    upgrade(unjoined, tmp_path / "new", progress=False)
    assert verify(tmp_path / "new").good
    wanted, found = PackReader.open(tiny_pack("classification")), PackReader.open(tmp_path / "new")
    with wanted, found:
        mine, theirs = found.manifest, wanted.manifest
        assert mine.kinds == theirs.kinds and mine.groups == theirs.groups
        assert (mine.graphs, mine.submodels) == (theirs.graphs, theirs.submodels)
        assert mine.sha256 == theirs.sha256
        upgraded = {"format": 2, "joined": False, "pack_id": before_id}
        assert mine.notes["upgraded"] == upgraded
        for name in wanted.tensors():
            if wanted.has_resident(name):
                np.testing.assert_array_equal(found.resident(name), wanted.resident(name))
        for group in theirs.groups:
            before, after = (p.read(p.group_offset(group), group.length) for p in (wanted, found))
            assert before == after
    upgrade(unjoined, unjoined, progress=False)
    assert unjoined.read_bytes() == (tmp_path / "new").read_bytes()


@pytest.mark.parametrize("tensor", ["embed.gamma", "words", "block.1.ffn"])
def test_damage_of_an_earlier_pack_is_named_and_nothing_is_left(
    unjoined: Path, tmp_path: Path, tensor: str
) -> None:
    bad = damaged(unjoined, tmp_path / "bad", block_at(unjoined.read_bytes(), tensor) + 5)
    with pytest.raises(PackCorruptError, match="checksum does not match"):
        upgrade(bad, tmp_path / "new", progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad", "unjoined"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(graph_spec={}), "graph_spec"),
        (lambda m: m["kinds"][0]["operands"][0].update(name="x"), "operand with scales"),
        (lambda m: m["kinds"][0]["shared"].append("q_scale"), "operand with scales"),
        (lambda m: m.update(requires=["state"]), "does not know: state"),
        (lambda m: m.update(ladder=[2]), "codebook"),
    ],
)
def test_a_malformed_earlier_pack_is_refused(
    unjoined: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    unjoined.write_bytes(with_manifest(unjoined.read_bytes(), change))
    with pytest.raises(PackFormatError, match=message):
        upgrade(unjoined, tmp_path / "new", progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["unjoined"]


def block_at(data: bytes, name: str) -> int:
    base = 8 + int.from_bytes(data[:8], "little")
    begin: int = json.loads(data[8:base])[name]["data_offsets"][0]
    return base + begin


@pytest.mark.parametrize(
    ("tensor", "inside", "message"),
    [
        ("embed.gamma", 1, "the resident tensors: checksum"),
        ("words", 50, "the embedding table: checksum"),
        ("block.1.ffn", 0, "layer 1 ffn, slice 0, outlier list: checksum"),
        ("block.1.ffn", 400, "layer 1 ffn, slice 3, plane of 2 bits: checksum"),
    ],
)
def test_damage_is_named_and_nothing_is_left(
    old: Path, tmp_path: Path, tensor: str, inside: int, message: str
) -> None:
    bad = damaged(old, tmp_path / "bad", block_at(old.read_bytes(), tensor) + inside)
    (tmp_path / "new").write_text("older")
    with pytest.raises(PackCorruptError, match=message):
        upgrade(bad, tmp_path / "new", progress=False)
    assert (tmp_path / "new").read_text() == "older"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad", "new", "old"]


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "format": (lambda m: m.update(format=3), "format 3 is unknown .*upgrade sti"),
    "no blocks": (lambda m: m.update(blocks=[]), "not those of every layer"),
    "order": (lambda m: m["blocks"][0]["planes"][1].update(order=[0, 0, 1, 2]), "contradicts"),
    "length": (lambda m: m["blocks"][0].update(length=16384), "contradicts"),
    "planes": (lambda m: m["blocks"][0]["planes"].pop(), "contradicts"),
    "slices": (lambda m: m["blocks"][0]["outlier_bytes"].pop(), "contradicts"),
    "kinds": (lambda m: m["kinds"].pop(), "not those of every layer"),
    "rows": (lambda m: m["words"].update(rows=10**9), "'words' is missing or has the wrong"),
    "region": (
        lambda m: m["resident"].update(length=10**18),
        "resident region does not fit; fetch",
    ),
    "graph": (lambda m: m["graphs"].pop("connect"), "graph 'connect' is missing"),
    "operand": (lambda m: m["kinds"][1]["operands"][0].update(name="x"), "operand with scales"),
    "graphs": (lambda m: m["graphs"].pop("ffn.u8"), "graph 'ffn.u8' is missing"),
    "gone": (lambda m: m["graphs"].update(connect="graph.none"), "'graph.none' is missing; fetch"),
    "no graph": (
        lambda m: m["graphs"].update(connect="tokenizer.vocab"),
        "graphs cannot be understood|is missing",
    ),
}


@pytest.mark.parametrize("case", CHANGES)
def test_a_malformed_old_pack_is_refused(old: Path, tmp_path: Path, case: str) -> None:
    change, message = CHANGES[case]
    old.write_bytes(with_manifest(old.read_bytes(), change))
    with pytest.raises(PackFormatError, match=message):
        upgrade(old, tmp_path / "new", progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def places_of(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Every place in a JSON value; of lists only the first entries."""
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value[:2])
    for key, item in items if isinstance(value, dict | list) else ():
        found += places_of(item, (*path, key)) if isinstance(item, dict | list) else [(*path, key)]
    return found


@settings(max_examples=120)
@given(data=st.data())
def test_an_odd_old_manifest_raises_nothing_but_pack_errors(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    good = gzip.decompress(FIXTURE.read_bytes())
    *parents, last = data.draw(st.sampled_from(places_of(manifest_of(good))))
    odd = [None, True, 0, 1, -1, 3, 7, 8, 2**31, 10**30, 0.5, "", "x", [], {}, [0], [[]]]
    value = data.draw(st.sampled_from(odd))

    def change(root: Any) -> None:
        for key in parents:
            root = root[key]
        root[last] = value

    path = tmp_path_factory.getbasetemp() / "odd-old"
    path.write_bytes(with_manifest(good, change))
    try:
        upgrade(path, path.with_name("odd-new"), progress=False)
    except (PackError, InputError):
        return
    assert verify(path.with_name("odd-new")).good


@pytest.mark.parametrize("number", range(len(FIRST_GRAPHS)))
def test_graphs_of_the_first_edition_tell_what_they_were_made_from(number: int) -> None:
    spec = GraphSpec.from_json(FIRST_GRAPHS[number]["spec"], where="")
    assert parse_graphs(first_graphs(number), where="") == spec
    assert GraphSpec.from_json(json.loads(json.dumps(spec.to_json())), where="") == spec


def test_graphs_of_another_edition_are_refused() -> None:
    spec = GraphSpec.from_json(FIRST_GRAPHS[0]["spec"], where="")
    with pytest.raises(PackFormatError, match=r"graph 'attention\.s7' is unknown"):
        parse_graphs(spec.build(), where="")
    graphs = {name: data for name, data in spec.build().items() if ".s7" not in name}
    with pytest.raises(PackFormatError, match="has an operator"):
        parse_graphs(graphs, where="")


@settings(max_examples=80)
@given(data=st.data())
def test_odd_graphs_are_refused_or_understood(data: st.DataObject) -> None:
    graphs = first_graphs(data.draw(st.integers(0, len(FIRST_GRAPHS) - 1)))
    name = data.draw(st.sampled_from(sorted(graphs)))
    changed = bytearray(graphs[name])
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    graphs[name] = bytes(changed)
    with suppress(PackFormatError):
        spec = parse_graphs(graphs, where="here")
        assert list(spec.build()) == spec.names()


def test_gains_too_large_for_the_index_are_refused(old: Path, tmp_path: Path) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["blocks"][1]["planes"][2]["gains"][3] = 1e300

    old.write_bytes(with_manifest(old.read_bytes(), change))
    with pytest.raises(PackFormatError, match=r"'index\.gains' holds what is no finite"):
        upgrade(old, tmp_path / "new", progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_the_command_tells_what_it_did(
    old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["upgrade", str(old), "-o", str(tmp_path / "new"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    with PackReader.open(tmp_path / "new") as reader, Format1(old) as before:
        assert told["pack_id"] == reader.pack_id
        assert told["upgraded"] == {"format": 1, "pack_id": before.pack_id}
    assert (told["format"], told["groups"]) == (2, {"attention": [4], "ffn": [4]})
    assert told["bytes"] == (tmp_path / "new").stat().st_size
    assert main(["upgrade", str(old), "-o", str(old)]) == 0
    assert "slice groups attention 4, ffn 4" in capsys.readouterr().out
    assert main(["upgrade", str(old), "-o", str(old), "--json"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert told["error"]["kind"] == "InputError"
    assert "is of format 2 already" in told["error"]["message"]


def test_the_fixture_is_of_format_1() -> None:
    data = gzip.decompress(FIXTURE.read_bytes())
    assert manifest_of(data)["format"] == 1
    assert zlib.crc32(data) == 0xF882A2FB
