"""Where reports go: ``--format``, ``-o`` and ``--json``."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from sti.cli.arguments import FORMATS, add_report
from sti.cli.reports import Destination, check_writable, deliver, destinations
from sti.errors import InputError


def wanted(*argv: object) -> list[Destination]:
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(pack="model.sti.safetensors")
    add_report(parser)
    return destinations(parser.parse_args([str(item) for item in argv]), FORMATS)


def test_without_options_markdown_goes_to_standard_output() -> None:
    assert wanted() == [Destination("md")]
    assert wanted("--format", "csv") == [Destination("csv")]
    assert wanted("--json") == wanted("--format", "json") == [Destination("json")]


def test_files_have_the_format_their_name_ends_with(tmp_path: Path) -> None:
    names = [tmp_path / name for name in ("a.csv", "b.MD", "c")]
    found = wanted(*(part for name in names for part in ("-o", name)))
    assert found == [
        Destination("csv", names[0]),
        Destination("md", names[1]),
        Destination("md", names[2]),
    ]


def test_a_name_without_a_known_ending_takes_the_format_that_is_asked_for(tmp_path: Path) -> None:
    for name in ("a", "a.txt"):
        assert wanted("-o", tmp_path / name, "--format", "csv") == [
            Destination("csv", tmp_path / name)
        ]


def test_with_json_the_document_is_printed_beside_every_file(tmp_path: Path) -> None:
    csv, plain = tmp_path / "a.csv", tmp_path / "a"
    assert wanted("--json", "-o", csv) == [Destination("csv", csv), Destination("json")]
    assert wanted("--json", "-o", plain) == [Destination("json", plain), Destination("json")]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--json", "--format", "csv"], "exclude each other on standard output"),
        (["-o", "a.svg"], r"a\.svg: \.svg is none of the formats md, csv, json; name one"),
        (["-o", "a.csv", "--format", "md"], r"a\.csv: its name asks for csv, --format for md"),
        (["-o", "."], "is a directory"),
        (["-o", "nowhere/a.md"], "nowhere: no such directory"),
    ],
)
def test_what_does_not_go_together_is_refused(
    argv: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=said):
        wanted(*argv)


def test_a_report_never_takes_the_place_of_the_pack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pack = tmp_path / "pack"
    pack.write_bytes(b"weights")
    (tmp_path / "link").symlink_to(pack)
    for name in ("pack", "./pack", "link"):
        with pytest.raises(InputError, match="is the pack, which would be lost"):
            check_writable(Path(name), apart=str(pack))


@pytest.mark.parametrize("quiet", [True, False])
def test_reports_are_written_and_files_are_named_on_standard_error(
    quiet: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.csv"
    deliver([Destination("csv", path), Destination("md")], lambda form: f"in {form}\n", quiet=quiet)
    assert path.read_text() == "in csv\n"
    assert capsys.readouterr() == ("in md\n", "" if quiet else f"saved to {path}\n")
