"""The kernel's library: which one is taken, which one is refused, and its golden vectors."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterator
from ctypes import CDLL
from pathlib import Path

import pytest

from kernel_build.library import host_compiler
from sti.codec import decoders
from sti.codec.native import library
from sti.codec.native.kernel import NativeDecoder, available_paths
from sti.codec.native.structures import ABI, AVX2, CLMUL, SSSE3
from sti.errors import BackendError, StiWarning
from tests.support.codes import bell_codebook
from tests.support.paths import ROOT
from tests.tools import kernel_vectors

pytestmark = pytest.mark.usefixtures("compiled_kernel")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where a library is looked for, instead of that of the package."""
    monkeypatch.setattr(library, "FOLDER", tmp_path)
    library.library.cache_clear()
    yield tmp_path
    library.library.cache_clear()


def test_golden_vectors_are_those_of_the_specification() -> None:
    assert kernel_vectors.main(["--check"]) == 0


def test_golden_vectors_hold_on_every_path(tmp_path: Path) -> None:
    source, native = ROOT / "tests" / "native", ROOT / "sti" / "codec" / "native"
    command = [*host_compiler(), "-O1", "-std=c11", "-I", str(native), "-o", str(tmp_path / "try")]
    command += [str(source / "vectors.c"), str(native / "sti_codec.c")]
    subprocess.run(command, check=True)
    subprocess.run([tmp_path / "try"], check=True)


def test_a_path_that_is_not_there_is_refused() -> None:
    with pytest.raises(BackendError, match="abacus"):
        NativeDecoder(bell_codebook(), path="abacus")


class Without(CDLL):
    """The library on a processor, or under a system, that has these features at most."""

    usable = 0

    def __init__(self, name: str) -> None:
        super().__init__(name)
        found = self.sti_features()
        self.sti_features = lambda: found & self.usable


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Without]]:
    """Libraries are loaded on a processor whose ``usable`` features the test sets."""
    with monkeypatch.context() as patch:
        patch.setattr(library, "CDLL", Without)
        patch.setattr(Without, "usable", 0)
        library.library.cache_clear()
        yield Without
    library.library.cache_clear()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="its features are those of x86-64")
@pytest.mark.parametrize(
    ("usable", "paths"),
    [
        (0, ("scalar",)),
        (CLMUL, ("scalar",)),
        (SSSE3, ("ssse3", "scalar")),
        (SSSE3 | CLMUL, ("ssse3", "scalar")),
        (SSSE3 | AVX2, ("avx2", "ssse3", "scalar")),
        (SSSE3 | AVX2 | CLMUL, ("avx2", "ssse3", "scalar")),
    ],
)
def test_a_processor_that_lacks_features_takes_the_paths_it_can(
    limited: type[Without], usable: int, paths: tuple[str, ...]
) -> None:
    has = CDLL(str(library.FOLDER / library.LIBRARY_NAME)).sti_features()
    limited.usable = usable
    loaded = library.library()
    assert loaded is not None  # so every path has decoded the known example
    needs = {"avx2": AVX2, "ssse3": SSSE3, "scalar": 0}
    assert available_paths() == tuple(path for path in paths if not needs[path] & ~has)
    assert all(not features & ~usable for features in loaded.paths.values())
    assert NativeDecoder(bell_codebook()).path == available_paths()[0]


STUB = """
unsigned sti_abi(void) {{ return {abi}; }}
unsigned sti_features(void) {{ return 0; }}
unsigned sti_crc32(void) {{ return 0; }}
int sti_decode(void) {{ return 0; }}
int {rows}(void) {{ return 0; }}
"""


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (None, "not a whole library"),
        (STUB.format(abi=99, rows="sti_rows"), "interface 99"),
        (STUB.format(abi=ABI, rows="other"), "sti_rows"),
        (STUB.format(abi=ABI, rows="sti_rows"), "known example"),
    ],
)
def test_a_library_that_cannot_be_used_is_refused_with_one_notice(
    source: str | None, reason: str, folder: Path
) -> None:
    file = folder / library.LIBRARY_NAME
    if source is None:
        file.write_bytes(b"\x7fELF of another world")
    else:
        stub = folder / "stub.c"
        stub.write_text(source)
        command = [*host_compiler(), "-shared", "-fPIC", "-o", str(file), str(stub)]
        subprocess.run(command, check=True)
    with pytest.warns(StiWarning, match=reason) as warned:
        assert available_paths() == ()
    assert str(file) in str(warned[0].message)
    assert available_paths() == ()


@pytest.mark.parametrize("length", [0, 64, 1000, 8192, 24576, -1])
def test_a_library_that_was_cut_off_is_refused_before_it_is_loaded(
    length: int, compiled_library: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / library.LIBRARY_NAME).write_bytes(compiled_library.read_bytes()[:length])
    monkeypatch.setattr(library, "CDLL", None)
    with pytest.warns(StiWarning, match="not a whole library"):
        assert available_paths() == ()


def test_the_portable_path_does_without_a_look_at_the_library(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / library.LIBRARY_NAME).write_bytes(b"no library at all")
    monkeypatch.setenv(decoders.VARIABLE, "portable")
    decoder = decoders.make_decoder(bell_codebook(), weights="s8")
    assert decoder.path == decoders.kernel_path() == "portable"


@pytest.mark.usefixtures("folder")
def test_without_a_library_there_is_no_notice() -> None:
    assert available_paths() == ()
    with pytest.raises(BackendError, match="native"):
        NativeDecoder(bell_codebook())
