"""The native kernel for tests: compiled from the sources at hand, never a stale one."""

from __future__ import annotations

import platform
from collections.abc import Iterator

import pytest

from kernel_build.library import NoLibrary, compile_library
from sti.codec.decoder import PORTABLE
from sti.codec.native import library
from sti.codec.native.kernel import available_paths

KERNEL_PATHS = {"x86_64": ("avx2", "ssse3", "scalar"), "aarch64": ("neon", "scalar")}


@pytest.fixture(scope="module")
def compiled_kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The kernel's library, in the place of any other; skips where there is no compiler."""
    folder = tmp_path_factory.mktemp("library")
    try:
        compile_library(folder)
    except NoLibrary as error:
        pytest.skip(str(error))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "FOLDER", folder)
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
