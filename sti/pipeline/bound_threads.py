"""A core each for the two threads of a run that are always busy, where a machine has just two.

In: the threads of a run. Effect: while it lasts, its two threads are bound, unless others want the
cores, which is learned from how long bound runs waited. Knows nothing of what the threads do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sti.device import host
from sti.device.affinity import Binding, apart
from sti.device.lanes import LaneThreads
from sti.pipeline.workers import Worker


class BoundThreads:
    """Binds the threads of one engine's runs. One run at a time."""

    def __init__(self) -> None:
        self._binding = Binding()
        self._cores = [core.index for core in host.cores()]

    @contextmanager
    def of_lanes(
        self, threads: LaneThreads, storage: Worker, workers: Sequence[Worker]
    ) -> Iterator[bool]:
        """While lanes work: the caller and the other thread that is always busy, if there are just
        two cores for just the two of them. Gives whether they are bound.
        """
        two = len(self._cores) == threads.decode + threads.compute == 2
        if not two or not self._binding.wanted():
            yield False
            return
        storage.start()  # now, or it would be born bound to the caller's core
        with self._apart(workers[0].start()) as bound:
            yield bound

    @contextmanager
    def of_graph(self, helper: int | None) -> Iterator[bool]:
        """While a graph runs: the caller and the graph's own thread, if it has one and that is
        known. Gives whether they are bound.
        """
        wanted = helper is not None and self._binding.wanted()
        with self._apart(helper if wanted else None) as bound:
            yield bound

    def learn(self, waited_share: float | None) -> None:
        """A bound run is over; as ``Binding.learn``."""
        self._binding.learn(waited_share)

    @contextmanager
    def _apart(self, thread: int | None) -> Iterator[bool]:
        if thread is None:
            yield False
            return
        with apart(self._cores, thread) as bound:
            yield bound
