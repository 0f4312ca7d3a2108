"""A pack's sessions by the names of its graphs, and the kind of weights that each variant takes.

In: a pack's graphs, and whether this processor's product of u8 by s8 saturates. Out: a ``Graph``
for a name, made on first use and kept. Knows nothing of what graphs are fed.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from functools import cache

from sti.backend.interface import ResidentTensors
from sti.backend.onnxruntime.products import saturates
from sti.backend.onnxruntime.session import Graph, session_options
from sti.codec.weights import WeightForm
from sti.graphs.interfaces import EMBED, unfed
from sti.planning.plan import EXACT, NARROW


def weight_forms(*, saturates: bool) -> Mapping[str, WeightForm]:
    """How weights are written for each variant.

    Args:
        saturates: as ``GraphSessions`` found.
    """
    return {EXACT: "u8" if saturates else "s8", NARROW: "s7"}


def block_graph(names: Collection[str], kind: str, form: WeightForm, *, masked: bool) -> str:
    """The name of a block kind's graph: the masked one where it is asked for and there is one."""
    name = f"{kind}_masked.{form}"
    return name if masked and name in names else f"{kind}.{form}"


class GraphSessions:
    """The sessions of one pack. Threads may share it, each with a lane of its own.

    Args:
        residents: where the graphs' bytes lie; must stay open.
        threads: threads of each product. Sessions with one serve any number of callers at once.
        saturates: whether products of u8 by s8 are wrong where they are large; None lets a product
            decide (they are on x86 without VNNI).

    Attributes:
        saturates: as given or found.
        weights: how weights are written for each variant; graphs are named after it.
    """

    def __init__(
        self,
        residents: ResidentTensors,
        *,
        threads: int,
        saturates: bool | None,
    ) -> None:
        self._residents = residents
        self._listed = residents.manifest.graphs
        self._options = session_options(threads)
        self._lock = threading.Lock()
        self._made: dict[str, Graph] = {}
        self.saturates = _saturates() if saturates is None else saturates
        self.weights = weight_forms(saturates=self.saturates)

    def prepare(self, variants: Collection[str]) -> None:
        """Make the sessions that every run of these variants needs; others on first use."""
        for name in (EMBED, "connect", "head"):
            if name not in unfed(self._residents.manifest):
                self.graph(name)
        for kind in self._residents.manifest.kinds:
            for variant in variants:
                self.block(kind.name, variant=variant, masked=False)

    def block(self, kind: str, *, variant: str, masked: bool) -> Graph:
        """The session of a block kind's graph. Its binding is nobody's: take ``another``.

        Args:
            variant: how products are computed.
            masked: prefer the graph for groups with padding, where there is one.

        Raises:
            BackendError: ONNX Runtime refuses the graph.
        """
        return self.graph(block_graph(self._listed, kind, self.weights[variant], masked=masked))

    def graph(self, name: str) -> Graph:
        """The session of a graph, with a binding.

        Raises:
            BackendError: ONNX Runtime refuses the graph.
            PackFormatError: the pack does not have it, or it is not what graphs may be.
        """
        found = self._made.get(name)
        if found is None:
            with self._lock:
                found = self._made.get(name)
                if found is None:
                    found = self._made[name] = Graph(
                        name, self._residents.graph(name), self._options
                    )
        return found

    def close(self) -> None:
        """Give back the sessions. Idempotent."""
        self._made.clear()


@cache
def _saturates() -> bool:
    """Whether this processor's product does: asked once in a process."""
    return saturates(session_options(1))
