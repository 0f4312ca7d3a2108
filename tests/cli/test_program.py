"""What a program does around its commands, with commands made up for the purpose."""

from __future__ import annotations

import argparse
import errno
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence

import pytest

from sti.cli.arguments import UsageError, wants_json
from sti.cli.program import Program, print_json
from sti.errors import InfeasibleError, InputError, RunError, StiWarning, StorageError
from sti.report.installation import missing
from sti.version import JSON_VERSION
from tests.support.commands import ENVIRONMENT, Answer, in_process

Execute = Callable[[argparse.Namespace], int | None]


def parse(argv: Sequence[str]) -> argparse.Namespace:
    return argparse.Namespace(command=argv[0])


def raising(error: BaseException) -> Execute:
    def execute(_: argparse.Namespace) -> int:
        raise error

    return execute


def run(execute: Execute, capsys: pytest.CaptureFixture[str], *argv: str) -> Answer:
    program = Program("tool", parse, execute, out_of_memory="take less")
    return in_process(program.main, capsys)("work", *argv)


HOLDS = """
import argparse, os
os.close(0), os.close(2)
from sti.cli.program import Program

def execute(_):
    print(os.open(os.devnull, os.O_RDONLY))

Program("tool", lambda _: argparse.Namespace(command="work"), execute).command()
"""


def test_no_file_takes_the_place_of_a_closed_standard_descriptor() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", HOLDS],
        capture_output=True,
        text=True,
        env={**os.environ, **ENVIRONMENT},
        check=True,
        timeout=60,
    )
    assert int(ended.stdout) > 2


def test_a_limit_that_was_met_is_no_failure_of_standard_output(
    capsys: pytest.CaptureFixture[str],
) -> None:
    answer = run(raising(OSError(errno.EMFILE, "Too many open files")), capsys)
    assert answer.code == 2
    assert answer.err.startswith("tool work: too many open files: this process may have ")


def test_a_file_that_a_limit_keeps_closed_is_named_with_the_limit(
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = StorageError("pack: cannot be opened")
    error.__cause__ = OSError(errno.EMFILE, "Too many open files")
    answer = run(raising(error), capsys)
    assert answer.code == 2
    assert answer.err.startswith("tool work: pack: cannot be opened: too many open files: ")
    assert "raise the limit" in answer.err


FAILURES = [
    (InputError("no such file"), "no such file", 2),
    (RunError("it broke"), "it broke", 1),
    (InfeasibleError("too slow", limit="latency", asked=1, needed=2), "too slow", 2),
    (KeyboardInterrupt(), "interrupted", 130),
    (KeyboardInterrupt("half is done"), "interrupted; half is done", 130),
    (MemoryError(), "out of memory; take less", 1),
    (ModuleNotFoundError("No module named 'numpy'", name="numpy"), missing("numpy"), 2),
]


@pytest.mark.parametrize(("error", "message", "code"), FAILURES, ids=lambda item: repr(item)[:30])
def test_an_error_is_one_line_on_standard_error_and_an_exit_code(
    error: BaseException, message: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = run(raising(error), capsys)
    assert (answer.code, answer.out, answer.err) == (code, "", f"tool work: {message}\n")


@pytest.mark.parametrize(("error", "message", "code"), FAILURES, ids=lambda item: repr(item)[:30])
def test_with_json_an_error_is_a_document_as_well(
    error: BaseException, message: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = run(raising(error), capsys, "--json")
    found = answer.error
    assert (found["kind"], found["message"]) == (type(error).__name__, message)
    assert found["exit_code"] == answer.code == code
    assert answer.err == f"tool work: {message}\n"
    limits = {name: found[name] for name in ("limit", "asked", "needed") if name in found}
    wanted = {"limit": "latency", "asked": 1, "needed": 2}
    assert limits == (wanted if isinstance(error, InfeasibleError) else {})


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("ours"), ModuleNotFoundError("ours", name="sti.nothing")]
)
def test_a_fault_of_the_program_keeps_its_traceback(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(type(error), match="ours"):
        run(raising(error), capsys)
    assert capsys.readouterr().out == ""
    with pytest.raises(type(error), match="ours"):
        run(raising(error), capsys, "--json")
    document = json.loads(capsys.readouterr().out)
    assert document["error"] == {
        "kind": type(error).__name__,
        "message": "ours",
        "exit_code": 1,
    }


@pytest.mark.parametrize("as_json", [True, False])
def test_an_interruption_before_the_arguments_are_understood_names_the_program_alone(
    as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: Sequence[str]) -> argparse.Namespace:
        raise KeyboardInterrupt

    program = Program("tool", interrupted, raising(AssertionError()))
    answer = in_process(program.main, capsys)(*["--json"] * as_json)
    assert (answer.code, answer.err) == (130, "tool: interrupted\n")
    assert answer.error["message"] == "interrupted" if as_json else answer.out == ""


def test_bad_usage_shows_how_the_command_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(_: Sequence[str]) -> argparse.Namespace:
        raise UsageError("what?", usage="usage: tool work\n", program="tool work")

    program = Program("tool", refuse, raising(AssertionError()))
    answer = in_process(program.main, capsys)("--json")
    assert answer.err == "usage: tool work\ntool work: error: what?\n"
    assert answer.error["kind"] == "UsageError"


def test_an_exit_code_of_the_command_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(lambda _: 7, capsys).code == 7
    assert run(lambda _: None, capsys).code == 0


def test_our_warnings_are_notices_and_those_of_others_stay_warnings(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def execute(_: argparse.Namespace) -> None:
        warnings.warn("texts were cut", StiWarning, stacklevel=1)
        warnings.warn("texts were cut", StiWarning, stacklevel=1)
        with warnings.catch_warnings():
            warnings.simplefilter("always", UserWarning)
            warnings.warn("something else", UserWarning, stacklevel=1)
        print_json({})

    with pytest.warns(UserWarning, match="something else"):
        answer = run(execute, capsys, "--json")
    assert answer.json == {"version": JSON_VERSION}
    assert answer.err == "tool: notice: texts were cut\n" * 2


@pytest.mark.parametrize(
    ("argv", "wanted"),
    [
        (["run", "p", "--json"], True),
        (["run", "p", "--json", "--", "a"], True),
        (["run", "p", "--", "--json"], False),
        (["run", "p"], False),
        ([], False),
    ],
)
def test_json_is_wanted_where_the_option_is_given_and_not_where_a_text_reads_so(
    argv: list[str], wanted: bool
) -> None:
    assert wants_json(argv) == wanted
