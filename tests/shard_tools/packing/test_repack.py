"""Repacking moves bytes and changes none."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import sti
from shard_tools.packing.encoding import Gains
from shard_tools.packing.repack import ranked_groups, repack
from sti.model.manifest import Manifest
from sti.pack.pack_reader import PackReader
from sti.pack.verify import verify
from tests.support.packs import PROFILE, TEXTS, tiny_pack


def random_gains(manifest: Manifest, seed: int) -> Gains:
    rng = np.random.default_rng(seed)
    size = (len(manifest.ladder), manifest.dimensions.slices)
    return {(b.layer, b.kind): rng.random(size).round(3).tolist() for b in manifest.groups}


def shuffled(source: Path, target: Path, seed: int = 1) -> Manifest:
    """Write ``source`` with random gains and the orders that follow from them."""
    with PackReader.open(source) as reader:
        gains = random_gains(reader.manifest, seed)
        groups = ranked_groups(reader.manifest.groups, gains)
        return repack(reader, target, reader.manifest._replace(groups=groups))


def test_a_repacked_pack_is_sound_and_answers_to_the_bit(tmp_path: Path) -> None:
    source, target = tiny_pack("classification"), tmp_path / "pack"
    shuffled(source, target)
    assert verify(target).good
    for bits in (2, 3, 8):
        answers = []
        for path in (source, target):
            with sti.Engine.open(path, fidelity=bits, threads=1, profile=PROFILE) as engine:
                answers.append(np.asarray(engine.run(TEXTS).logits))
        assert np.array_equal(answers[0], answers[1])


def test_each_higher_plane_lies_in_the_order_of_its_gains(tmp_path: Path) -> None:
    manifest = shuffled(tiny_pack("classification"), tmp_path / "pack")
    with PackReader.open(tmp_path / "pack") as reader:
        assert reader.manifest == manifest
    orders = set()
    for group in manifest.groups:
        assert group.planes[0].order == (0, 1)
        for plane in group.planes[1:]:
            ordered = [plane.gains[index] for index in plane.order]
            assert ordered == sorted(ordered, reverse=True)
            orders.add(plane.order)
    assert orders == {(0, 1), (1, 0)}


def test_ranking_changes_the_index_and_not_the_content(tmp_path: Path) -> None:
    after = shuffled(tiny_pack("classification"), tmp_path / "pack")
    with PackReader.open(tiny_pack("classification")) as reader:
        before = reader.manifest
    assert after.sha256.content == before.sha256.content
    assert after.sha256.of_index != before.sha256.of_index


def test_there_and_back_is_the_same_file(tmp_path: Path) -> None:
    source, target = tiny_pack("classification"), tmp_path / "pack"
    with PackReader.open(source) as reader:
        original = reader.manifest
        repack(reader, tmp_path / "same", original)
    shuffled(source, target)
    with PackReader.open(target) as reader:
        repack(reader, target, original)  # in place
    assert target.read_bytes() == (tmp_path / "same").read_bytes()
    with PackReader.open(target) as found, PackReader.open(source) as expected:
        assert found.pack_id == expected.pack_id
        assert list(found.tensors()) == list(expected.tensors())
        for name in expected.tensors():
            if expected.has_resident(name):
                assert (found.resident(name) == expected.resident(name)).all()


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("words", "token embedding 0"),
        ("outliers", "slice 0, outlier list"),
        ("plane", "of 3 bits"),
    ],
)
def test_damage_is_not_passed_on(place: str, message: str, tmp_path: Path) -> None:
    data = bytearray(tiny_pack("classification").read_bytes())
    with PackReader.open(tiny_pack("classification")) as reader:
        group = reader.manifest.groups[2]
        first = reader.group_offset(group)
        at = {
            "words": reader.embeddings_offset,
            "outliers": first,
            "plane": first + sum(group.outlier_bytes) + 2 * group.planes[0].shard_bytes,
        }[place]
    data[at] ^= 4
    (tmp_path / "bad").write_bytes(data)
    shutil.copyfile(tiny_pack("classification"), tmp_path / "out")
    before = (tmp_path / "out").read_bytes()
    refused = pytest.raises(sti.PackCorruptError, match=message)
    with PackReader.open(tmp_path / "bad") as reader, refused:
        repack(reader, tmp_path / "out", reader.manifest)
    assert (tmp_path / "out").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad", "out"]
