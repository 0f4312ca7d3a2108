"""How to install what is missing, for every way STI can have been installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sti.report.installation import RUN_TIME, Installation, install_compiler, install_hint, missing
from tests.support.paths import ROOT


def directory(path: Path, *, editable: bool = False) -> dict[str, Any]:
    return {"url": path.as_uri(), "dir_info": {"editable": True} if editable else {}}


def test_from_a_source_tree_the_extra_is_installed_from_that_directory() -> None:
    here = Installation(source=Path("/src/sti"))
    assert install_hint("onnx", installation=here) == '`pip install "/src/sti[build]"`'


def test_a_source_tree_counts_more_than_another_installation() -> None:
    here = Installation(source=Path("/src/sti"), direct_url=directory(Path("/old/sti")))
    assert install_hint("onnx", installation=here) == '`pip install "/src/sti[build]"`'


def test_an_installation_from_a_directory_names_it(tmp_path: Path) -> None:
    place = tmp_path / "a b"
    place.mkdir()
    here = Installation(direct_url=directory(place))
    assert install_hint("tokenizers", installation=here) == f'`pip install "{place}[test]"`'


@pytest.mark.parametrize("running", [True, False])
def test_an_editable_installation_stays_editable(tmp_path: Path, running: bool) -> None:
    here = Installation(tmp_path if running else None, directory(tmp_path, editable=True))
    assert install_hint("pytest", installation=here) == f'`pip install -e "{tmp_path}[test]"`'


def test_a_directory_that_is_gone_is_not_named(tmp_path: Path) -> None:
    here = Installation(direct_url=directory(tmp_path / "gone"))
    said = '`pip install ".[build]"` in the directory of STI\'s source'
    assert install_hint("onnx", installation=here) == said


@pytest.mark.parametrize(
    ("noted", "source"),
    [
        ({"url": "https://x/sti-1.whl", "archive_info": {}}, "https://x/sti-1.whl"),
        ({"url": "file:///a/sti-1.whl", "archive_info": {}}, "file:///a/sti-1.whl"),
        (
            {"url": "https://x/sti", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            "git+https://x/sti@abc",
        ),
    ],
)
def test_archives_and_repositories_are_named_as_pip_noted_them(
    noted: dict[str, Any], source: str
) -> None:
    here = Installation(direct_url=noted)
    assert install_hint("onnx", installation=here) == f'`pip install "sti[build] @ {source}"`'


@pytest.mark.parametrize("noted", [None, {}, {"url": "x"}])
def test_no_package_called_sti_is_ever_asked_of_a_package_index(
    noted: dict[str, Any] | None,
) -> None:
    hint = install_hint("onnx", installation=Installation(direct_url=noted))
    assert hint == '`pip install ".[build]"` in the directory of STI\'s source'


def test_the_kernel_comes_with_a_compiler() -> None:
    assert "`apt install gcc`" in install_compiler(Installation())
    assert "`pkg install clang`" in install_compiler(Installation(termux=True))


def test_for_torch_the_cpu_build_comes_first() -> None:
    hint = install_hint("torch", installation=Installation(source=Path("/s")))
    assert hint == (
        '`pip install torch==2.13.0` (a CPU build is enough), then `pip install "/s[train]"`'
    )


def test_a_command_names_the_extra_it_needs_as_a_whole() -> None:
    here = Installation(source=Path("/s"))
    assert install_hint("onnx", extra="train", installation=here) == '`pip install "/s[train]"`'


@pytest.mark.parametrize("package", RUN_TIME)
def test_packages_of_the_run_time_have_names_of_their_own(package: str) -> None:
    usual, termux = Installation(), Installation(termux=True)
    assert install_hint(package, installation=usual) == f"`pip install {package}`"
    assert install_hint(package, installation=termux) == f"`pkg install python-{package}`"
    newer = install_hint(package, upgrade=True, installation=usual)
    assert newer == f"`pip install -U {package}`"
    newer = install_hint(package, upgrade=True, installation=termux)
    assert newer == f"`pkg upgrade python-{package}`"


def test_a_missing_part_of_a_package_is_told_as_the_package() -> None:
    said = missing("onnxruntime.capi", installation=Installation())
    assert said == "the Python package onnxruntime is missing: `pip install onnxruntime`"


def test_modules_that_sti_does_not_ask_for_have_no_hint() -> None:
    assert install_hint("antigravity", installation=Installation()) is None
    assert missing("sti.nothing") is None


def test_this_code_runs_from_its_source_tree() -> None:
    assert Installation.current().source == ROOT
