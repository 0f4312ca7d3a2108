"""The files of the project: each is named in the tree, and says what it is for."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.tools import file_list

RUN_TIME = sorted((ROOT / "sti").rglob("*.py"))
EVERYTHING = [
    *RUN_TIME,
    *sorted((ROOT / "shard_tools").rglob("*.py")),
    *sorted((ROOT / "benchmarks").rglob("*.py")),
    *sorted((ROOT / "tests").rglob("*.py")),
    *sorted((ROOT / "examples").rglob("*.py")),
]


def imported(path: Path) -> Iterator[str]:
    """Top-level packages that a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("path", RUN_TIME, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_run_time_imports_nothing_termux_lacks(path: Path) -> None:
    allowed = set(sys.stdlib_module_names) | {"sti", "numpy"}
    if path.parent.name == "onnxruntime":
        allowed.add("onnxruntime")
    if path.name == "host.py":
        allowed.add("psutil")
    assert set(imported(path)) <= allowed


def test_the_page_of_files_is_true() -> None:
    written = file_list.PAGE.read_text(encoding="utf-8")
    assert written == file_list.page(), "run `python -m tests.tools.file_list`"
    folders = {path.parent for path in EVERYTHING if not path.is_relative_to(ROOT / "tests")}
    assert {str(path.relative_to(ROOT)) for path in folders} <= set(file_list.FOLDERS)


def test_modules_say_what_they_are_for() -> None:
    for path in EVERYTHING:
        if path.name != "__init__.py":
            assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path


def test_pages_hold_no_placeholders() -> None:
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("models/*.md")):
        text = page.read_text(encoding="utf-8")
        for line in text.splitlines():
            assert line.strip() not in ("FIGURES", "STSB", "TBD", "TODO"), page
        for name in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (page.parent / name).exists(), f"{page}: {name}"
