"""Where staircases come from: the pack, the cache, or made once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from shard_tools.packing.repack import repack
from sti.calibration.cache import cache_directory
from sti.engine.staircase_source import staircases_of
from sti.engine.staircases_apart import staircases_apart
from sti.errors import PackFormatError
from sti.pack.pack_reader import PackReader
from sti.pack.verify import verify
from sti.planning import staircase_making
from sti.planning.staircase_making import make_staircases
from sti.planning.staircases import Staircases
from tests.support.ranked_packs import ranked_pack


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of packs whose staircases were made."""
    found: list[str] = []
    real = make_staircases

    def make(manifest):  # type: ignore[no-untyped-def]
        found.append(manifest.name)
        return real(manifest)

    monkeypatch.setattr(staircase_making, "make_staircases", make)
    for path in cache_directory().glob("staircases-*"):
        path.unlink()
    return found


@pytest.fixture
def plain() -> Iterator[PackReader]:
    with PackReader.open(ranked_pack()) as reader:
        yield reader


def with_staircases(reader: PackReader, path: Path, raw: bytes) -> Path:
    repack(reader, path, reader.manifest, staircases=raw)
    return path


def same(one: Staircases, other: Staircases) -> bool:
    return np.array_equal(one.counts, other.counts) and np.array_equal(one.loss, other.loss)


def untold(message: str) -> None:
    raise AssertionError(message)


def test_a_pack_without_them_gets_them_once(plain: PackReader, made: list[str]) -> None:
    first = staircases_of(plain, untold)
    again = staircases_of(plain, untold)
    assert len(made) == 1
    assert same(first, again) and same(first, make_staircases(plain.manifest))


@pytest.mark.parametrize("damage", [b"", b"stair", b"nonsense" * 99])
def test_damaged_ones_in_the_cache_are_made_again(
    plain: PackReader, made: list[str], damage: bytes
) -> None:
    first = staircases_of(plain, untold)
    (path,) = cache_directory().glob("staircases-*.bin")
    path.write_bytes(damage)
    assert same(staircases_of(plain, untold), first)
    assert len(made) == 2
    assert same(staircases_of(plain, untold), first)
    assert len(made) == 2


def test_a_pack_that_brings_them_needs_neither(
    plain: PackReader, made: list[str], tmp_path: Path
) -> None:
    few = make_staircases(plain.manifest)
    few = Staircases(few.submodel[:9], few.counts[:9], few.loss[:9], few.narrow_loss[:9])
    path = with_staircases(plain, tmp_path / "pack", few.to_bytes(plain.manifest))
    assert verify(path).good
    with PackReader.open(path) as reader:
        assert same(staircases_of(reader, untold), few)
        assert reader.manifest.sha256.content == plain.manifest.sha256.content
        assert reader.pack_id != plain.pack_id
    assert made == [] and not list(cache_directory().glob("staircases-*"))


def test_a_pack_whose_own_do_not_fit_is_told_of_and_gets_others(
    plain: PackReader, made: list[str], tmp_path: Path
) -> None:
    path, told = with_staircases(plain, tmp_path / "pack", b"stairs of old"), []
    with PackReader.open(path) as reader:
        found = staircases_of(reader, told.append)
    assert same(found, make_staircases(plain.manifest)) and len(made) == 1
    assert len(told) == 1 and f"{path}: staircases: no staircases" in told[0]


def test_what_another_process_finds_of_the_pack_is_raised_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "pack"
    path.write_bytes(ranked_pack().read_bytes())
    with PackReader.open(path) as reader:
        assert same(
            Staircases.from_bytes(staircases_apart(reader), reader.manifest, where="there"),
            make_staircases(reader.manifest),
        )
        path.write_bytes(b"\x00" * 100)
        with pytest.raises(PackFormatError) as there:
            staircases_apart(reader)
    with pytest.raises(PackFormatError) as here:
        PackReader.open(path)
    assert str(there.value) == str(here.value)


def test_staircases_of_another_ranking_are_not_passed_on(plain: PackReader, tmp_path: Path) -> None:
    raw = make_staircases(plain.manifest).to_bytes(plain.manifest)
    path = with_staircases(plain, tmp_path / "pack", raw)
    with PackReader.open(path) as reader:
        assert reader.has_resident("staircases")
        repack(reader, tmp_path / "again", reader.manifest)
    with PackReader.open(tmp_path / "again") as reader:
        assert not reader.has_resident("staircases")
