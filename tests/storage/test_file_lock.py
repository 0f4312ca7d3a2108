"""Locks of files: one holder at a time, of files that are the user's own."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from sti.storage.file_lock import locked, patience


def never() -> bool:
    return False


def test_one_at_a_time_holds_it_and_others_give_up_when_they_want(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path, never) as first:
        asked: list[int] = []

        def twice() -> bool:
            asked.append(1)
            return len(asked) < 2

        with locked(path, twice) as second:
            assert (first, second, len(asked)) == (True, False, 2)
    with locked(path, never) as third:
        assert third
    assert path.stat().st_mode & 0o777 == 0o600


def test_whoever_waits_gets_it_when_the_other_one_lets_go(tmp_path: Path) -> None:
    path, waiting, got = tmp_path / "lock", threading.Event(), threading.Event()
    patient = patience(60.0, poll_s=0.001)

    def wait() -> bool:
        waiting.set()
        return patient()

    def second() -> None:
        with locked(path, wait) as held:
            if held:
                got.set()

    thread = threading.Thread(target=second)
    with locked(path, never):
        thread.start()
        assert waiting.wait(60.0)
        assert not got.is_set()
    thread.join()
    assert got.is_set()


def _directory(path: Path) -> None:
    path.mkdir()


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _link(path: Path) -> None:
    (path.parent / "elsewhere").write_text("")
    path.symlink_to(path.parent / "elsewhere")


def _open_to_others(path: Path) -> None:
    path.write_text("")
    path.chmod(0o666)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_directory, "Is a directory"),
        (_fifo, "not of the kind that STI made"),
        (_link, "symbolic links"),
        (_open_to_others, "others than the user may write to it"),
    ],
)
def test_what_is_no_file_of_ones_own_is_refused(
    tmp_path: Path, make: Callable[[Path], None], said: str
) -> None:
    make(tmp_path / "lock")
    with pytest.raises(OSError, match=said), locked(tmp_path / "lock", never):
        pass


def test_file_systems_without_locks_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match="No locks available"), locked(tmp_path / "lock", never):
        pass
