"""How the programs end by signals: cleaned up, one line, the conventional exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PROGRAM = """
import argparse, os, signal, sys, time
if {heeds}:  # what the tests themselves were started to ignore
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
from sti.cli.start import start

def ready():
    os.write(1, b"ready")

def swallowed():
    try:
        ready()
        time.sleep(0.1)
    except BaseException:
        pass

class Finalized:
    def __del__(self):
        ready()
        time.sleep(0.1)

def execute(args):
    with open("temporary", "w"):
        pass
    try:
        {work}
    finally:
        {clean_up}
        os.unlink("temporary")

def command():
    {first}
    from sti.cli.program import Program
    Program("sti", lambda _: argparse.Namespace(command="run"), execute).command()

start("sti", command)
"""
WORK = "ready(); time.sleep(20)"
ENDS = {
    signal.SIGINT: (130, "interrupted"),
    signal.SIGTERM: (143, "terminated"),
    signal.SIGHUP: (129, "ended with its terminal"),
}


def started(
    place: Path,
    *,
    work: str = WORK,
    clean_up: str = "pass",
    first: str = "pass",
    before: tuple[str, ...] = (),
) -> subprocess.Popen[str]:
    """A program that is at the place that says ``ready``."""
    program = PROGRAM.format(work=work, clean_up=clean_up, first=first, heeds=not before)
    child = subprocess.Popen(
        [*before, sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=place,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{place}"},
    )
    assert child.stdout is not None
    assert child.stdout.read(5) == "ready"
    return child


def said(child: subprocess.Popen[str]) -> tuple[int, str]:
    """The exit code and what was said on standard error."""
    with child:
        errors = child.communicate(timeout=30)[1]
    return child.returncode, errors


@pytest.mark.parametrize("number", list(ENDS))
def test_a_signal_ends_a_command_that_cleans_up(number: signal.Signals, tmp_path: Path) -> None:
    child = started(tmp_path)
    child.send_signal(number)
    code, word = ENDS[number]
    assert said(child) == (code, f"sti run: {word}\n")
    assert not (tmp_path / "temporary").exists()


def test_another_signal_does_not_disturb_cleaning_up(tmp_path: Path) -> None:
    child = started(tmp_path, clean_up="ready(); time.sleep(0.2)")
    child.send_signal(signal.SIGTERM)
    assert child.stdout is not None
    assert child.stdout.read(5) == "ready"
    child.send_signal(signal.SIGINT)
    assert said(child) == (143, "sti run: terminated\n")
    assert not (tmp_path / "temporary").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_a_program_that_still_starts(number: signal.Signals, tmp_path: Path) -> None:
    child = started(tmp_path, first=WORK)
    child.send_signal(number)
    code, word = ENDS[number]
    assert said(child) == (code, f"sti: {word}\n")


def test_a_signal_amid_an_import_or_a_finalizer_is_not_lost(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import __main__\n__main__.swallowed()\n")
    for work in ("import slow; time.sleep(20)", "Finalized(); time.sleep(20)"):
        child = started(tmp_path, work=work)
        child.send_signal(signal.SIGINT)
        assert said(child) == (130, "sti run: interrupted\n")
        assert not (tmp_path / "temporary").exists()


def test_a_signal_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    child = started(tmp_path, work="ready(); time.sleep(0.1)", before=("nohup",))
    child.send_signal(signal.SIGHUP)
    assert said(child)[0] == 0


def test_the_library_leaves_signals_alone() -> None:
    code = (
        "import signal, sti; before = [signal.getsignal(n) for n in (1, 2, 15)]\n"
        "from sti.cli.main import main\n"
        "import sti.engine.engine\n"
        "assert main(['doctor', '--help-me']) == 2\n"
        "assert before == [signal.getsignal(n) for n in (1, 2, 15)]\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert ended.returncode == 0, ended.stderr


def test_a_program_without_patience_ends_at_a_later_signal(tmp_path: Path) -> None:
    child = started(
        tmp_path,
        work="import sti.cli.signals as s; s._PATIENCE_S = 0.0; " + WORK,
        clean_up="ready(); time.sleep(20)",
    )
    child.send_signal(signal.SIGTERM)
    assert child.stdout is not None
    assert child.stdout.read(5) == "ready"
    time.sleep(0.01)
    child.send_signal(signal.SIGTERM)
    assert said(child) == (143, "sti: terminated\n")
