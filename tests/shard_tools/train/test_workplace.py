"""The directory that a training run works in, whenever the run is killed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.importorskip("torch")

from shard_tools.train import workplace as module
from shard_tools.train.workplace import CHECKPOINT, check_output, finish, workplace
from sti.errors import InputError, StorageError


class Killed(BaseException):
    """Stands for the end of the process."""


def work_in(output: Path) -> None:
    """All that a run leaves in its directory before it finishes."""
    with workplace(output) as work:
        (work / "training.jsonl").write_text("log")
        (work / "state.bin").write_text("state")
        (work / CHECKPOINT).mkdir(exist_ok=True)
        (work / CHECKPOINT / "model").write_text("weights")
        finish(work, output)


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_a_run_that_is_killed_while_it_finishes_loses_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    output, done = tmp_path / "out", []

    def rename(old: Path, new: Path) -> None:
        if len(done) == renames:
            raise Killed
        os.replace(old, new)
        done.append(new)

    with monkeypatch.context() as patched:
        patched.setattr(module.os, "rename", rename)
        patched.setattr(module.shutil, "rmtree", lambda *_, **__: rename(output, output))
        with pytest.raises(Killed):
            work_in(output)
    if renames == 2:
        with pytest.raises(InputError, match="exists"):
            check_output(output)
    else:
        check_output(output)
        assert (tmp_path / "out.training" / CHECKPOINT / "model").read_text() == "weights"
        work_in(output)
    assert list(tmp_path.iterdir()) == [output]
    assert (output / "model").read_text() == "weights"


def test_a_run_that_fails_before_it_has_a_state_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with workplace(tmp_path / "out") as work:
            (work / "training.jsonl").write_text("log")
            raise Killed

    with pytest.raises(Killed):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_one_process_works_there_at_a_time(tmp_path: Path) -> None:
    with (
        workplace(tmp_path / "out"),
        pytest.raises(InputError, match="another process works there"),
        workplace(tmp_path / "out"),
    ):
        pytest.fail("two at once")


def test_a_directory_of_something_else_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "out.training").mkdir()
    (tmp_path / "out.training" / "mine").touch()
    with pytest.raises(InputError, match="of something else"), workplace(tmp_path / "out"):
        pytest.fail("it was used")
    (tmp_path / "out.training").chmod(0o777)
    with pytest.raises(StorageError, match="others than the user"), workplace(tmp_path / "out"):
        pytest.fail("it was used")
    assert os.listdir(tmp_path / "out.training") == ["mine"]
