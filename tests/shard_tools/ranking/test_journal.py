"""Journals of finished steps: kept from the first one on, and trusted only as they were written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shard_tools.ranking.journal import Journal


def kept(path: Path, steps: int = 3) -> Journal:
    journal = Journal(path, "mine")
    for number in range(steps):
        journal.step(str(number), lambda number=number: np.full(2, number, np.float32))
    journal.save()
    return journal


def never() -> np.ndarray:
    pytest.fail("the step is in the journal")


def test_the_first_step_is_on_storage_at_once_and_only_the_user_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    Journal(path, "mine").step("one", lambda: np.ones(2, np.float32))
    found = Journal(path, "mine")
    assert "continuing after 1 finished steps" in found.notice
    np.testing.assert_array_equal(found.step("one", never), np.ones(2))
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_journal_that_was_changed_anywhere_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    kept(path)
    whole = path.read_bytes()
    for place in range(0, len(whole), 40):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        found = Journal(path, "mine")
        assert "it is damaged); starting again" in found.notice
        assert "0" not in found
    path.write_bytes(whole[:-1])
    assert "it is damaged" in Journal(path, "mine").notice


def test_a_journal_that_others_may_write_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    kept(path)
    path.chmod(0o666)
    assert "others than the user may write to it" in Journal(path, "mine").notice


def test_a_link_in_its_place_is_neither_read_nor_followed(tmp_path: Path) -> None:
    path, other = tmp_path / "journal", tmp_path / "other"
    kept(other)
    before = other.read_bytes()
    path.symlink_to(other)
    assert "starting again" in Journal(path, "mine").notice
    kept(path, 1)
    assert not path.is_symlink()
    assert other.read_bytes() == before
