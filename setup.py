"""What setup.cfg cannot say: the native kernel is compiled where there is a compiler.

``pip install`` never fails for want of one: without a library STI decodes in NumPy, and ``sti
doctor`` says so. ``STI_LIBRARIES`` names a folder of libraries to take instead of compiling one, as
``kernel_build.wheel`` does for several processors at once.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))

from kernel_build.library import (  # noqa: E402  (needs the path above)
    PATTERN,
    SOURCE,
    NoLibrary,
    compile_library,
    remove_libraries,
)


class BuildWithKernel(build_py):
    """The packages, and the kernel's library among them: in the source tree where that is used."""

    def run(self) -> None:
        """Copy the packages; then compile."""
        super().run()
        folder = (ROOT if self.editable_mode else Path(self.build_lib)) / SOURCE.parent
        remove_libraries(folder)
        if given := os.environ.get("STI_LIBRARIES"):
            for library in sorted(Path(given).glob(PATTERN)):
                shutil.copyfile(library, folder / library.name)
            return
        try:
            compile_library(folder)
        except Exception as error:  # whatever a compiler does, STI works without it
            reason = error if isinstance(error, NoLibrary) else repr(error)
            self.warn(f"STI decodes in NumPy, without its native kernel: {reason}")


setup(cmdclass={"build_py": BuildWithKernel})
