"""Faults in the process that builds a graph, which reads the pack by itself.

In: a pack's file and a fault. Effect: processes that this one starts within a block, to build a
graph, have their reads of the file go wrong: a module that Python imports as it starts puts the
fault in place.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sti.testing.faults import Fault

_NAME = "STI_FAULTY_BUILDING"
_CODE = f"""\
import os, pickle, sys
if "sti.engine.graph_child" in sys.orig_argv and "{_NAME}" in os.environ:
    from sti.testing.faulty_file import faulty_file
    with open(os.environ["{_NAME}"], "rb") as file:
        faulty = faulty_file(*pickle.load(file))
    faulty.__enter__()
"""


@contextmanager
def faulty_building(place: Path, path: Path, fault: Fault) -> Iterator[None]:
    """Within it, graphs are built from a faulty file.

    Args:
        place: a directory for what the other process needs.
        path: of the pack.
    """
    site = place / "site"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(_CODE, encoding="utf-8")
    (site / "fault").write_bytes(pickle.dumps((str(path), fault)))
    os.environ[_NAME] = str(site / "fault")
    sys.path.insert(0, str(site))
    try:
        yield
    finally:
        sys.path.remove(str(site))
        del os.environ[_NAME]
