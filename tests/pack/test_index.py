"""The binary index: what it says is what was written, and numbers that cannot be are refused."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shard_tools.packing.build import build
from shard_tools.packing.options import BuildOptions
from sti.errors import PackError, PackFormatError
from sti.pack.index import INDEX, index_arrays, index_hash
from sti.pack.pack_reader import PackReader
from sti.pack.tokenizer import pack_tokenizer
from sti.pack.verify import verify
from tests.support.checkpoints import write_checkpoint
from tests.support.pack_bytes import with_resident, with_table


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers, four slices, two groups in a block."""
    place = tmp_path_factory.mktemp("index")
    write_checkpoint(place / "checkpoint")
    build(place / "checkpoint", place / "pack", BuildOptions(group_bytes=512), progress=False)
    return place / "pack"


def test_groups_go_into_the_index_as_they_came_out_of_it(pack: Path) -> None:
    with PackReader.open(pack) as reader:
        arrays = index_arrays(reader.manifest)
        for name in INDEX:
            np.testing.assert_array_equal(arrays[name], reader.resident(name))
            assert arrays[name].dtype == reader.resident(name).dtype
        assert index_hash(arrays) == reader.manifest.sha256.of_index


def put(place: tuple[int, ...], value: float) -> Callable[[np.ndarray], object]:
    return lambda array: array.__setitem__(place, value)


CASES: dict[str, tuple[str, Callable[[np.ndarray], object], str]] = {
    "odd list": ("outlier_bytes", put((3, 2), 6), "layer 1 ffn: an outlier list"),
    "no list": ("outlier_bytes", put((2, 0), 0), "layer 1 attention: an outlier list"),
    "huge list": ("outlier_bytes", put((0, 1), 2**32 - 4), "layer 0 attention: an outlier list"),
    "longer list": ("outlier_bytes", put((0,), 3088), "attention' has the wrong length"),
    "slice twice": ("orders", put((1, 2), 0), "layer 0 ffn: the order of a plane"),
    "slice of another group": ("orders", put((1, 2, 3), 2), "layer 0 ffn: the order of a plane"),
    "huge slice": ("orders", put((1, 4, 0), 65535), "layer 0 ffn: the order of a plane"),
    "first plane": (
        "orders",
        lambda array: array.__setitem__((0, 0), array[0, 0, [1, 0, 2, 3]]),
        "layer 0 attention: slices of the first plane",
    ),
    "negative gain": ("gains", put((3, 4, 3), -1.0), "layer 1 ffn: a gain is negative"),
    "infinite gain": ("gains", put((0, 1, 0), np.inf), "layer 0 attention: a gain is negative"),
    "no gain": ("gains", put((0, 1, 0), np.nan), "layer 0 attention: a gain is negative"),
}


@pytest.mark.parametrize("case", CASES)
def test_an_index_that_cannot_be_is_refused(pack: Path, tmp_path: Path, case: str) -> None:
    name, change, message = CASES[case]
    (tmp_path / "bad").write_bytes(with_resident(pack.read_bytes(), f"index.{name}", change))
    with pytest.raises(PackFormatError, match=message):
        PackReader.open(tmp_path / "bad")


@pytest.mark.parametrize("name", INDEX)
def test_an_index_of_another_shape_or_type_is_refused(
    pack: Path, tmp_path: Path, name: str
) -> None:
    for key, value in (("shape", [2, 8]), ("shape", []), ("dtype", "U8")):

        def change(table: dict[str, dict[str, object]]) -> None:
            entry = table[name]
            begin, end = entry["data_offsets"]  # type: ignore[misc]
            entry[key] = value  # noqa: B023
            size = (end - begin) // {"U32": 4, "F32": 4, "U16": 2, "U8": 1}[str(entry["dtype"])]
            entry["shape"] = [size] if key == "dtype" else [1, size]  # noqa: B023

        (tmp_path / "bad").write_bytes(with_table(pack.read_bytes(), change))
        with pytest.raises(PackFormatError, match=f"{name}' must be"):
            PackReader.open(tmp_path / "bad")


@settings(max_examples=150)
@given(data=st.data())
def test_an_odd_index_raises_nothing_but_pack_errors(
    pack: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(INDEX))

    def change(array: np.ndarray) -> None:
        flat = array.reshape(-1).view(np.uint8)
        for _ in range(data.draw(st.integers(1, 3))):
            flat[data.draw(st.integers(0, flat.size - 1))] = data.draw(st.integers(0, 255))

    path = tmp_path_factory.getbasetemp() / "odd-index"
    path.write_bytes(with_resident(pack.read_bytes(), name, change))
    with suppress(PackError), PackReader.open(path):
        verify(path)


@settings(max_examples=100)
@given(data=st.data())
def test_an_odd_index_of_the_vocabulary_hides_words_at_worst(
    pack: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(["starts", "order", "buckets"]))

    def change(array: np.ndarray) -> None:
        for _ in range(data.draw(st.integers(1, 4))):
            place = data.draw(st.integers(0, array.size - 1))
            near = st.integers(max(0, int(array[place]) - 2), int(array[place]) + 2)
            array[place] = data.draw(st.one_of(near, st.integers(0, 2**32 - 1)))

    path = tmp_path_factory.getbasetemp() / "odd-vocabulary"
    path.write_bytes(with_resident(pack.read_bytes(), f"tokenizer.{name}", change))
    with PackReader.open(path) as reader, suppress(PackFormatError):
        tokenizer = pack_tokenizer(reader)
        ids = tokenizer.encode("the dog runs under a red table, word7 ##ing").ids
        assert ((ids >= 0) & (ids < tokenizer.vocab_size)).all()


@pytest.mark.parametrize("name", ["starts", "order", "buckets"])
def test_a_vocabulary_with_the_index_of_another_is_reported(
    pack: Path, tmp_path: Path, name: str
) -> None:
    swapped = with_resident(
        pack.read_bytes(),
        f"tokenizer.{name}",
        lambda array: array.__setitem__(slice(8, 10), array[9:7:-1].copy()),
    )
    (tmp_path / "bad").write_bytes(swapped)
    parts = [item.part for item in verify(tmp_path / "bad").damage]
    assert parts[0] == "vocabulary"
