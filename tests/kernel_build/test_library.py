"""Compiling the kernel: what is kept loads everywhere; no compiler, however broken, stops it."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from kernel_build.elf import MACHINES, read_library
from kernel_build.library import (
    EXPORTS,
    NoLibrary,
    compile_library,
    host_compiler,
    remove_libraries,
)
from sti.codec.native import library as loader
from sti.codec.native.structures import ABI
from sti.errors import StiWarning

NAME = f"sti_codec.{platform.machine()}.so"
PROCESSOR = slice(18, 20)
"""Of an ELF file: the number of the processor it is for."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library of this machine, as ``pip install`` makes it."""
    try:
        host_compiler()
    except NoLibrary as error:
        pytest.skip(str(error))
    if platform.machine() not in MACHINES.values():
        pytest.skip("this processor has no library")
    return compile_library(tmp_path_factory.mktemp("built"))


@pytest.fixture
def copies(tmp_path: Path) -> Callable[[bytes], list[str]]:
    """Makes a compiler that writes the given bytes, whatever it is asked."""

    def make(data: bytes) -> list[str]:
        (tmp_path / "data").write_bytes(data)
        code = "import shutil, sys; shutil.copy(sys.argv[1], sys.argv[sys.argv.index('-o') + 1])"
        return [sys.executable, "-c", code, str(tmp_path / "data")]

    return make


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], object]]:
    """Loads a library as if it lay beside the package."""

    def put(data: bytes) -> object:
        (tmp_path / NAME).write_bytes(data)
        monkeypatch.setattr(loader, "FOLDER", tmp_path)
        loader.library.cache_clear()
        return loader.library()

    yield put
    loader.library.cache_clear()


def shared(folder: Path, source: str, *flags: str) -> bytes:
    """A shared library made of some other source."""
    (folder / "other.c").write_text(source, encoding="utf-8")
    command = [*host_compiler(), "-shared", "-fPIC", *flags, "-o", "other.so", "other.c"]
    subprocess.run(command, cwd=folder, check=True)
    return (folder / "other.so").read_bytes()


def exports(abi: int) -> str:
    """Source that defines all that the kernel does, for interface ``abi``."""
    return "".join(f"int {name}(void) {{ return {abi}; }}\n" for name in sorted(EXPORTS))


def test_the_library_asks_for_nothing_and_exports_its_interface_alone(built: Path) -> None:
    found = read_library(built.read_bytes())
    assert built.name == NAME
    assert found.machine == platform.machine()
    assert found.objection() is None
    assert found.defined == EXPORTS


def test_two_builds_are_equal(built: Path, tmp_path: Path) -> None:
    assert compile_library(tmp_path).read_bytes() == built.read_bytes()


def test_no_path_of_the_build_shows(built: Path) -> None:
    assert str(Path(__file__).resolve().parents[2]).encode() not in built.read_bytes()
    assert b"sti_codec.c" not in built.read_bytes()


def test_the_library_is_loaded(built: Path, load: Callable[[bytes], object]) -> None:
    assert load(built.read_bytes())


def test_a_library_of_another_interface_is_refused_with_a_notice(
    built: Path, tmp_path: Path, load: Callable[[bytes], object]
) -> None:
    other = shared(tmp_path, exports(99), "-nostdlib")
    said = rf"{NAME}: has interface 99, not {ABI}\. .*install STI again"
    with pytest.warns(StiWarning, match=said):
        assert load(other) is None


def test_a_library_for_another_processor_is_refused_with_a_notice(
    built: Path, load: Callable[[bytes], object]
) -> None:
    other = bytearray(built.read_bytes())
    other[PROCESSOR] = (243).to_bytes(2, "little")
    with pytest.warns(StiWarning, match=f"{NAME}: cannot be loaded"):
        assert load(bytes(other)) is None


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["no-such-compiler"], "no-such-compiler: .*No such file"),
        (["false"], "false ended with code 1"),
        (["true"], "true: made no library to use: .*No such file"),
    ],
)
def test_a_compiler_that_is_missing_or_broken_is_told(
    tmp_path: Path, command: list[str], said: str
) -> None:
    with pytest.raises(NoLibrary, match=said):
        compile_library(tmp_path, command)
    assert not list(tmp_path.iterdir())


def test_the_compiler_that_cc_names_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "ccache 'my cc' -m64")
    assert host_compiler() == ["ccache", "my cc", "-m64"]


def test_a_machine_without_a_compiler_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoLibrary, match="no C compiler: none of cc, gcc, clang was found"):
        compile_library(tmp_path)


def test_a_library_with_undefined_symbols_is_thrown_away(
    built: Path, tmp_path: Path, copies: Callable[[bytes], list[str]]
) -> None:
    source = "int puts(const char *);\n" + exports(1) + "int more(void) { return puts(0); }\n"
    other = shared(tmp_path, source, "-nostdlib")
    with pytest.raises(NoLibrary, match="thrown away: undefined symbols: puts"):
        compile_library(tmp_path / "made", copies(other))
    with pytest.raises(NoLibrary, match=r"undefined symbols|needs other libraries"):
        compile_library(tmp_path / "made", copies(shared(tmp_path, source)))
    assert not (tmp_path / "made").exists()


def test_a_library_that_lacks_a_function_is_thrown_away(
    built: Path, tmp_path: Path, copies: Callable[[bytes], list[str]]
) -> None:
    other = shared(tmp_path, exports(1).replace("sti_rows", "rows"), "-nostdlib")
    with pytest.raises(NoLibrary, match="thrown away: lacks sti_rows"):
        compile_library(tmp_path / "made", copies(other))


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (slice(0, 4), b"MZ\0\0", "not a 64-bit, little-endian ELF file"),
        (slice(4, 5), b"\1", "not a 64-bit, little-endian ELF file"),
        (slice(5, 6), b"\2", "not a 64-bit, little-endian ELF file"),
        (slice(16, 18), b"\2\0", "not a shared library"),
        (PROCESSOR, b"\xf3\0", "for another processor"),
        (slice(40, 48), b"\xff\xff\xff\0\0\0\0\0", "a damaged ELF file"),
        (slice(100, None), b"", "a damaged ELF file"),
        (slice(0, None), b"", "not a 64-bit"),
    ],
)
def test_what_is_no_library_for_these_processors_is_told(
    built: Path, copies: Callable[[bytes], list[str]], place: slice, value: bytes, said: str
) -> None:
    data = bytearray(built.read_bytes())
    data[place] = value
    with pytest.raises(NoLibrary, match=f"made no library to use: {said}"):
        compile_library(built.parent / "made", copies(bytes(data)))


def test_a_damaged_library_is_read_or_refused(built: Path) -> None:
    whole, rng = built.read_bytes(), Random(0)
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 40)):
            data[rng.choice((rng.randrange(64), rng.randrange(len(data))))] = rng.randrange(256)
        with suppress(ValueError):
            read_library(bytes(data))


def test_libraries_of_all_processors_are_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in ("sti_codec.x86_64.so", "sti_codec.aarch64.so", "sti_codec.c", "other.so"):
        (tmp_path / name).touch()
    remove_libraries(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.so", "sti_codec.c"]
