"""Files that are replaced as a whole or not at all."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sti.errors import InputError
from sti.storage.atomic_file import replacing, write_file
from sti.storage.drafts import is_draft, remove_all_abandoned_drafts
from sti.storage.file_lock import lock_open
from tests.support.paths import ROOT


def drafts(directory: Path) -> list[Path]:
    return [path for path in directory.iterdir() if is_draft(path.name)]


class Stop(Exception):
    """What a body stops with."""


def test_a_file_appears_whole_when_the_body_ends(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with replacing(path) as stream:
        stream.write(b"new, ")
        stream.flush()
        assert path.read_bytes() == b"old"
        stream.write(b"in pieces")
    assert path.read_bytes() == b"new, in pieces"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("durable", [False, True])
def test_a_body_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, *, durable: bool
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def half() -> None:
        with replacing(path, durable=durable) as stream:
            stream.write(b"half")
            raise Stop

    with pytest.raises(Stop):
        half()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_has_the_rights_that_the_user_gives_to_new_files(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    write_file(str(tmp_path / "written"), "")
    modes = {os.stat(tmp_path / name).st_mode for name in ("plain", "written")}
    assert len(modes) == 1


def test_a_place_that_does_not_exist_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "no" / "file"):
        pytest.fail("there is nothing to write to")
    with pytest.raises(InputError, match=r"no/file: cannot be written: No such file or directory"):
        write_file(str(tmp_path / "no" / "file"), "text")


KILLED = """
import os, pathlib, signal, sys
from sti.storage.atomic_file import replacing
with replacing(pathlib.Path(sys.argv[1])):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_next_writer_removes_what_a_killed_one_left_and_spares_those_at_work(
    tmp_path: Path,
) -> None:
    path = tmp_path / "file"
    for target in (path, tmp_path / "file.b"):
        ended = subprocess.run([sys.executable, "-c", KILLED, target], check=False, cwd=ROOT)
        assert ended.returncode == -signal.SIGKILL
    assert len(drafts(tmp_path)) == 2
    with replacing(path) as first, replacing(path) as second:
        first.write(b"first")
        second.write(b"second")
        assert len(drafts(tmp_path)) == 3, "two at work, and one of the other file"
    assert path.read_bytes() == b"first"  # it ended last
    (left,) = drafts(tmp_path)
    assert left.name.startswith(".file.b.")
    remove_all_abandoned_drafts(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_draft_that_was_taken_for_abandoned_before_it_was_locked_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, taken = tmp_path / "file", []

    def after_another(descriptor: int) -> bool:
        if not taken:  # between making the draft and locking it
            taken.extend(drafts(tmp_path))
            taken[0].unlink()
        return lock_open(descriptor)

    monkeypatch.setattr("sti.storage.drafts.lock_open", after_another)
    with replacing(path) as stream:
        stream.write(b"whole")
    assert taken
    assert path.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [path]


def test_what_only_looks_like_a_draft_stays_and_is_not_opened(tmp_path: Path) -> None:
    path, other = tmp_path / "file", tmp_path / "other"
    other.write_bytes(b"mine")
    os.mkfifo(tmp_path / f".file.{'0' * 16}.part")
    (tmp_path / f".file.{'1' * 16}.part").symlink_to(other)
    (tmp_path / ".file.mine.part").touch()
    before = sorted(tmp_path.iterdir())
    with replacing(path):
        pass
    assert sorted(tmp_path.iterdir()) == sorted([*before, path])
    assert other.read_bytes() == b"mine"


def test_a_link_is_replaced_and_what_it_pointed_to_stays(tmp_path: Path) -> None:
    path, other = tmp_path / "link", tmp_path / "other"
    other.write_bytes(b"mine")
    path.symlink_to(other)
    write_file(str(path), "new")
    assert not path.is_symlink()
    assert (path.read_bytes(), other.read_bytes()) == (b"new", b"mine")


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o777])
def test_a_file_that_is_replaced_keeps_its_rights(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "file"
    path.touch()
    path.chmod(mode)
    write_file(str(path), "new")
    assert path.stat().st_mode & 0o777 == mode


def test_the_longest_name_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    write_file(str(path), "text")
    assert list(tmp_path.iterdir()) == [path]


FULL = """
import resource, signal, sys
from sti.storage.atomic_file import write_file
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
write_file(sys.argv[1], "x" * 1_000_000)
"""


def test_a_file_that_may_not_be_so_large_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    ended = subprocess.run(
        [sys.executable, "-c", FULL, tmp_path / "file"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert "StorageError" in ended.stderr
    assert "file: cannot be written: File too large: 1.000 MB or more are needed" in ended.stderr
    assert (tmp_path / "file").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_what_is_known_not_to_fit_is_not_begun(tmp_path: Path) -> None:
    path = tmp_path / "file"
    told = r"No space left on device: 1000000000000\.000 MB or more are needed, .* MB are free"
    with pytest.raises(OSError, match=told), replacing(path, needed_bytes=10**18):
        pytest.fail("it was begun")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_full_storage_leaves_nothing_whichever_call_meets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(f"sti.storage.atomic_file.os.{call}", full)
    path = tmp_path / "file"
    with (
        pytest.raises(OSError, match=r"5 bytes or more are needed, .* are free"),
        replacing(path, durable=True) as stream,
    ):
        stream.write(b"bytes")
    assert list(tmp_path.iterdir()) == []


def test_what_the_process_has_open_is_written_to_not_replaced(
    capfd: pytest.CaptureFixture[str],
) -> None:
    before = os.lstat("/dev/stdout")
    write_file("/dev/stdout", "said")
    assert os.lstat("/dev/stdout").st_ino == before.st_ino
    assert capfd.readouterr().out == "said"
