"""The committed pictures: drawn by the one package that draws, and whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.drawings import check_layout
from tests.support.paths import ROOT

PICTURES = sorted((*ROOT.glob("docs/*.svg"), *ROOT.glob("models/**/*.svg")))


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.name)
def test_a_picture_is_whole_and_readable_in_the_dark(path: Path) -> None:
    drawn = path.read_text(encoding="utf-8")
    check_layout(drawn)
    assert 'class="sti-drawing"' in drawn and "prefers-color-scheme:dark" in drawn
