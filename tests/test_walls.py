"""The walls between packages: imports run downward, form no cycle, and reach no forbidden package.

Every import counts: lazy ones inside functions, those for type checkers, and modules that are named
in strings, to be imported or run by name.
"""

from __future__ import annotations

import ast
import functools
import json
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
    "sti.exchange": 3,
    "sti.model": 3,
    "sti.testing": 3,
    "sti.text": 3,
    "sti.device": 4,
    "sti.graphs": 4,
    "sti.pack": 5,
    "sti.planning": 5,
    "sti.backend": 6,
    "sti.pipeline": 7,
    "sti.report": 7,
    "sti.calibration": 8,
    "sti.devices": 8,
    "sti.engine": 9,
    "sti.benchmark": 10,
    "sti.cli": 11,
    "sti.__main__": 12,
}
"""A package may import packages of a lower rank only; those of one rank do not know each other."""

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

TOPS = {"sti", "shard_tools"}
"""The packages themselves: the public API names what lies below, lazily."""

PURE_ROOMS = ("sti.planning", "sti.model", "sti.codec")

PURE = {
    *("__future__", "abc", "dataclasses", "enum", "types", "typing"),
    *("bisect", "collections", "functools", "heapq", "itertools", "operator"),
    *("fractions", "math", "numpy", "statistics"),
    *("json", "re", "struct", "textwrap", "zlib"),
}
"""What a pure package may import, directly or not: no thread, clock, file or back end."""

LOADERS = ("sti.codec.decoders", "sti.codec.native.")
"""What loads a library that computes the same as the package's own code, only faster."""

IMPURE_NAMES = {
    *("__import__", "breakpoint", "eval", "exec", "input", "open", "print"),
    *("DataSource", "fromfile", "genfromtxt", "load", "loadtxt", "memmap", "save", "savetxt"),
    *("savez", "savez_compressed", "tofile"),
}
"""Built-in functions and parts of NumPy that reach files or the terminal without an import."""

BY_NAME = {"__import__", "find_spec", "import_module", "run_module"}
"""Functions that import the module that a string names."""


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
            assert node.level == 0 and node.module, f"line {node.lineno}: imports are absolute"
            yield from (_home(f"{node.module}.{name.name}") for name in node.names)
        elif isinstance(node, ast.Constant) and node.value in OWN and "." in node.value:
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield from (_home(name) for name in (_head(node),) if _home(name) in OWN)
        elif isinstance(node, ast.Call) and _called(node) in BY_NAME and node.args:
            if isinstance(node.args[0], ast.Subscript):
                continue  # of a table, whose strings are seen themselves
            name = _head(node.args[0])
            assert name and not name.startswith("."), f"line {node.lineno}: name the module"
            yield _home(name)


def _head(node: ast.expr) -> str:
    """The module or package that a string names whole or begins with; "" if it names none."""
    if isinstance(node, ast.JoinedStr) and node.values:
        head = _head(node.values[0])
        return head.rpartition(".")[0] if len(node.values) > 1 else head
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _called(node: ast.Call) -> str:
    """The last part of a called function's name."""
    return ast.unparse(node.func).rpartition(".")[2]


def _home(name: str) -> str:
    """The longest of our modules that a dotted name begins with, else its first part."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        if (found := ".".join(parts[:length])) in OWN:
            return found
    return parts[0]


def package(module: str) -> str:
    """A package right below ``sti`` or ``shard_tools``, or a module that lies there."""
    return ".".join(module.split(".")[:2])


def edges(top: str) -> Iterator[tuple[str, str]]:
    for module in modules(top):
        if module not in TOPS:
            yield from ((module, other) for other in imported(module) if other in OWN)


@pytest.mark.parametrize(("top", "ranks"), [("sti", RANKS), ("shard_tools", TOOL_RANKS)])
def test_every_room_has_a_rank(top: str, ranks: dict[str, int]) -> None:
    assert {package(module) for module in modules(top)} - TOPS == set(ranks)


@pytest.mark.parametrize(("top", "ranks"), [("sti", RANKS), ("shard_tools", TOOL_RANKS)])
def test_imports_run_downward(top: str, ranks: dict[str, int]) -> None:
    upward = [
        f"{module} -> {other}"
        for module, other in edges(top)
        if other in TOPS
        or (
            package(other) in ranks
            and package(other) != package(module)
            and ranks[package(other)] >= ranks[package(module)]
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
        if module not in TOPS:
            visit(module, ())


def test_the_run_time_has_at_most_twelve_levels() -> None:
    @functools.cache
    def level(name: str) -> int:
        below = {package(other) for module, other in edges("sti") if package(module) == name}
        return 1 + max(map(level, below & set(RANKS) - {name}), default=0)

    assert 2 < max(map(level, RANKS)) <= 12


def test_few_modules_lie_outside_packages() -> None:
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


@pytest.mark.parametrize("name", PURE_ROOMS)
def test_pure_packages_know_no_thread_clock_file_or_back_end(name: str) -> None:
    own = {module for module in modules("sti") if package(module) == name}
    assert own
    for module in {*own, *reached(own)} & set(OWN):
        if not module.startswith(LOADERS):
            foreign = imported(module) - set(OWN) - PURE
            assert not foreign, f"{module} -> {foreign}"
            source = OWN[module].read_text(encoding="utf-8")
            assert not names_used(source) & IMPURE_NAMES, module


def names_used(source: str) -> set[str]:
    """Names and attributes in a module, wherever they stand."""
    nodes = list(ast.walk(ast.parse(source)))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    return names | {node.attr for node in nodes if isinstance(node, ast.Attribute)}


def test_the_run_time_never_imports_the_offline_tool() -> None:
    for module in modules("sti"):  # the public API too
        assert not [name for name in imported(module) if name.startswith("shard_tools")], module


def test_the_product_never_imports_benchmarks_or_tests() -> None:
    for module in OWN:
        assert not imported(module) & {"benchmarks", "tests"}, module


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
            assert not [
                name for name in found if package(name) in ("sti.cli", "shard_tools.cli")
            ], path


def test_package_files_are_empty() -> None:
    """They are read at every start: what a package offers is in its modules."""
    for path in (
        *(ROOT / "sti").rglob("__init__.py"),
        *(ROOT / "shard_tools").rglob("__init__.py"),
    ):
        assert path.parent == ROOT / "sti" or not path.read_text(encoding="utf-8"), path


@pytest.mark.parametrize(
    ("source", "seen"),
    [
        ("from sti.engine.engine import Engine", "sti.engine.engine"),
        ("from sti.engine import engine", "sti.engine.engine"),
        ("from sti import engine", "sti.engine"),
        ("from sti import Engine", "sti"),
        ("from sti.cli.main import *", "sti.cli.main"),
        ("import sti.cli.main as main", "sti.cli.main"),
        ("import numpy as np, sti.units as units", "sti.units"),
        ("def f():\n    import sti.cli.main", "sti.cli.main"),
        ("class A:\n    from sti.cli.main import main", "sti.cli.main"),
        ("if TYPE_CHECKING:\n    from sti.cli import run", "sti.cli.run"),
        ("try:\n    pass\nexcept E:\n    from sti.cli import run", "sti.cli.run"),
        ("importlib.import_module('sti.cli.main')", "sti.cli.main"),
        ("importlib.import_module('sti.cli.' 'main')", "sti.cli.main"),
        ("import_module(f'sti.cli.{name}')", "sti.cli"),
        ("__import__('sti')", "sti"),
        ("importlib.import_module('onnxruntime')", "onnxruntime"),
        ("HOMES = {'main': 'sti.cli.main'}", "sti.cli.main"),
        ("run([sys.executable, '-m', 'sti.cli.main'])", "sti.cli.main"),
        ("place = f'sti.cli.{name}'", "sti.cli"),
        ("from onnxruntime.capi import session", "onnxruntime"),
    ],
)
def test_every_way_to_import_is_seen(source: str, seen: str) -> None:
    assert seen in set(_imports(source))


@pytest.mark.parametrize(
    "source",
    [
        "from . import units",
        "from .units import parse",
        "from ..engine import engine",
        "importlib.import_module('.main', package='sti.cli')",
        "importlib.import_module(name)",
        "importlib.import_module(f'{package}.main')",
    ],
)
def test_imports_of_what_is_not_written_out_are_refused(source: str) -> None:
    with pytest.raises(AssertionError):
        list(_imports(source))


@pytest.mark.parametrize("source", ["print('sti')", "'see sti.cli.main'", "f'{a} of sti.cli'"])
def test_words_are_no_imports(source: str) -> None:
    assert not list(_imports(source))


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("device", ["paper-board", "a file"])
def test_a_plan_for_another_device_needs_no_onnxruntime(
    tiny_pack: Path, tmp_path: Path, device: str, as_json: bool
) -> None:
    if device == "a file":
        device = str(tmp_path / "board.json")
        shipped = ROOT / "sti" / "device" / "devices" / "paper-board.json"
        Path(device).write_bytes(shipped.read_bytes())
    argv = ["plan", str(tiny_pack), "--device", device, *(["--json"] if as_json else [])]
    code = (
        "import sys\n"
        "sys.modules['onnxruntime'] = None\n"
        "from sti.cli.main import main\n"
        f"code = main({argv!r})\n"
        "assert not any(name.startswith('sti.backend.onnxruntime') for name in sys.modules)\n"
        "sys.exit(code)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    if as_json:
        assert json.loads(ended.stdout)["predicted"]
    else:
        assert "paper" in ended.stdout
