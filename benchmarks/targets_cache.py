"""Cache directories of their own for parts of a benchmark, in this process and those it starts.

In: a cache to start from. Out: ``$XDG_CACHE_HOME`` names a copy of it for a while, so that what one
part makes an engine learn, such as a busy machine's times, is not what the next one starts with.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_VARIABLE = "XDG_CACHE_HOME"


@contextmanager
def own_cache(start: Path | None) -> Iterator[Path]:
    """A cache for a while; what is learned in it is forgotten afterwards.

    Args:
        start: the directory whose files are copied into it; None, or one that is missing: none.
    """
    before = os.environ.get(_VARIABLE)
    with tempfile.TemporaryDirectory() as place:
        if start is not None and start.is_dir():
            shutil.copytree(start, Path(place, start.name))
        os.environ[_VARIABLE] = place
        try:
            yield Path(place)
        finally:
            if before is None:
                del os.environ[_VARIABLE]
            else:
                os.environ[_VARIABLE] = before
