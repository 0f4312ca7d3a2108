"""Where caches and configuration lie: never beside the root because a home is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from sti.calibration.cache import Cache, cache_directory
from sti.calibration.history_file import HistoryFile
from sti.device.user_places import NOWHERE, user_directory
from sti.errors import StiWarning
from sti.planning.history import History


@pytest.mark.parametrize("home", ["", "relative", "./x"])
@pytest.mark.parametrize("named", ["", "relative/cache"])
def test_without_an_absolute_home_nothing_is_kept(
    home: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", home)
    monkeypatch.setenv("XDG_CACHE_HOME", named)
    assert user_directory("XDG_CACHE_HOME", ".cache") == NOWHERE
    assert cache_directory().is_relative_to(NOWHERE)


def test_a_variable_that_is_absolute_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert user_directory("XDG_CACHE_HOME", ".cache") == tmp_path / "home" / ".cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_directory("XDG_CACHE_HOME", ".cache") == tmp_path


def test_that_nothing_can_be_kept_is_told_once(tmp_path: Path) -> None:
    cache = Cache(NOWHERE / tmp_path.name)
    with pytest.warns(StiWarning, match="without a home directory: HOME is empty"):
        assert cache.store_threads({}, 2) is None
    assert cache.store_threads({}, 2) is None  # warnings are errors
    assert HistoryFile("pack", cache).add(History()) is None
    assert cache.load_threads({}) is None
