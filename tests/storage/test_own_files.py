"""Files that steer are the user's alone; files that the user names are read without a hang."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from sti.errors import InputError, PackError
from sti.pack.pack_file import PackFile
from sti.storage import own_files, plain_files
from sti.storage.atomic_file import write_file
from sti.storage.own_files import make_directory, read_own
from sti.storage.plain_files import read_plain

Read = Callable[[Path, int], bytes]
BOTH = pytest.mark.parametrize("read", [read_own, read_plain])


@BOTH
def test_a_regular_file_is_read_whole_or_not_at_all(read: Read, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    path.chmod(0o600)
    assert read(path, 10) == b"0123456789"
    with pytest.raises(OSError, match="more than the 9 bytes"):
        read(path, 9)


@BOTH
def test_devices_and_directories_are_refused_at_once(read: Read, tmp_path: Path) -> None:
    for path in (Path("/dev/zero"), tmp_path):
        with pytest.raises(OSError, match=r"no regular file|not of the kind|[Dd]irectory"):
            read(path, 10)


@BOTH
def test_a_pipe_that_nobody_writes_to_hangs_nobody(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain_files, "PATIENCE_S", 0.05)
    path = tmp_path / "pipe"
    os.mkfifo(path, 0o600)
    writer = os.open(path, os.O_RDWR)
    try:
        with pytest.raises(OSError, match=r"nobody wrote|not of the kind"):
            read(path, 10)
    finally:
        os.close(writer)


def test_a_pipe_that_the_user_names_is_read_to_its_end() -> None:
    there, writer = os.pipe()
    big = b"x" * 300_000

    def write() -> None:
        with os.fdopen(writer, "wb") as stream:
            stream.write(big)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        assert read_plain(Path(f"/dev/fd/{there}"), 1 << 20) == big
    finally:
        thread.join()
        os.close(there)


def test_what_others_may_write_or_a_link_is_not_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"text")
    path.chmod(0o620)
    with pytest.raises(PermissionError, match="others than the user"):
        read_own(path, 10)
    path.chmod(0o600)
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(OSError, match="symbolic links"):
        read_own(tmp_path / "link", 10)
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(PermissionError, match="others than the user"):
        read_own(path, 10)


def test_a_directory_is_made_the_users_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new, open_to_others, file = tmp_path / "a" / "new", tmp_path / "open", tmp_path / "file"
    open_to_others.mkdir()
    open_to_others.chmod(0o777)
    (tmp_path / "link").symlink_to(open_to_others)
    for place in (new, tmp_path / "link"):
        make_directory(place)
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
    file.touch()
    with pytest.raises(NotADirectoryError):
        make_directory(file)
    monkeypatch.setattr(own_files.os, "geteuid", lambda: new.stat().st_uid + 1)
    with pytest.raises(PermissionError, match="belongs to someone else"):
        make_directory(new)


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_what_no_file_can_be_called_is_told(name: str) -> None:
    for read in (read_own, read_plain):
        with pytest.raises(FileNotFoundError, match="no file can have this name"):
            read(Path(name), 10)
    with pytest.raises(PackError, match="no file can have this name"):
        PackFile(Path(name))
    with pytest.raises(InputError, match="no file can have this name"):
        write_file(name, "text")
