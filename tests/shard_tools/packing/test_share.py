"""Sharing copies what a device needs, and changes none of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from shard_tools.packing.repack import repack
from shard_tools.packing.share import share
from sti.errors import InputError, PackCorruptError, PackFormatError, PartError, StorageError
from sti.pack.header import PAD, WORDS
from sti.pack.index import INDEX
from sti.pack.pack_reader import PackReader
from sti.pack.verify import verify
from tests.support.packs import distance_pack, tiny_pack
from tests.support.paths import INTENTS, MINILM
from tests.support.ranked_packs import ranked_pack

HEADER_BYTES = 65_536
"""At most of a part of a pack that ships, with the padding after it and after the residents."""


def groups_of(reader: PackReader) -> Mapping[tuple[int, str, int], bytes]:
    """The bytes of every slice group that is there."""
    return {
        (group.layer, group.kind, group.number): reader.read(
            reader.group_offset(group), group.length
        )
        for group in reader.manifest.held_groups
    }


def residents_of(reader: PackReader) -> dict[str, bytes]:
    names = [name for name in reader.tensors() if reader.has_resident(name) and name != PAD]
    return {name: reader.resident(name).tobytes() for name in names}


@pytest.mark.parametrize("pack", [ranked_pack, distance_pack], ids=["ranked", "distances"])
@pytest.mark.parametrize(("first", "last"), [(0, 0), (0, 1), (1, 1), (1, 2), (0, 2)])
def test_a_part_has_the_bytes_of_its_layers_and_no_others(
    pack: Callable[[], Path], first: int, last: int, tmp_path: Path
) -> None:
    source = pack()
    before = source.read_bytes()
    written = share(source, tmp_path / "part", first, last, progress=False)
    assert source.read_bytes() == before
    with PackReader.open(source) as whole, PackReader.open(tmp_path / "part") as part:
        assert part.manifest == written
        expected = groups_of(whole)
        assert groups_of(part) == {
            key: expected[key] for key in expected if first <= key[0] <= last
        }
        kept = ("head.", "graph.", *INDEX, *(f"layer.{n}." for n in range(first, last + 1)))
        kept += ("embed.",) * (first == 0)
        stored = residents_of(whole)
        assert residents_of(part) == {
            name: data for name, data in stored.items() if name.startswith(kept)
        }
        rows = whole.manifest.embeddings.rows * whole.manifest.embeddings.row_bytes
        if first == 0:
            words = part.read(part.embeddings_offset, rows)
            assert words == whole.read(whole.embeddings_offset, rows)
        else:
            assert part.tensors()[WORDS].length == 0
        own = ("part", "resident", "sha256")
        same = {name: value for name, value in whole.manifest._asdict().items() if name not in own}
        assert {name: getattr(part.manifest, name) for name in same} == same
        assert part.manifest.sha256.of_index == whole.manifest.sha256.of_index


def test_a_part_of_a_part_is_the_same_file_as_one_of_the_whole(tmp_path: Path) -> None:
    share(ranked_pack(), tmp_path / "back", 1, 2)
    share(tmp_path / "back", tmp_path / "last", 2, 2)
    share(ranked_pack(), tmp_path / "direct", 2, 2)
    assert (tmp_path / "last").read_bytes() == (tmp_path / "direct").read_bytes()
    with pytest.raises(PartError, match=r"back: is a part \(layers 1 to 2\) .* without layer 0"):
        share(tmp_path / "back", tmp_path / "more", 0, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "direct", "last"]


def test_a_pack_that_was_ranked_again_has_parts_of_the_same_content(tmp_path: Path) -> None:
    with PackReader.open(tiny_pack("classification")) as reader:
        notes = reader.manifest._replace(notes={"ranked": "again"})
        repack(reader, tmp_path / "again", notes)
    share(tiny_pack("classification"), tmp_path / "one", 0, 1)
    share(tmp_path / "again", tmp_path / "two", 0, 1)
    with PackReader.open(tmp_path / "one") as one, PackReader.open(tmp_path / "two") as two:
        assert one.part and two.part
        assert one.content == two.content and one.part.pack_id != two.part.pack_id


@pytest.mark.parametrize("pack", [MINILM, INTENTS], ids=lambda pack: pack.name)
def test_parts_of_packs_that_ship_are_as_large_as_their_share(pack: Path, tmp_path: Path) -> None:
    with PackReader.open(pack) as reader:
        tensors = reader.tensors()
    for first, last, most in ((0, 2, 0.7), (3, 5, 0.35), (4, 4, 0.13)):
        share(pack, tmp_path / "part", first, last)
        wanted = ["graph.", "head.", "index."]
        wanted += [f"{kind}.{n}." for n in range(first, last + 1) for kind in ("layer", "block")]
        wanted += ["embed.", WORDS] if first == 0 else []
        needed = sum(
            place.length for name, place in tensors.items() if name.startswith(tuple(wanted))
        )
        size = (tmp_path / "part").stat().st_size
        assert 0 < size - needed < HEADER_BYTES
        assert size < most * pack.stat().st_size
    assert verify(tmp_path / "part").good


@pytest.mark.parametrize(("first", "last"), [(0, 3), (3, 3), (-1, 1), (2, 1), (0, 10**30)])
def test_layers_that_the_model_has_not_are_refused(first: int, last: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the model has layers 0 to 2, and not layer"):
        share(ranked_pack(), tmp_path / "part", first, last)
    assert not list(tmp_path.iterdir())


def test_what_is_read_is_not_written_over(tmp_path: Path) -> None:
    pack = tmp_path / "pack"
    shutil.copyfile(ranked_pack(), pack)
    (tmp_path / "link").symlink_to(pack)
    for output in (pack, tmp_path / "link"):
        with pytest.raises(InputError, match="name another output"):
            share(pack, output, 0, 1)
    with pytest.raises(InputError, match="no such directory"):
        share(pack, tmp_path / "none" / "part", 0, 1)
    assert pack.read_bytes() == ranked_pack().read_bytes()


@pytest.mark.parametrize("place", ["words", "plane"])
def test_damage_is_not_passed_on(place: str, tmp_path: Path) -> None:
    data = bytearray(ranked_pack().read_bytes())
    with PackReader.open(ranked_pack()) as reader:
        group = reader.manifest.groups[2]
        lists = reader.group_offset(group) + sum(group.outlier_bytes)
        at = {"words": reader.embeddings_offset, "plane": lists}[place]
    data[at] ^= 4
    (tmp_path / "bad").write_bytes(data)
    (tmp_path / "out").write_bytes(b"before")
    with pytest.raises(PackCorruptError, match="checksum does not match"):
        share(tmp_path / "bad", tmp_path / "out", 0, 1)
    assert (tmp_path / "out").read_bytes() == b"before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad", "out"]
    share(tmp_path / "bad", tmp_path / "out", 2, 2)  # where nothing is damaged
    assert verify(tmp_path / "out").good


def test_where_there_is_no_room_nothing_is_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.statvfs", lambda _: _Full())
    with pytest.raises(StorageError, match=r"No space left on device: .* or more are needed"):
        share(ranked_pack(), tmp_path / "part", 0, 1)
    assert not list(tmp_path.iterdir())


class _Full:
    """What the system says of storage that is full."""

    f_bavail, f_frsize = 0, 4096


def test_what_is_no_pack_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no pack " * 10)
    with pytest.raises(PackFormatError, match="not a safetensors file"):
        share(tmp_path / "text", tmp_path / "part", 0, 0)
