"""Parts of packs: what they hold, what is elsewhere, and that malformed ones are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

import sti
from benchmarks.security_hostile_header import HEADER
from benchmarks.security_hostile_manifest import MANIFEST
from benchmarks.security_packs import PackParts
from shard_tools.packing.share import share
from sti.arrays import Float32Array
from sti.backend.onnxruntime.compute import OrtBackend
from sti.errors import PackCorruptError, PackError, PackFormatError, PartError
from sti.model.fidelity import uniform_counts
from sti.model.manifest import PART
from sti.model.part import Part
from sti.pack import manifest_reader
from sti.pack.pack_reader import PackReader
from sti.pack.tokenizer import pack_tokenizer
from sti.pack.verify import verify, verify_content
from sti.planning.plan import EXACT, PlanStep
from sti.planning.step_jobs import prepare_step
from sti.text.control_characters import is_one_line
from tests.support.pack_bytes import damaged, with_manifest, with_table
from tests.support.packs import PROFILE, distance_pack
from tests.support.ranked_packs import ranked_pack

LARGE = {"JSON of a million values", "JSON of many names", "texts of megabytes", "JSON nested deep"}
"""Kinds of hostile packs that take long to make."""
HOSTILE = {name: kind for name, kind in {**HEADER, **MANIFEST}.items() if name not in LARGE}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a ``front`` (layers 0 and 1) and a ``back`` (layer 2) of a ranked pack."""
    place = tmp_path_factory.mktemp("parts")
    share(ranked_pack(), place / "front", 0, 1)
    share(ranked_pack(), place / "back", 2, 2)
    return place


def test_a_reader_tells_a_part_from_a_whole_pack_and_what_it_holds(place: Path) -> None:
    with (
        PackReader.open(ranked_pack()) as whole,
        PackReader.open(place / "front") as front,
        PackReader.open(place / "back") as back,
    ):
        assert whole.part is None and all(map(whole.holds, range(3)))
        assert not whole.holds(3) and not whole.holds(-1)
        assert front.part == Part(whole.manifest.sha256.content, whole.pack_id, 0, 1)
        assert back.part == Part(whole.manifest.sha256.content, whole.pack_id, 2, 2)
        assert (front.part.words, back.part.words) == ("layers 0 to 1", "layer 2")
        assert [list(map(each.holds, range(3))) for each in (front, back)] == [
            [True, True, False],
            [False, False, True],
        ]
        assert whole.content == front.content == back.content == whole.manifest.sha256.content
        assert len({whole.pack_id, front.pack_id, back.pack_id}) == 3
        assert whole.graphs_digest == front.graphs_digest == back.graphs_digest
        whole.check_whole()


def test_what_is_elsewhere_is_named_with_the_part_and_a_remedy(place: Path) -> None:
    with PackReader.open(place / "back") as back:
        manifest = back.manifest
        asked: dict[str, Callable[[], object]] = {
            "layer 1": lambda: back.group_offset(manifest.group(1, "ffn", 0)),
            "token embeddings": lambda: back.embeddings_offset,
            "layer.0.ffn.gamma": lambda: back.resident("layer.0.ffn.gamma"),
            "embed.gamma": lambda: back.resident("embed.gamma"),
            "'embed'": lambda: back.graph("embed"),
            "tokenizer.vocab": lambda: pack_tokenizer(back),
        }
        for what, ask in asked.items():
            with pytest.raises(PartError, match=what) as caught:
                ask()
            told = str(caught.value)
            assert told.startswith(f"{place / 'back'}: is a part (layer 2) of pack ")
            assert told.endswith("; use a part that has it, or the whole pack")
            assert caught.value.exit_code == 2
        assert not back.has_resident("words") and not back.has_resident("embed.gamma")
        back.check_graphs()
        assert back.graph("head")


def hidden_after(path: Path, layers: int, tokens: int = 5) -> Float32Array:
    """Hidden states of one text after the first layers, at 8 bits."""
    with PackReader.open(path) as reader:
        backend = OrtBackend(reader, lanes=1)
        backend.prepare([EXACT])
        memory = backend.embedding_buffer(1, tokens)
        memory[:] = np.random.default_rng(1).standard_normal(memory.shape)
        state = backend.start(memory, np.zeros((1, tokens), np.int64), [tokens])
        data, width = np.fromfile(path, np.uint8), reader.manifest.dimensions.slices
        for group in (group for group in reader.manifest.groups if group.layer < layers):
            counts = uniform_counts(group, width, 8)
            step = PlanStep(group.layer, group.kind, group.number, counts, 0)
            job = prepare_step(step, group, reader.group_offset(group), width=width)
            starts = np.array([item.offset for item in job.ranges], np.uint64)
            decoder, kind = backend.decoder(EXACT), reader.manifest.kind(group.kind)
            rooms = backend.buffer(0).operands(kind, job.used, decoder.dtype)
            assert decoder.decode(data, starts, job.shards, rooms) is None
            state.step(group, job.used, variant=EXACT)
            if job.connects:
                state.connect(group.layer, group.kind)
        found = state.hidden()[0].copy()
        backend.close()
        return found


def test_a_part_computes_its_layers_to_the_bit(place: Path) -> None:
    wanted = hidden_after(ranked_pack(), 2)
    assert np.array_equal(hidden_after(place / "front", 2), wanted)
    assert not np.array_equal(hidden_after(place / "front", 1), wanted)


def test_a_back_end_prepares_a_part_without_what_it_cannot_feed(place: Path) -> None:
    with PackReader.open(place / "back") as reader:
        backend = OrtBackend(reader, lanes=1)
        backend.prepare([EXACT])
        backend.close()


def test_what_needs_a_whole_pack_refuses_a_part(place: Path) -> None:
    refused = r"front: is a part \(layers 0 to 1\) of pack [0-9a-f]{16}; open the whole pack, or"
    with pytest.raises(PartError, match=refused):
        PackReader.open_whole(place / "front")
    with pytest.raises(PartError, match=refused):
        sti.Engine.open(place / "front", fidelity=4, profile=PROFILE)
    PackReader.open_whole(ranked_pack()).close()


def test_releases_that_know_no_parts_refuse_them(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = manifest_reader.FEATURES - {PART}
    monkeypatch.setattr(manifest_reader, "FEATURES", before)
    PackReader.open(ranked_pack()).close()
    with pytest.raises(PackFormatError, match="requires what this release does not know: part"):
        PackReader.open(place / "front")


def test_the_reference_library_opens_parts(place: Path) -> None:
    for name in ("front", "back"):
        with safe_open(place / name, "np") as found, PackReader.open(place / name) as reader:
            assert set(found.keys()) == set(reader.tensors())
            scale = f"layer.{reader.manifest.held_layers[-1]}.ffn.up_scale"
            np.testing.assert_array_equal(reader.resident(scale), found.get_tensor(scale))


MALFORMED: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no hash": (lambda m: m["part"].pop("parent"), "'parent' must be a string"),
    "a short hash": (lambda m: m["part"].update(parent="ab" * 31), "part.parent must be 64"),
    "a hash in capitals": (lambda m: m["part"].update(parent="AB" * 32), "part.parent must be 64"),
    "a number for a hash": (lambda m: m["part"].update(parent=7), "'parent' must be a string"),
    "a long identity": (lambda m: m["part"].update(pack_id="0" * 17), "part.pack_id must be 16"),
    "another identity": (lambda m: m["part"].update(pack_id="\x1b[2J"), "part.pack_id must be 16"),
    "layers turned round": (lambda m: m["part"].update(first=1, last=0), "none of the 3"),
    "a layer too many": (lambda m: m["part"].update(last=3), "none of the 3"),
    "a layer below": (lambda m: m["part"].update(first=-1), "'first' must be an integer of"),
    "no number": (lambda m: m["part"].update(last=True), "'last' must be an integer"),
    "layers without end": (lambda m: m["part"].update(last=1 << 63), "'last' must be an integer"),
    "a list": (lambda m: m.update(part=[0, 1]), "part: expected an object"),
    "a layer less": (lambda m: m["part"].update(last=0), "4 tensors follow the words, not 2"),
    "other layers": (lambda m: m["part"].update(first=1, last=2), "'words' has the wrong length"),
    "a layer more": (lambda m: m["part"].update(last=2), "4 tensors follow the words, not 6"),
    "no part": (lambda m: m.pop("part"), "told in two ways"),
    "nothing": (lambda m: m.update(part=None), "told in two ways"),
    "not required": (lambda m: m["requires"].remove("part"), "told in two ways"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_part_is_refused(case: str, place: Path, tmp_path: Path) -> None:
    change, message = MALFORMED[case]
    (tmp_path / "bad").write_bytes(with_manifest((place / "front").read_bytes(), change))
    with pytest.raises(PackFormatError, match=message) as caught:
        PackReader.open(tmp_path / "bad")
    assert is_one_line(str(caught.value))


def test_a_whole_pack_that_says_it_is_a_part_is_refused(tmp_path: Path) -> None:
    part = Part("0" * 64, "0" * 16, 0, 1)._asdict()

    def change(manifest: dict[str, Any]) -> None:
        manifest["requires"].append("part")
        manifest["part"] = part

    (tmp_path / "bad").write_bytes(with_manifest(ranked_pack().read_bytes(), change))
    with pytest.raises(PackFormatError, match="6 tensors follow the words, not 4"):
        PackReader.open(tmp_path / "bad")


@pytest.mark.parametrize("name", ["index.gains", "layer.2.ffn.up_scale", "layer.2.ffn.down_idx"])
def test_a_part_without_what_its_layers_need_is_refused(
    name: str, place: Path, tmp_path: Path
) -> None:
    parts = PackParts(place / "back")
    del parts.residents[name]
    (tmp_path / "bad").write_bytes(parts.sealed())
    with pytest.raises(PackFormatError, match=f"'{name}'"):
        PackReader.open(tmp_path / "bad")


def test_blocks_of_other_layers_than_the_part_says_are_refused(place: Path, tmp_path: Path) -> None:
    def rename(table: dict[str, Any]) -> None:
        for name in [name for name in table if name.startswith("block.2.")]:
            table[name.replace("block.2.", "block.1.")] = table.pop(name)

    (tmp_path / "bad").write_bytes(with_table((place / "back").read_bytes(), rename))
    with pytest.raises(PackFormatError, match=r"'block.2.attention' is missing"):
        PackReader.open(tmp_path / "bad")


def used(path: Path) -> str:
    """Open a part, and use what opening vouches for; what it is refused for, if it is."""
    try:
        with PackReader.open(path) as reader:
            reader.check_graphs()
            for group in reader.manifest.held_groups:
                assert reader.group_offset(group) + group.length <= reader.file_bytes
    except PackError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("name", ["front", "back"])
def test_hostile_parts_are_refused_or_give_what_is_there(
    name: str, kind: str, place: Path, tmp_path: Path
) -> None:
    sound = PackParts(place / name)
    for number in range(2):
        parts = sound.copy()
        HOSTILE[kind].harm(parts, Random(number))
        (tmp_path / "bad").write_bytes(parts.sealed())
        assert is_one_line(used(tmp_path / "bad"))


def test_parts_verify(place: Path, tmp_path: Path) -> None:
    for name in ("front", "back"):
        report = verify(place / name)
        with PackReader.open(place / name) as reader:
            verify_content(reader)
            rows = reader.manifest.embeddings.rows if reader.holds(0) else 0
            layers = len(reader.manifest.held_layers)
        assert report.good and report.part == reader.part
        assert report.checksums == 3 + rows + layers * 2 * 4 * (5 + 1)
    assert verify(ranked_pack()).part is None
    share(distance_pack(), tmp_path / "distances", 1, 2)
    assert verify(tmp_path / "distances").good


def test_damage_of_a_part_is_named(place: Path, tmp_path: Path) -> None:
    with PackReader.open(place / "back") as reader:
        group = reader.manifest.group(2, "ffn", 1)
        at = reader.group_offset(group) + sum(group.outlier_bytes)
        gamma = reader.tensors()["layer.2.ffn.gamma"].offset
    bad = damaged(place / "back", tmp_path / "bad", at)
    (found,) = verify(bad).damage
    assert (found.layer, found.kind, found.group, found.bits) == (2, "ffn", 1, 2)
    with PackReader.open(bad) as reader, pytest.raises(PackCorruptError, match="content does not"):
        verify_content(reader)
    assert [item.part for item in verify(damaged(bad, tmp_path / "worse", gamma)).damage] == [
        "resident",
        "plane",
    ]


@settings(max_examples=60)
@given(data=st.data())
def test_no_flipped_bit_of_a_part_goes_unnoticed(
    place: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    good = (place / data.draw(st.sampled_from(("front", "back")))).read_bytes()
    offset = data.draw(st.one_of(st.integers(0, 8191), st.integers(0, len(good) - 1)))
    path = tmp_path_factory.getbasetemp() / "flipped-part"
    changed = bytearray(good)
    changed[offset] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(changed)
    try:
        noticed = not verify(path).good
    except PackError:
        noticed = True
    assert noticed
