"""Every benchmark can be imported: few of them run in tests."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import benchmarks

MODULES = sorted(found.name for found in pkgutil.walk_packages(benchmarks.__path__, "benchmarks."))


@pytest.mark.parametrize("name", MODULES)
def test_benchmarks_import_what_there_is(name: str) -> None:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        top = str(error.name).partition(".")[0]
        if top in {"sti", "shard_tools", "kernel_build", "benchmarks", "tests"}:
            raise
        pytest.skip(f"needs {top}")
