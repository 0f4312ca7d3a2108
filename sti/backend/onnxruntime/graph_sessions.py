"""A pack's sessions by the names of its graphs.

In: a pack's graphs, and whether this processor needs those with unsigned weights. Out: a ``Graph``
for a name, made on first use and kept. Knows nothing of what graphs are fed.
"""

from __future__ import annotations

from sti.backend.interface import ResidentTensors
from sti.backend.onnxruntime.session import Graph, saturates, session_options


class GraphSessions:
    """The sessions of one pack. Not thread-safe.

    Args:
        residents: where the graphs' bytes lie; must stay open.
        threads: compute threads of each session.
        unsigned: use the graphs with unsigned weights; None lets a product decide whether this
            processor multiplies u8 by s8 exactly (x86 without VNNI does not).
    """

    def __init__(self, residents: ResidentTensors, *, threads: int, unsigned: bool | None) -> None:
        self._residents = residents
        self._listed = residents.manifest.graphs
        self._options = session_options(threads)
        self._made: dict[str, Graph] = {}
        self.unsigned = saturates(self._options) if unsigned is None else unsigned

    def prepare(self) -> None:
        """Make the sessions that every run needs; others are made on first use."""
        for name in ("embed", "connect", "head"):
            self.graph(name)
        for kind in self._residents.manifest.kinds:
            self.graph(kind.name)

    def graph(self, name: str, *, masked: bool = False) -> Graph:
        """The session of a graph, in the variant that this processor needs.

        Args:
            masked: prefer the variant for groups with padding, where there is one.

        Raises:
            BackendError: ONNX Runtime refuses the graph.
        """
        suffix = ".u8" if self.unsigned else ".s8"
        if masked and f"{name}_masked{suffix}" in self._listed:
            return self._session(f"{name}_masked{suffix}")
        return self._session(name if name in self._listed else name + suffix)

    def _session(self, key: str) -> Graph:
        if key not in self._made:
            model = self._residents.resident(self._listed[key]).tobytes()
            self._made[key] = Graph(key, model, self._options)
        return self._made[key]

    def close(self) -> None:
        """Give back the sessions. Idempotent."""
        self._made.clear()
