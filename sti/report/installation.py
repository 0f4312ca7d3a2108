"""How to install a missing package, or the native kernel, depending on how STI was installed.

In: the name of a module that could not be imported. Out: a sentence with the commands to run. No
package index has a package called ``sti``, so an extra is named by where this STI came from: the
directory of its source, or the archive or repository that pip noted down. Knows nothing of who
misses the module.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sti.storage.json_input import SMALL, parse_json

RUN_TIME = ("numpy", "onnxruntime", "psutil")
"""Packages that are installed by their own name."""
EXTRAS = {
    "onnx": "build",
    "safetensors": "build",
    "torch": "train",
    "zmq": "devices",
    "mpi4py": "mpi",
    "hypothesis": "test",
    "pytest": "test",
    "tokenizers": "test",
}
"""The extra of STI that brings a module."""
CPU_TORCH = "pip install torch==2.13.0"
"""Names one version: package indexes of CPU builds have each version under the same name."""


@dataclass(frozen=True, slots=True)
class Installation:
    """Where this STI came from."""

    source: Path | None = None
    """The source tree that this code runs from, where it does."""
    direct_url: Mapping[str, Any] | None = None
    """What pip noted down in ``direct_url.json``; None where STI was installed in another way."""
    termux: bool = False

    @classmethod
    def current(cls) -> Installation:
        """That of the running code."""
        from importlib import metadata  # takes a while, and only who lacks a package asks

        root = Path(__file__).resolve().parents[2]
        try:
            noted = metadata.distribution("sti").read_text("direct_url.json")
            direct_url = None if noted is None else parse_json(noted, SMALL)
        except (metadata.PackageNotFoundError, ValueError):
            direct_url = None
        return cls(
            source=root if (root / "setup.cfg").is_file() else None,
            direct_url=direct_url if isinstance(direct_url, dict) else None,
            termux="com.termux" in sys.prefix,
        )

    def install_extra(self, extra: str) -> str:
        """The command that adds an extra, and where to run it if that matters."""
        noted = self.direct_url or {}
        url = str(noted.get("url", ""))
        directory = _path(url) if "dir_info" in noted else None
        if self.source is not None and self.source != directory:
            return f'`pip install "{self.source}[{extra}]"`'
        if directory is not None and directory.is_dir():
            editable = "-e " if noted["dir_info"].get("editable") else ""
            return f'`pip install {editable}"{directory}[{extra}]"`'
        if "archive_info" in noted:
            return f'`pip install "sti[{extra}] @ {url}"`'
        if "vcs_info" in noted:
            vcs = noted["vcs_info"]
            return f'`pip install "sti[{extra}] @ {vcs["vcs"]}+{url}@{vcs["commit_id"]}"`'
        return f'`pip install ".[{extra}]"` in the directory of STI\'s source'


def install_hint(
    module: str,
    *,
    extra: str | None = None,
    upgrade: bool = False,
    installation: Installation | None = None,
) -> str | None:
    """The commands that bring a module, in backquotes; None for a module STI does not ask for.

    Args:
        module: its name, as ``ModuleNotFoundError`` gives it.
        extra: the extra that the command needs as a whole; by default the one with the module.
        upgrade: the module is there, but too old.
        installation: how STI was installed; by default, that of the running code.
    """
    package = module.partition(".")[0]
    if package not in RUN_TIME and package not in EXTRAS:
        return None
    here = installation or Installation.current()
    if package in RUN_TIME:
        if here.termux:
            return f"`pkg {'upgrade' if upgrade else 'install'} python-{package}`"
        return f"`pip install {'-U ' * upgrade}{package}`"
    command = here.install_extra(extra or EXTRAS[package])
    if package == "torch":
        return f"`{CPU_TORCH}` (a CPU build is enough), then {command}"
    return command


def install_compiler(installation: Installation | None = None) -> str:
    """What brings the native kernel where it was not compiled: a compiler, then STI once more."""
    here = installation or Installation.current()
    compiler = "`pkg install clang`" if here.termux else "a C compiler (`apt install gcc`)"
    return f"install {compiler} and then STI again"


def missing(
    module: str, *, extra: str | None = None, installation: Installation | None = None
) -> str | None:
    """What to say where a module is missing; None where ``install_hint`` has nothing to say."""
    hint = install_hint(module, extra=extra, installation=installation)
    return hint and f"the Python package {module.partition('.')[0]} is missing: {hint}"


def _path(url: str) -> Path | None:
    """The directory of a ``file:`` URL."""
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    parts = urlsplit(url)
    return Path(url2pathname(parts.path)) if parts.scheme == "file" else None
