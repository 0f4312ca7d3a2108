"""The benchmark of security: figures go into a document; its rows run."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import common, security, security_opening
from benchmarks.rows import Measured, Summary
from benchmarks.security_opening import Opening
from sti.errors import InputError

DOCUMENT = "before\n<!-- row opening -->\nold\n<!-- end of row -->\nafter\n"


def test_a_row_replaces_what_a_document_has_in_its_place(tmp_path: Path) -> None:
    document = tmp_path / "SECURITY.md"
    document.write_text(DOCUMENT, encoding="utf-8")
    found = security_opening.summarize([Opening("tiny", 0.010, 0.013), Opening("tiny", 0.01, 0.01)])
    security.write_row(document, Measured("opening", found, False), ["a machine", "versions"])
    text = document.read_text(encoding="utf-8")
    assert text.startswith("before\n<!-- row opening -->\n2") and text.endswith("-->\nafter\n")
    assert "old" not in text and "; a machine; versions\n" in text
    assert "more of an opening, ms, tiny" in text and "1.500" in text and "10.00" in text


def test_security_md_has_a_place_for_each_row() -> None:
    text = (common.ROOT / "SECURITY.md").read_text(encoding="utf-8")
    for name in security.ROWS:
        assert f"<!-- row {name} -->\n" in text


def test_a_document_without_a_place_for_a_row_is_refused(tmp_path: Path) -> None:
    document = tmp_path / "SECURITY.md"
    document.write_text(DOCUMENT, encoding="utf-8")
    with pytest.raises(InputError, match="no place for the row kills"):
        security.write_row(document, Measured("kills", Summary(), False), ["", ""])
    assert document.read_text(encoding="utf-8") == DOCUMENT


def test_openings_that_take_too_long_are_short() -> None:
    found = security_opening.summarize([Opening("tiny", 0.010, 0.0121)])
    assert [row[-1] for row in found.limits] == ["SHORT"]
    assert security_opening.summarize([]).notes == [
        "needs --before, a checkout of another revision"
    ]


def test_a_revision_is_held_against_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack = common.ROOT / "models" / "clinc150-intents.sti.safetensors"
    argv = [str(pack), "--rows", "opening", "--before", str(common.ROOT), "--cases", "2"]
    security.main(argv)
    assert "| clinc150-intents |" in capsys.readouterr().out
