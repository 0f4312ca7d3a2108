"""Codebooks and ladders: what survives JSON, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shard_tools.quantization.codebook import build_codebook
from sti.codec.codebook import DEFAULT_LADDER, Codebook, check_ladder, plane_bytes
from sti.errors import PackFormatError
from tests.support.codes import bell_codebook, ladders, wild_codebook
from tests.support.paths import GOLDEN


def test_golden_counts_still_give_the_same_book() -> None:
    golden = json.loads((GOLDEN / "nested_code.json").read_text(encoding="utf-8"))
    counts = np.array(golden["counts"], dtype=np.int64)
    codebook = build_codebook(counts, cut=golden["cut"], ladder=golden["ladder"])
    assert codebook.to_json() == golden["book"]


@pytest.mark.parametrize("ladder", [(), (1, 2), (2, 2), (3, 2), (2, 9), (0,), (8, 4)])
def test_malformed_ladders_are_refused(ladder: tuple[int, ...]) -> None:
    with pytest.raises(PackFormatError, match="increase within"):
        check_ladder(ladder)


@pytest.mark.parametrize("weights", [0, 4, 12, 1001])
def test_weights_must_come_in_eights(weights: int) -> None:
    with pytest.raises(PackFormatError, match="multiple of 8"):
        plane_bytes(DEFAULT_LADDER, weights)


@given(ladder=ladders, seed=st.integers(0, 99))
def test_books_survive_json(ladder: tuple[int, ...], seed: int) -> None:
    codebook = wild_codebook(ladder, seed=seed)
    again = Codebook.from_json(json.loads(json.dumps(codebook.to_json())))
    assert again.ladder == codebook.ladder
    for bits in ladder:
        np.testing.assert_array_equal(again.values[bits], codebook.values[bits])


def _broken_books() -> list[Any]:
    def changed(**changes: Any) -> dict[str, Any]:
        return {**bell_codebook((2, 3)).to_json(), **changes}

    four, eight = [0, 1, 2, 3], [0, 1, 2, 3, 4, 5, 6, 7]
    return [
        None,
        [],
        {},
        {"ladder": [2, 3]},
        changed(more=1),
        changed(ladder=[3, 2]),
        changed(ladder=[2]),
        changed(ladder=[2, 3, 4]),
        changed(ladder=["2", "3"]),
        changed(ladder=[2.0, 3.0]),
        changed(ladder=[True, 3]),
        changed(ladder=2),
        changed(values=[four, eight]),
        changed(values={"2": four}),
        changed(values={"3": eight, "2": four}),
        changed(values={"2": four, "3": eight[:-1]}),
        changed(values={"2": four, "3": [*eight, 8]}),
        changed(values={"2": [0, 1, 2, 128], "3": eight}),
        changed(values={"2": [0, 1, 2, -129], "3": eight}),
        changed(values={"2": [0, 1, 2, 3.0], "3": eight}),
        changed(values={"2": [0, 1, 2, None], "3": eight}),
        changed(values={"2": [0, 1, 2, True], "3": eight}),
        changed(values={"2": "0123", "3": eight}),
    ]


@pytest.mark.parametrize("data", _broken_books(), ids=repr)
def test_malformed_books_are_refused(data: Any) -> None:
    with pytest.raises(PackFormatError):
        Codebook.from_json(data)


def test_values_of_a_book_cannot_be_changed() -> None:
    values = {2: np.zeros(4, dtype=np.int8)}
    codebook = Codebook((2,), values)
    values[2][0] = 1
    assert codebook.values[2][0] == 0
    with pytest.raises(ValueError, match="read-only"):
        codebook.values[2][0] = 1
