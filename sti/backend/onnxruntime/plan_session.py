"""A session over the graph of a whole plan, whose weights are mapped from a file.

In: the directory that ``joined_graph`` wrote, threads; states of ``OrtBackend``. Effect: their
hidden states have passed all blocks. Knows nothing of caches, plans or texts.
"""

from __future__ import annotations

import os
from ctypes import py_object, pythonapi
from pathlib import Path
from weakref import WeakSet

from sti.backend.interface import SentenceState
from sti.backend.onnxruntime.compute import OrtSentenceState
from sti.backend.onnxruntime.joined_graph import MODEL
from sti.backend.onnxruntime.session import Graph, constant_options
from sti.device import host
from sti.device.affinity import started_thread
from sti.errors import BackendError

_PAIR = 2
"""Threads that are kept apart on as many cores; with more, the system does well by itself."""


class PlanSession:
    """All blocks of a plan as one graph (``sti.backend.interface.BlocksGraph``).

    Not thread-safe. In a forked child it can be closed, and not run: its threads stayed behind.

    Args:
        directory: with the graph's files, which must stay as they are.
        threads: of each product.

    Attributes:
        threads: as given.
        helper: as ``BlocksGraph.helper``.

    Raises:
        BackendError: ONNX Runtime refuses the graph.
    """

    def __init__(self, directory: Path, *, threads: int) -> None:
        def opened() -> Graph:
            return Graph("plan", str(directory / MODEL), constant_options(threads))

        cores = [core.index for core in host.cores()]
        self.threads = threads
        self.helper: int | None = None
        self._graph: Graph | None
        if threads == len(cores) == _PAIR:
            self._graph, self.helper = started_thread(cores, opened)
        else:
            self._graph = opened()
        _open.add(self)

    def run(self, state: SentenceState) -> None:
        """Compute all blocks on a state's hidden states."""
        if self._graph is None:
            raise BackendError("the graph of the plan was closed; open it again")
        if not isinstance(state, OrtSentenceState):
            raise BackendError(f"a graph of ONNX Runtime cannot run on a {type(state).__name__}")
        state.run_blocks(self._graph)

    def close(self) -> None:
        """Give back the session and its threads. Idempotent."""
        self._graph = self.helper = None

    def keep(self) -> None:
        """Never let ONNX Runtime end the session, even if this process ends."""
        if self._graph is not None:
            pythonapi.Py_IncRef(py_object(self._graph.session))


_open: WeakSet[PlanSession] = WeakSet()


def _keep_all() -> None:
    """In a forked child: ending a session would wait for its threads, which only the parent has."""
    for session in tuple(_open):
        session.keep()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_all)
