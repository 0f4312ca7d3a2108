"""The commands of both programs from outside: what one printed, where, and its exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import sti
from sti.version import JSON_VERSION

ENVIRONMENT = {"PYTHONPATH": str(Path(sti.__file__).parent.parent)}


class Answer:
    """What one command did."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON document on standard output, whatever the exit code."""
        assert self.out.count("\n") == 1, self.out
        document = json.loads(self.out)
        assert isinstance(document, dict)
        assert document["version"] == JSON_VERSION
        return document

    @property
    def json(self) -> dict[str, Any]:
        """The document of a command that succeeded."""
        assert self.code == 0, self.err
        return self.document

    @property
    def error(self) -> dict[str, Any]:
        """The error in the document of a command that failed; its message is on standard error."""
        error: dict[str, Any] = self.document["error"]
        assert self.code == error["exit_code"] != 0
        assert self.err.endswith(f"{error['message']}\n"), self.err
        return error


Cli = Callable[..., Answer]
"""Runs a command in this process; takes its arguments."""


def in_process(
    main: Callable[[Sequence[str]], int], capsys: pytest.CaptureFixture[str]
) -> Callable[..., Answer]:
    """Calls ``main`` with arguments of any type."""

    def call(*argv: object) -> Answer:
        capsys.readouterr()
        try:
            code = main([str(item) for item in argv])
        except SystemExit as left:  # help and the version
            code = int(left.code or 0)
        out, err = capsys.readouterr()
        return Answer(code, out, err)

    return call


def process(
    argv: Sequence[object], *, program: str = "sti", **options: Any
) -> subprocess.Popen[bytes]:
    """A command in a process of its own, with its output in pipes."""
    return subprocess.Popen(
        [sys.executable, "-m", program, *map(str, argv)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **ENVIRONMENT},
        **options,
    )


def refused(answer: Answer, *said: str) -> None:
    """Bad input: exit code 2, one line on standard error, nothing on standard output."""
    assert answer.code == 2
    assert answer.out == ""
    lines = [line for line in answer.err.splitlines() if "measuring this device" not in line]
    assert len(lines) == 1, answer.err
    for part in said:
        assert part in lines[0]


def wait_until_it_reads(pid: int) -> None:
    """Until the process has loaded everything and sleeps on its standard input.

    It sleeps for moments while it loads, too, so only a long sleep counts.
    """
    asleep = 0
    for _ in range(3000):
        loaded = Path(f"/proc/{pid}/maps").read_bytes().count(b"onnxruntime")
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        asleep = asleep + 1 if loaded and state == "S" else 0
        if asleep == 20:
            return
        time.sleep(0.01)
    pytest.fail("the process never came to read its standard input")
