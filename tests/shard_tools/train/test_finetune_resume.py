"""Runs of ``sti-shard finetune`` that are stopped, killed or diverge, and continue."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from shard_tools.cli.main import main
from shard_tools.train import stages
from shard_tools.train.finetune import Finetuned
from shard_tools.train.optimizing import Optimizer
from shard_tools.train.schedule import Schedule
from shard_tools.train.state import Stage, load_state
from shard_tools.train.state_file import read_values
from sti.errors import InputError, RunError
from tests.support import training
from tests.support.paths import ROOT
from tests.support.training import FAST, Stop, arguments, contents, stop, stopping, tuned


@pytest.fixture(scope="module")
def place() -> Path:
    """See ``tests.support.training``."""
    return training.place()


@pytest.fixture(scope="module")
def made() -> Finetuned:
    """An uninterrupted run."""
    return training.uninterrupted()


def logged(directory: Path) -> list[tuple[str, int]]:
    """Where the records of a log were written."""
    lines = (directory / "training.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return [(item.get("stage", "between"), item.get("step", 0)) for item in records]


@pytest.mark.parametrize(("saves", "more"), [(2, 3), (5, 2), (7, 2)])
def test_a_stopped_run_goes_on_to_the_same_bytes(
    made: Finetuned,
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    saves: int,
    more: int,
) -> None:
    output = tmp_path / "out"

    with stopping(monkeypatch, saves, stop), pytest.raises(Stop):
        tuned(place, output)
    assert not output.exists()
    with stopping(monkeypatch, more, stop), pytest.raises(Stop):
        tuned(place, output)
    assert tuned(place, output).scores == made.scores
    assert contents(output) == contents(made.directory)
    assert logged(output) == logged(made.directory)


KILLED = """
import os, signal, sys
from pathlib import Path
from shard_tools.train import record
from shard_tools.train.state import save_state
from tests.support.training import tuned

count = 0

def counted(*args):
    global count
    save_state(*args)
    count += 1
    if count == 8:
        os.kill(os.getpid(), signal.SIGKILL)

record.save_state = counted
tuned(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_a_killed_run_goes_on_to_the_same_bytes(
    made: Finetuned, place: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, place, output],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=False,
        cwd=ROOT,
        timeout=120,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.training"]
    tuned(place, output)
    assert contents(output) == contents(made.directory)


def test_the_state_of_a_run_with_other_options_or_data_is_refused_and_kept(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"

    with stopping(monkeypatch, 2, stop), pytest.raises(Stop):
        tuned(place, output)
    state = tmp_path / "out.training" / "state.bin"
    before = state.read_bytes()
    for changes in ({"seed": 1}, {"batch": 7}, {"task": "pair"}, {"max_tokens": 9}):
        with pytest.raises(InputError, match="belongs to a run with other data or options"):
            tuned(place, output, **changes)
    assert state.read_bytes() == before
    state.write_bytes(b"rubbish")
    with pytest.raises(InputError, match="is no training state; remove it to start again"):
        tuned(place, output)


def test_a_loss_that_is_not_a_number_stops_the_run_before_any_state(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(place, tmp_path / "out", "--rate", "1e30", "--quiet", *FAST)) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "is not a finite number in step" in said.err
    assert said.err.endswith("of the plain stage; try a lower --plain-rate\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("stage", ["plain", "elastic"])
def test_the_last_good_state_is_kept_and_can_be_gone_on_from(
    made: Finetuned, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """A loss goes astray once, as a machine's error would have it, behind some good steps."""
    output, state = tmp_path / "out", tmp_path / "out.training" / "state.bin"
    name = "label_loss" if stage == "plain" else "pass_loss"
    real, count = getattr(stages, name), 0

    def astray(*args: Any, **more: Any) -> torch.Tensor:
        nonlocal count
        count += 1
        loss: torch.Tensor = real(*args, **more)
        return loss * torch.nan if count == 18 or (stage == "plain" and count == 4) else loss

    option = "--plain-rate" if stage == "plain" else "--rate"
    with monkeypatch.context() as patch:
        patch.setattr(stages, name, astray)
        hint = f"{stage} stage; the same command with a lower {option} continues"
        with pytest.raises(RunError, match=f"the loss is not .* {hint}"):
            tuned(place, output)
    with state.open("rb") as stream:
        key = read_values(stream)["key"]
    found = load_state(state, key)
    assert found is not None and found.stage == stage
    assert found.step == (2 if stage == "plain" else 3)
    assert all(bool(tensor.isfinite().all()) for tensor in found.network.values())
    tuned(place, output)
    assert contents(output) == contents(made.directory)
    assert logged(output) == logged(made.directory)  # what the lost steps wrote is not there twice


def test_a_run_goes_on_with_a_lower_rate(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    with stopping(monkeypatch, 2, stop), pytest.raises(Stop):
        tuned(place, output)
    used: list[float] = []
    real = Optimizer.step

    def noted(self: Optimizer) -> None:
        used.append(self.state()[0]["param_groups"][0]["lr"])  # of the encoder's matrices
        real(self)

    monkeypatch.setattr(Optimizer, "step", noted)
    tuned(place, output, rate=1e-6, plain_rate=1e-6, head_rate=1e-6)
    assert used and max(used) <= 1e-6
    report = json.loads((output / "elastic.json").read_text())
    assert report["training"]["rate"] == 1e-6
    assert (output / "training.jsonl").read_text().count("other rates from here on") == 1


def test_weights_that_overflow_never_reach_the_state(place: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a finite number"):
        tuned(place, tmp_path / "out", rate=1e38, plain_rate=1e38, head_rate=1e38, save_s=0.0)
    state = tmp_path / "out.training" / "state.bin"
    with state.open("rb") as stream:
        weights = read_values(stream)["network"].values()
    assert all(float(tensor.abs().max()) < 100 for tensor in weights)


def test_ctrl_c_says_that_the_run_can_go_on(
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "out"

    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with stopping(monkeypatch, 1, interrupt):
        code = main(arguments(place, output, "--quiet", *FAST))
    said = capsys.readouterr()
    assert (code, said.out) == (130, "")
    assert said.err == (
        f"sti-shard finetune: interrupted; the same command continues from what {output}.training "
        "holds\n"
    )
    assert (tmp_path / "out.training" / "state.bin").exists()
    assert main(arguments(place, output, "--quiet", *FAST)) == 0


def test_ctrl_c_before_the_first_state_promises_nothing(
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("shard_tools.train.finetune.read_dataset", interrupt)
    assert main(arguments(place, tmp_path / "out", *FAST)) == 130
    said = capsys.readouterr()
    assert said.err == (
        "sti-shard finetune: interrupted; nothing was kept yet; the same command starts again from "
        "the beginning\n"
    )


def test_progress_counts_down_to_what_is_left_of_a_resumed_run(
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    totals = []
    real = Schedule.work_left

    def noted(self: Schedule, stage: Stage, step: int) -> float:
        totals.append(real(self, stage, step))
        return totals[-1]

    monkeypatch.setattr(Schedule, "work_left", noted)
    for saves in (2, 6, 2):
        with stopping(monkeypatch, saves, stop), pytest.raises(Stop):
            tuned(place, tmp_path / "out")
    assert totals == sorted(totals, reverse=True)
    assert len(set(totals)) == 3 and totals[-1] > 0
