"""Build the wheel for every machine: one file with a kernel for each processor STI is tuned for.

    python -m kernel_build.wheel FOLDER

In: this source tree, and zig (the extra ``wheel``), which compiles for all of them. Out: a
``py3-none-any`` wheel in FOLDER and its SHA-256. The libraries need no C library, so glibc, musl
and Android load the same ones. Two builds of the same tree are equal to the byte: times are fixed
(or those of ``SOURCE_DATE_EPOCH``), and what is built is a copy in which nothing else lies.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from kernel_build.library import ROOT, NoLibrary, compile_library

TARGETS = ("x86_64-linux-musl", "aarch64-linux-musl")
"""Targets of zig; the name of the C library only chooses conventions that all three share."""
EPOCH = "315532800"
"""Start of 1980, the first time that an archive can hold."""
SOURCES = ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in")
FOLDERS = ("sti", "shard_tools", "kernel_build")


def compiler(target: str) -> list[str]:
    """The command that compiles for a target of zig."""
    return [sys.executable, "-m", "ziglang", "cc", "-target", target]


def build_wheel(folder: Path) -> Path:
    """Build the wheel into ``folder``, which is made if it is missing.

    Raises:
        NoLibrary: zig is missing, or failed.
        RuntimeError: pip failed, or the wheel does not hold what it should.
    """
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        caches = ("ZIG_LOCAL_CACHE_DIR", "ZIG_GLOBAL_CACHE_DIR")
        env = {**os.environ, **dict.fromkeys(caches, str(work / "zig"))}
        libraries = {
            compile_library(work / "libraries", compiler(target), env=env) for target in TARGETS
        }
        _copy(work / "tree")
        (made,) = _pip(work)
        with zipfile.ZipFile(made) as wheel:
            held = {Path(path).name for path in wheel.namelist() if path.endswith(".so")}
        wanted = {item.name for item in libraries}
        if not made.name.endswith("-py3-none-any.whl") or held != wanted:
            raise RuntimeError(
                f"{made.name} holds the libraries {sorted(held)}; it should hold {sorted(wanted)} "
                "and be named py3-none-any"
            )
        folder.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(made, folder))


def _copy(tree: Path) -> None:
    """What belongs in the wheel, with equal rights on every machine."""
    ignore = shutil.ignore_patterns("__pycache__", "*.so", "*.egg-info")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, tree / name, ignore=ignore)
    for name in SOURCES:
        shutil.copyfile(ROOT / name, tree / name)
    for path in tree.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _pip(work: Path) -> Iterator[Path]:
    fixed = {
        "SOURCE_DATE_EPOCH": os.environ.get("SOURCE_DATE_EPOCH", EPOCH),
        "STI_LIBRARIES": str(work / "libraries"),
    }
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(work), "."]
    env = {**os.environ, **fixed}
    ended = subprocess.run(command, cwd=work / "tree", env=env, umask=0o022, check=False)
    if ended.returncode:
        raise RuntimeError("pip could not build the wheel")
    return work.glob("*.whl")


def main() -> int:
    """Build the wheel where the command line says."""
    parser = argparse.ArgumentParser(description="Build STI's wheel for every machine.")
    parser.add_argument("folder", type=Path, help="where the wheel goes")
    try:
        wheel = build_wheel(parser.parse_args().folder)
    except (NoLibrary, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    print(hashlib.sha256(wheel.read_bytes()).hexdigest(), wheel)
    return 0


if __name__ == "__main__":
    sys.exit(main())
