"""Files of the project: listed in docs/files.md, documented, without imports of private names."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.paths import ROOT
from tests.tools import file_list

RUN_TIME = sorted((ROOT / "sti").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
EVERYTHING = [
    *RUN_TIME,
    *sorted((ROOT / "shard_tools").rglob("*.py")),
    *sorted((ROOT / "kernel_build").rglob("*.py")),
    *sorted((ROOT / "benchmarks").rglob("*.py")),
    *TESTS,
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
    if path.parent == ROOT / "sti" / "exchange" / "zeromq":
        allowed.add("zmq")
    if path == ROOT / "sti" / "exchange" / "mpi.py":
        allowed.add("mpi4py")
    if path.name == "host.py":
        allowed.add("psutil")
    if path.name == "digest.py":
        allowed |= {"_sha2", "_sha256"}  # one of them, by Python's version, or hashlib
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


def test_nothing_lies_at_the_root_but_what_belongs_there() -> None:
    kept = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if kept.returncode:
        pytest.skip("not a checkout of git")
    at_root = {name for name in kept.stdout.splitlines() if "/" not in name}
    assert at_root <= {
        *("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "FORMAT.md", "SECURITY.md"),
        *("LICENSE", "MANIFEST.in"),
        *("pyproject.toml", "setup.cfg", "setup.py", "ruff.toml", ".gitignore", ".gitattributes"),
    }


def test_pages_hold_no_placeholders() -> None:
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("models/*.md")):
        text = page.read_text(encoding="utf-8")
        for line in text.splitlines():
            assert line.strip() not in ("FIGURES", "STSB", "TBD", "TODO", "COST", "PLAN"), page
        for name in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (page.parent / name).exists(), f"{page}: {name}"


PUBLIC_UNDERSCORES = {"_exit", "_asdict", "_fields", "_make", "_replace"}
"""Of ``os`` and of named tuples: documented, and underlined for other reasons."""


def _private(dotted: str) -> bool:
    parts = dotted.split(".")
    return any(
        part.startswith("_") and not part.startswith("__") and part not in PUBLIC_UNDERSCORES
        for part in parts
    )


def private_names(source: str) -> Iterator[str]:
    """Where a module reaches for private names of another: imports, attributes, patched names."""
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{name.name}" for name in node.names]
        elif isinstance(node, ast.Attribute):
            own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            names = [] if own else [node.attr]
        elif isinstance(node, ast.Call):
            function = node.func.attr if isinstance(node.func, ast.Attribute) else node.func
            function = function.id if isinstance(function, ast.Name) else function
            if function in ("setattr", "delattr", "getattr", "hasattr", "patch", "attrgetter"):
                given = [item.value for item in node.args[:2] if isinstance(item, ast.Constant)]
                names = [item for item in given if isinstance(item, str)]
        yield from (f"line {node.lineno}: {name}" for name in names if _private(name))


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_tests_use_public_names(path: Path) -> None:
    found = list(private_names(path.read_text(encoding="utf-8")))
    assert not found


@pytest.mark.parametrize(
    "source",
    [
        "from sti.device.host import _CPU",
        "from sti._hidden import name",
        "def f():\n    import sti._hidden as hidden",
        "host._CPU",
        "engine.reader._table.rows",
        "monkeypatch.setattr(host, '_CPU', path)",
        "monkeypatch.setattr('sti.device.host._CPU', path)",
        "monkeypatch.setattr('sti._hidden.name', path)",
        "patch.delattr(host, '_CPU')",
        "getattr(host, '_CPU')",
    ],
)
def test_private_names_are_seen(source: str) -> None:
    assert list(private_names(source))


@pytest.mark.parametrize(
    "source",
    ["self._rows", "place._replace(shape=())", "os._exit(0)", "module.__name__", "lambda _: 0"],
)
def test_names_that_are_public_or_ones_own_are_let_be(source: str) -> None:
    assert not list(private_names(source))


def test_no_module_imports_a_private_name_of_another() -> None:
    for path in EVERYTHING:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                private = [name.name for name in node.names if _private(name.name)]
                place = str(path.relative_to(ROOT))
                assert not private, f"{place}:{node.lineno}"


def test_property_tests_are_not_timed() -> None:
    assert settings.default is not None and settings.default.deadline is None
    for path in TESTS:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "settings":
                given = {keyword.arg for keyword in node.keywords}
                assert "deadline" not in given, f"{path}:{node.lineno}"
