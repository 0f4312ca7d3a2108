"""Files that are replaced as a whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sti.errors import InputError
from sti.storage.atomic_file import (
    remove_abandoned_drafts,
    remove_drafts,
    replacing,
    write_file,
)
from tests.support.paths import ROOT


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


def test_writers_of_one_path_do_not_disturb_one_another(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with replacing(path) as first, replacing(path) as second:
        first.write(b"outer")
        second.write(b"inner")
    assert path.read_bytes() == b"outer"  # it ended last
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


def test_drafts_of_killed_writers_are_removed_and_those_of_running_ones_kept(
    tmp_path: Path,
) -> None:
    path = tmp_path / "file"
    killed = (
        "import os, pathlib, signal, sys; from sti.storage.atomic_file import replacing\n"
        "with replacing(pathlib.Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run([sys.executable, "-c", killed, str(path)], check=False, cwd=ROOT)
    assert ended.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    strange = tmp_path / ".file.99999999999999999999-0.part"
    strange.touch()
    with replacing(path):
        remove_abandoned_drafts(path)
        assert not left.exists()
        assert len(list(tmp_path.iterdir())) == 2
    assert sorted(tmp_path.iterdir()) == [strange, path]


def test_only_drafts_of_the_file_itself_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with replacing(path), replacing(tmp_path / "file2"):
        drafts = sorted(item.name for item in tmp_path.iterdir())
    assert len(drafts) == 2
    (tmp_path / "file2").unlink()
    for name in drafts:  # as if the writers had been killed
        (tmp_path / name).touch()
    path.touch()
    remove_drafts(path)
    assert sorted(item.name for item in tmp_path.iterdir()) == [
        next(name for name in drafts if name.startswith(".file2.")),
        "file",
    ]
