"""The walls between the packages: imports run downward, in no circle, and never into a wrong room.

Every import counts, lazy ones inside functions and those for type checkers included.
"""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT

RANKS = {
    "sti.arrays": 1,
    "sti.errors": 1,
    "sti.notices": 1,
    "sti.version": 1,
    "sti.codec": 2,
    "sti.json_fields": 2,
    "sti.storage": 2,
    "sti.units": 2,
    "sti.model": 3,
    "sti.text": 3,
    "sti.device": 4,
    "sti.pack": 4,
    "sti.planning": 5,
    "sti.backend": 6,
    "sti.pipeline": 7,
    "sti.report": 7,
    "sti.calibration": 8,
    "sti.engine": 9,
    "sti.benchmark": 10,
    "sti.cli": 11,
    "sti.__main__": 12,
}
"""A room may import rooms of a lower rank only; those of one rank do not know each other."""

TOOL_RANKS = {
    "shard_tools.progress": 1,
    "shard_tools.data": 1,
    "shard_tools.checkpoint": 1,
    "shard_tools.graphs": 1,
    "shard_tools.architectures": 2,
    "shard_tools.quantization": 3,
    "shard_tools.packing": 4,
    "shard_tools.inspection": 4,
    "shard_tools.measuring": 5,
    "shard_tools.ranking": 6,
    "shard_tools.train": 7,
    "shard_tools.evaluation": 7,
    "shard_tools.cli": 8,
    "shard_tools.__main__": 9,
}

FACES = {"sti", "shard_tools"}
"""The packages themselves: the face of the run time names what lies below, lazily."""

IMPURE = {
    *("asyncio", "concurrent", "multiprocessing", "queue", "select", "signal", "threading"),
    *("datetime", "time"),
    *("fcntl", "glob", "io", "mmap", "os", "pathlib", "shutil", "tempfile"),
    *("ctypes", "importlib", "socket", "subprocess", "urllib"),
    *("onnx", "onnxruntime", "psutil", "torch"),
}
"""Threads, clocks, files, processes and the libraries of a back end."""


def module_of(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


@functools.cache
def modules(top: str) -> dict[str, Path]:
    return {module_of(path): path for path in sorted((ROOT / top).rglob("*.py"))}


OWN = modules("sti") | modules("shard_tools")


@functools.cache
def imported(module: str) -> frozenset[str]:
    """What a module imports, anywhere in it: our own modules whole, others by their first name."""
    return frozenset(_imports(OWN[module].read_text(encoding="utf-8")))


def _imports(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (_home(name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, "imports are absolute"
            yield from (_home(f"{node.module}.{name.name}") for name in node.names)


def _home(name: str) -> str:
    """The longest of our modules that a dotted name begins with, else its first part."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        if (found := ".".join(parts[:length])) in OWN:
            return found
    return parts[0]


def room(module: str) -> str:
    """A package right below ``sti`` or ``shard_tools``, or a module that lies there."""
    return ".".join(module.split(".")[:2])


def edges(top: str) -> Iterator[tuple[str, str]]:
    for module in modules(top):
        if module not in FACES:
            yield from ((module, other) for other in imported(module) if other in OWN)


@pytest.mark.parametrize(("top", "ranks"), [("sti", RANKS), ("shard_tools", TOOL_RANKS)])
def test_every_room_has_a_rank(top: str, ranks: dict[str, int]) -> None:
    assert {room(module) for module in modules(top)} - FACES == set(ranks)


@pytest.mark.parametrize(("top", "ranks"), [("sti", RANKS), ("shard_tools", TOOL_RANKS)])
def test_imports_run_downward(top: str, ranks: dict[str, int]) -> None:
    upward = [
        f"{module} -> {other}"
        for module, other in edges(top)
        if other in FACES
        or (
            room(other) in ranks
            and room(other) != room(module)
            and ranks[room(other)] >= ranks[room(module)]
        )
    ]
    assert not upward


@pytest.mark.parametrize("top", ["sti", "shard_tools"])
def test_no_modules_import_one_another(top: str) -> None:
    done: set[str] = set()

    def visit(module: str, chain: tuple[str, ...]) -> None:
        assert module not in chain, " -> ".join((*chain[chain.index(module) :], module))
        if module not in done:
            for other in imported(module) & set(modules(top)):
                visit(other, (*chain, module))
            done.add(module)

    for module in modules(top):
        if module not in FACES:
            visit(module, ())


def test_the_run_time_has_at_most_twelve_levels() -> None:
    assert max(RANKS.values()) <= 12


def test_few_modules_lie_outside_a_room() -> None:
    assert len(list((ROOT / "sti").glob("*.py"))) <= 8


def reached(start: Iterable[str]) -> dict[str, str]:
    """All that modules import, directly or through others, and who was the first to."""
    found: dict[str, str] = {}
    todo = list(start)
    while todo:
        module = todo.pop()
        for other in imported(module):
            if other not in found:
                found[other] = module
                if other in OWN:
                    todo.append(other)
    return found


@pytest.mark.parametrize("name", ["sti.planning", "sti.model", "sti.codec"])
def test_planning_models_and_code_know_no_thread_clock_file_or_back_end(name: str) -> None:
    found = reached(module for module in modules("sti") if room(module) == name)
    assert not [f"{found[other]} -> {other}" for other in IMPURE & set(found)]


def test_the_run_time_never_imports_the_offline_tool() -> None:
    assert not [edge for edge in edges("sti") if edge[1].startswith("shard_tools")]


def test_only_one_room_imports_onnxruntime() -> None:
    users = {module for module in OWN if "onnxruntime" in imported(module)}
    assert users
    assert all(module.startswith("sti.backend.onnxruntime.") for module in users)


def test_libraries_import_no_command_line() -> None:
    for top in ("shard_tools", "benchmarks"):
        for path in (ROOT / top).rglob("*.py"):
            if path.is_relative_to(ROOT / "shard_tools" / "cli") or path.name == "__main__.py":
                continue
            found = set(_imports(path.read_text(encoding="utf-8")))
            assert not [name for name in found if room(name) in ("sti.cli", "shard_tools.cli")], (
                path
            )


def test_package_files_are_empty() -> None:
    """They are read at every start: what a package offers is in its modules."""
    for path in (
        *(ROOT / "sti").rglob("__init__.py"),
        *(ROOT / "shard_tools").rglob("__init__.py"),
    ):
        assert path.parent == ROOT / "sti" or not path.read_text(encoding="utf-8"), path


@pytest.mark.parametrize(
    ("source", "refused"),
    [
        ("from sti.engine.engine import Engine", "sti.engine.engine"),
        ("def f():\n    import sti.cli.main", "sti.cli.main"),
        (
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from sti.cli import run",
            "sti.cli.run",
        ),
    ],
)
def test_lazy_and_type_checking_imports_are_seen(source: str, refused: str) -> None:
    assert refused in set(_imports(source))


def test_a_plan_for_another_device_needs_no_onnxruntime(tiny_pack: Path, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "sys.modules['onnxruntime'] = None\n"
        "from sti.cli.main import main\n"
        f"sys.exit(main(['plan', {str(tiny_pack)!r}, '--device', 'paper-board']))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert "paper" in ended.stdout
