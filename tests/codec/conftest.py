"""The native kernel for tests: compiled from the sources at hand, never a stale one."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernel_build.library import NoLibrary, compile_library
from sti.codec.decoder import PORTABLE
from sti.codec.native import library
from sti.codec.native.kernel import available_paths

KERNEL_PATHS = {"x86_64": ("avx2", "ssse3", "scalar"), "aarch64": ("neon", "scalar")}


@pytest.fixture(scope="session")
def compiled_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kernel's library, not to be changed; skips where there is no compiler."""
    try:
        return compile_library(tmp_path_factory.mktemp("library"))
    except NoLibrary as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def compiled_kernel(compiled_library: Path) -> Iterator[None]:
    """That library in the place of any other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "FOLDER", compiled_library.parent)
        library.library.cache_clear()
        yield
    library.library.cache_clear()


@pytest.fixture(scope="module", params=(*KERNEL_PATHS.get(platform.machine(), ()), PORTABLE))
def path(request: pytest.FixtureRequest) -> str:
    """Every path in turn, NumPy's too; skips those that do not run on this machine."""
    name: str = request.param
    if name != PORTABLE:
        request.getfixturevalue("compiled_kernel")
        assert "scalar" in available_paths()  # what was just compiled must not be refused
        if name not in available_paths():
            pytest.skip(f"this processor has no {name}")
    return name
