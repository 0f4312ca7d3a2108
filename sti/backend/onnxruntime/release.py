"""The release of ONNX Runtime in use, and whether packs of strangers may be run with it.

In: nothing. Out: its version; an error where graphs could read files of the user's.
"""

from __future__ import annotations

from functools import cache

from sti.backend.onnxruntime.library import ort
from sti.errors import BackendError

OLDEST_ORT = (1, 24, 1)
"""Earlier releases read what a graph names as external data from any file of the user's."""


def ort_version() -> str:
    """Version of ONNX Runtime in use."""
    return str(ort.__version__)


def is_too_old(version: str) -> bool:
    """Whether a release of ONNX Runtime is older than what packs may be run with."""
    parts = version.split(".")[:3]
    return all(part.isdigit() for part in parts) and tuple(map(int, parts)) < OLDEST_ORT


@cache
def check_release() -> None:
    """Refuse to load graphs into a release that follows them to other files.

    Raises:
        BackendError: it is one; names it.
    """
    if is_too_old(ort_version()):
        oldest = ".".join(map(str, OLDEST_ORT))
        raise BackendError(
            f"onnxruntime {ort_version()} lets a graph read any file of the user's; STI needs "
            f"{oldest} or later: `pip install 'onnxruntime>={oldest}'`"
        )
