"""Compiling the native kernel: one C file to one shared library that needs no other.

    python -m kernel_build.library [FOLDER]

In: ``sti/codec/native/sti_codec.c`` and a C compiler: ``$CC``, else ``cc``, ``gcc`` or ``clang``.
Out: ``sti_codec.PROCESSOR.so``, by default beside the source, or the reason why there is none:
without a library STI decodes in NumPy. A library is kept only if it asks for nothing: no C library,
no undefined symbol. The flags leave out all that would differ from one build to the next.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from kernel_build.elf import read_library

ROOT = Path(__file__).resolve().parents[1]
SOURCE = Path("sti", "codec", "native", "sti_codec.c")
PATTERN = f"{SOURCE.stem}.*.so"
EXPORTS = frozenset({"sti_abi", "sti_features", "sti_decode", "sti_rows", "sti_crc32"})
COMPILERS = ("cc", "gcc", "clang")
COMPILER_S = 120

FLAGS = (
    *("-O3", "-std=c11", "-ffreestanding", "-nostdlib", "-shared", "-fPIC"),
    *("-fvisibility=hidden", "-fno-stack-protector", "-fno-asynchronous-unwind-tables"),
    *("-g0", "-s", "-Wl,--build-id=none", "-Wl,-z,defs", "-Wl,-z,noexecstack"),
    *("-Wl,--hash-style=both", f"-Wl,-soname,{SOURCE.stem}.so"),
)
"""No path, time or compiler's default may show: a stack protector would need the C library."""


class NoLibrary(Exception):
    """The kernel was not compiled; the message says why."""


def host_compiler() -> list[str]:
    """The command that compiles for this machine.

    Raises:
        NoLibrary: there is none.
    """
    if named := shlex.split(os.environ.get("CC", "")):
        return named
    for name in COMPILERS:
        if shutil.which(name):
            return [name]
    raise NoLibrary(f"no C compiler: none of {', '.join(COMPILERS)} was found")


def compile_library(
    folder: Path,
    compiler: Sequence[str] | None = None,
    *,
    env: Mapping[str, str] | None = None,
) -> Path:
    """Compile the kernel; returns the library, in ``folder`` and named after its processor.

    Args:
        folder: where the library goes; libraries for other processors stay there.
        compiler: the command to use, target included; by default ``host_compiler()``.
        env: the compiler's environment; by default this process's.

    Raises:
        NoLibrary: there is no compiler, it failed, or what it made asks for more than a processor.
    """
    command = list(host_compiler() if compiler is None else compiler)
    with tempfile.TemporaryDirectory() as work:
        made = Path(work, "made.so")
        _run([*command, *FLAGS, "-o", str(made), str(SOURCE)], env)
        try:
            data = made.read_bytes()
            found = read_library(data)
        except (OSError, ValueError) as error:
            raise NoLibrary(f"{command[0]}: made no library to use: {error}") from error
    missing = EXPORTS - found.defined
    objection = found.objection() or (missing and f"lacks {', '.join(sorted(missing))}")
    if objection:
        raise NoLibrary(f"{command[0]}: made a library that is thrown away: {objection}")
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / f"{SOURCE.stem}.{found.machine}.so"
    draft = library.with_suffix(".draft")
    draft.write_bytes(data)
    draft.replace(library)  # as a whole: a process may be using the old one
    return library


def remove_libraries(folder: Path) -> None:
    """Remove every library of the kernel from a folder: none may outlive its source."""
    for path in folder.glob(PATTERN):
        path.unlink()


def _run(command: Sequence[str], env: Mapping[str, str] | None) -> None:
    try:
        ended = subprocess.run(
            command,
            cwd=ROOT,
            env=env,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=COMPILER_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoLibrary(f"{command[0]}: {error}") from error
    if ended.returncode:
        raise NoLibrary(f"{command[0]} ended with code {ended.returncode}:\n{ended.stderr}")


def main() -> int:
    """Compile into the folder that the command line names, by default beside the source."""
    parser = argparse.ArgumentParser(description="Compile STI's kernel.")
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / SOURCE.parent)
    folder = parser.parse_args().folder
    remove_libraries(folder)
    try:
        print(compile_library(folder))
    except NoLibrary as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
