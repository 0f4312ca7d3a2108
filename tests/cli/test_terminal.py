"""Control characters from packs, files, texts and arguments never reach a terminal as they are."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sti.cli.arguments import program_parser
from sti.report.terminal import PlainStream, plain_output, redraw
from sti.text.control_characters import is_one_line, one_line, printable
from tests.support.packs import tiny_pack
from tests.support.paths import ROOT

BAD = "\x1b[31mred\x9b1m\x7f\u202eback\u2066\u2028\x00\r\x08"
HARMLESS = "naïve عربي 日本 \U0001f600 \u200c"


def moving(text: str) -> list[str]:
    return [mark for mark in text if mark != "\n" and not is_one_line(mark) and mark != "\t"]


def test_control_characters_are_written_out_and_letters_of_all_languages_stay() -> None:
    assert printable(HARMLESS) == HARMLESS == one_line(HARMLESS)
    assert not moving(printable(BAD))
    assert printable("a\tb\nc") == "a\tb\nc"
    assert one_line("a\tb\nc\x1b") == "a\\tb\\nc\\u001b"


def test_what_hides_in_a_text_or_turns_it_is_written_out_and_joiners_stay() -> None:
    assert printable("a\u200b\u200e\u2060\ufeff") == r"a\u200b\u200e\u2060\ufeff"
    assert json.loads(f'"{printable(chr(0xE0041))}"') == "\U000e0041" != printable("\U000e0041")
    joined = "\u0645\u06cc\u200c\u062e \U0001f468\u200d\U0001f469"
    assert printable(joined) == joined


@pytest.mark.parametrize("code", [*range(32), *range(127, 160), *range(0x202A, 0x202F)])
def test_written_out_in_json_they_read_as_they_were(code: int) -> None:
    document = json.dumps(f"a{chr(code)}b", ensure_ascii=False)
    assert json.loads(printable(document)) == f"a{chr(code)}b"


def test_a_stream_passes_nothing_else_on_and_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with plain_output(), plain_output():
        print(BAD, HARMLESS)
        sys.stdout.writelines([BAD, "\n"])
        print(BAD, file=sys.stderr)
        redraw(f"1 %\n{BAD}")
        assert isinstance(sys.stdout, PlainStream) and not sys.stdout.isatty()
    assert sys.stdout is out and sys.stderr is err
    assert not moving(out.getvalue()) and HARMLESS in out.getvalue()
    said, drawn = err.getvalue().split("\r\x1b[K")
    assert not moving(said + drawn) and drawn.startswith("1 %\\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("sti", "run", tiny_pack, f"one{BAD.replace(chr(0), '')} text", "two\ttabs\nlines"),
        ("sti", "run", tiny_pack, "a", "--target", f"{BAD.replace(chr(0), '')}\nsti: all is well"),
        ("sti", "plan", f"no{BAD.replace(chr(0), '')}\npack"),
        ("sti", f"comm{BAD.replace(chr(0), '')}and"),
        ("shard_tools", "inspect", f"no{BAD.replace(chr(0), '')}\npack"),
        ("shard_tools", "build", f"no{BAD.replace(chr(0), '')}", "-o", "x"),
        ("shard_tools", f"comm{BAD.replace(chr(0), '')}and"),
    ],
)
def test_neither_program_prints_them(arguments: tuple[object, ...], tmp_path: Path) -> None:
    program, *rest = arguments
    given = [str(tiny_pack("classification")) if item is tiny_pack else str(item) for item in rest]
    ended = subprocess.run(
        [sys.executable, "-m", str(program), *given],
        capture_output=True,
        cwd=ROOT,
        check=False,
        timeout=60,
    )
    said = ended.stdout.decode() + ended.stderr.decode()
    assert said and not moving(said) and "\t" not in said
    assert "\nsti: all is well" not in said and "\npack" not in said


def test_tracebacks_do_not_print_them_either() -> None:
    code = (
        "from sti.cli.program import Program\n"
        "def fail(args): raise RuntimeError('\\x1b[31m')\n"
        "import argparse\n"
        "Program('tool', lambda a: argparse.Namespace(command='x'), fail).command()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, "x"], capture_output=True, cwd=ROOT, check=False, timeout=60
    )
    assert b"RuntimeError: \\u001b[31m" in ended.stderr and b"\x1b" not in ended.stderr


SETTINGS = pytest.mark.parametrize(
    "setting",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1:strict"},
        {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)


@SETTINGS
def test_what_an_encoding_lacks_is_written_out(setting: dict[str, str]) -> None:
    code = (
        "import argparse, sys\n"
        "from sti.cli.program import Program\n"
        "def tell(args): print('\\u0151'); print('\\u0151', file=sys.stderr)\n"
        "Program('tool', lambda a: argparse.Namespace(command='x'), tell).command()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, "x"],
        capture_output=True,
        cwd=ROOT,
        check=False,
        timeout=60,
        env={**os.environ, **setting},
    )
    assert ended.stdout == ended.stderr == b"\\u0151\n"


@pytest.mark.parametrize("columns", ["9" * 5000, "-1", "0" * 5000])
def test_a_width_that_is_none_is_not_believed(
    columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    parser, _ = program_parser("tool", "A tool.", "")
    assert max(map(len, parser.format_help().splitlines())) <= 80
