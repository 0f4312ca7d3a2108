"""Journals of finished steps: kept from the first one on, and trusted only as they were written."""

from __future__ import annotations

import hashlib
import io
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from shard_tools.ranking.journal import Journal


def kept(path: Path, steps: int = 3) -> Journal:
    journal = Journal(path, "mine", (2,))
    for number in range(steps):
        journal.step(str(number), lambda number=number: np.full(2, number, np.float32))
    journal.save()
    return journal


def never() -> np.ndarray:
    pytest.fail("the step is in the journal")


def test_the_first_step_is_on_storage_at_once_and_only_the_user_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    Journal(path, "mine", (2,)).step("one", lambda: np.ones(2, np.float32))
    found = Journal(path, "mine", (2,))
    assert "continuing after 1 finished steps" in found.notice
    np.testing.assert_array_equal(found.step("one", never), np.ones(2))
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_journal_that_was_changed_anywhere_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    kept(path)
    whole = path.read_bytes()
    for place in range(0, len(whole), 40):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        found = Journal(path, "mine", (2,))
        assert "it is damaged); starting again" in found.notice
        assert "0" not in found
    path.write_bytes(whole[:-1])
    assert "it is damaged" in Journal(path, "mine", (2,)).notice


def test_a_journal_that_others_may_write_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    kept(path)
    path.chmod(0o666)
    assert "others than the user may write to it" in Journal(path, "mine", (2,)).notice


def test_a_link_in_its_place_is_neither_read_nor_followed(tmp_path: Path) -> None:
    path, other = tmp_path / "journal", tmp_path / "other"
    kept(other)
    before = other.read_bytes()
    path.symlink_to(other)
    assert "starting again" in Journal(path, "mine", (2,)).notice
    kept(path, 1)
    assert not path.is_symlink()
    assert other.read_bytes() == before


def test_an_archive_that_holds_more_than_it_is_long_is_not_unpacked(tmp_path: Path) -> None:
    packed, path = io.BytesIO(), tmp_path / "journal"
    np.savez_compressed(packed, key=np.array("mine"), one=np.zeros(1 << 22, np.float32))
    sealed(path, packed.getvalue())
    tracemalloc.start()
    try:
        assert "holds more than it is long" in Journal(path, "mine", (1 << 22,)).notice
        assert tracemalloc.get_traced_memory()[1] < 1 << 22
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("array", [np.zeros(3, np.float32), np.zeros(2), np.array(["a", "b"])])
def test_an_array_that_no_step_makes_is_not_used(tmp_path: Path, array: np.ndarray) -> None:
    packed, path = io.BytesIO(), tmp_path / "journal"
    np.savez(packed, key=np.array("mine"), one=array)
    sealed(path, packed.getvalue())
    found = Journal(path, "mine", (2,))
    assert "is not what a step makes" in found.notice and "one" not in found


def sealed(path: Path, content: bytes) -> None:
    path.write_bytes(hashlib.sha256(content).digest() + content)
    path.chmod(0o600)
