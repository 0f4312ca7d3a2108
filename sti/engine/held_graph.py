"""A plan that is held as a graph, where a budget of memory has room for one.

In: the plan that is to be held so, what its runs took. Out: the plan as it runs through the graph,
once that is there. Graphs are built by another process and opened on a thread of their own. Until
then, and wherever there can be none, plans are streamed. The engine's lock serialises all but that.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sti.engine.graph_parts import graph_parts
from sti.engine.graph_times import GraphTimes
from sti.engine.machine import Machine
from sti.engine.plan_graphs import PlanGraph, PlanGraphs
from sti.engine.prepared import PreparedPlan
from sti.errors import GraphError, RunError, StiError
from sti.model.manifest import Manifest
from sti.model.workload import Workload
from sti.notices import Notify
from sti.pipeline.workers import Worker
from sti.planning.plan import Target

_MOST_REFUSED = 3
"""Runs in a row that the latency left no time for; then the graph is given up."""
_BUILT_AFTER = 2
"""Runs from which on a graph is built that is not kept: short-lived processes build none."""
_CLOSED_S = 0.05
"""Seconds after which it is looked whether the engine is being closed."""
_log = logging.getLogger(__name__)


class HeldGraph:
    """The graph of one engine.

    Args:
        graphs: opens and builds them.
        manifest: of the pack.
        machine: says what a run would take.
        lock: the engine's.
        make_way: called with the lock before memory is taken, when ``size`` tells how much.
        notify: told where there can be no graph.
    """

    def __init__(
        self,
        graphs: PlanGraphs,
        manifest: Manifest,
        machine: Machine,
        lock: threading.RLock,
        make_way: Callable[[], None],
        notify: Notify,
    ) -> None:
        self._graphs, self._manifest = graphs, manifest
        self._lock, self._make_way, self._notify = lock, make_way, notify
        self._worker = Worker("sti-graph")
        self._wanted: PreparedPlan | None = None
        self._wanted_size = self._session_size = 0
        self._graph: PlanGraph | None = None
        self._opening = self._forgotten = False
        self._runs = self._refused = 0
        self._failed = self._closed = self._paused = False
        self._times = GraphTimes(manifest, machine)
        self._settled = threading.Event()
        self._settled.set()

    @property
    def size(self) -> int:
        """Bytes that the graph takes: 0 where there is none."""
        return 0 if self._graph is None and not self._opening else self.wanted_size

    @property
    def wanted_size(self) -> int:
        """Bytes that the graph takes that is wanted; 0 where none is."""
        return self._wanted_size

    @property
    def session_size(self) -> int:
        """Bytes of ``size`` that are no mapped weights."""
        return self._session_size if self.size else 0

    @property
    def mapped_bytes(self) -> int:
        """Bytes of weights that are mapped now."""
        return 0 if self._graph is None else self._graph.mapped_bytes

    def want(self, prepared: PreparedPlan | None, *, later: bool = False) -> None:
        """Hold another plan, or none, from now on; what is built for the one before is ended.

        Args:
            later: from ``fill`` on.
        """
        self.release()
        before, self._wanted = self._wanted, prepared
        self._failed = self._opening = False
        if not self._settled.is_set() and not self._share(before, prepared):
            self._graphs.end()
        parts = () if prepared is None else graph_parts(self._manifest, prepared, loaded=True)
        self._wanted_size = sum(part.size for part in parts)
        self._session_size = sum(part.size for part in parts if not part.mapped)
        self._times.forget()
        self._paused, self._forgotten = later, False
        self._runs = self._refused = 0
        kept = prepared is not None and self._graphs.keeps(prepared.jobs)
        self.fill(wanted=kept and not later)

    def _share(self, one: PreparedPlan | None, other: PreparedPlan | None) -> bool:
        """Whether two plans are held by the same graph."""
        return one is not None and other is not None and self._graphs.share(one.jobs, other.jobs)

    def has_run(self) -> bool:
        """Take note of a run; whether it is time to build a graph that is not kept."""
        self._runs += 1
        self._forgotten = False
        return self._runs >= _BUILT_AFTER

    def fill(self, *, wanted: bool = True) -> None:
        """Begin to open the graph that is wanted, unless it is there, or there can be none."""
        if self._forgotten:
            return
        self._paused = self._paused and not wanted
        idle = wanted and self._graph is None and self._settled.is_set()
        if idle and self._wanted is not None and not (self._failed or self._closed):
            self._settled.clear()
            try:
                self._worker.submit(self._fill)
            except RunError as error:
                self._settled.set()
                self._failed = True
                self._tell(f"weights are held compressed, not as a graph: {error}")

    def wait(self, timeout_s: float | None) -> bool:
        """Wait until the graph that is wanted is there; False where there is none by then."""
        with self._lock:
            if self._wanted is not None and not self._waits:
                self.fill()
        return self._settled.wait(timeout_s) and self._graph is not None

    def pause(self) -> None:
        """Give the graph's memory back, and open none until ``fill``; building goes on."""
        self._paused = True
        self.release()

    @property
    def _waits(self) -> bool:
        """Whether none is to be opened now."""
        return self._paused or self._forgotten

    @property
    def is_forgotten(self) -> bool:
        """Whether one that is wanted waits for the next run."""
        return self._forgotten and self._wanted is not None

    @property
    def paused_size(self) -> int:
        """Bytes that a graph takes which waits for ``fill`` alone."""
        return self.wanted_size if self._paused and not (self._failed or self._forgotten) else 0

    def forget(self) -> None:
        """Open no graph until the next run, whatever is under way."""
        self._forgotten = True
        self.release()

    def release(self) -> None:
        """Give the graph's memory back, until ``fill``."""
        graph, self._graph = self._graph, None
        if graph is not None:
            graph.close()

    def close(self) -> None:
        """End what is built or opened, and give everything back. Idempotent."""
        self._closed = True
        self._graphs.cancel()
        self._worker.close()
        self.release()

    def plan_for(self, workload: Workload, limits: Target) -> PreparedPlan | None:
        """The plan of a run through the graph; None where there is none, or it would be late.

        Args:
            workload: of the run.
            limits: what is aimed at, which the plan is for.
        """
        wanted, graph = self._wanted, self._graph
        if graph is None or wanted is None:
            return None
        if not graph.unchanged():
            self.was_changed()
            return None
        plan = self._times.planned(wanted.plan, workload, limits)
        if plan is None:
            self._refused_too_often()
            return None
        self._refused = 0
        return wanted._replace(plan=plan, basis=None, graph=graph)

    def was_changed(self) -> None:
        """Use the graph no more, whose files are not as they were, and have it built again."""
        self.release()
        self._tell("the graph that holds the weights was changed, and is not used any more")
        self.fill()

    def note(self, workload: Workload, run_s: float) -> None:
        """Take note of what a run through the graph took.

        Args:
            workload: as of ``plan_for``.
            run_s: seconds, without those of planning.
        """
        self._times.note(workload, run_s)

    def _refused_too_often(self) -> None:
        """Give a graph up that the latency leaves no time for: weights are held compressed."""
        self._refused += 1
        if self._refused >= _MOST_REFUSED:
            self._failed = True
            self.release()
            self._tell(
                "runs through the graph take longer than the latency: weights are held compressed"
            )

    def _tell(self, line: str) -> None:
        """Tell; who cannot be told stops nothing."""
        try:
            self._notify(line)
        except Exception:
            _log.warning("a notice could not be told: %s", line, exc_info=True)

    def _fill(self) -> None:
        """Open what is wanted, until nothing else is."""
        try:
            while True:
                with self._engine():
                    wanted = self._wanted
                    done = self._graph is not None or self._failed or self._waits
                    if wanted is None or done:
                        self._settled.set()
                        return
                try:
                    self._open(wanted)
                except _Closed:
                    raise
                except Exception as error:
                    with self._engine():
                        if wanted is not self._wanted:
                            continue  # it may have been ended for that
                        self._failed = True
                    if not isinstance(error, StiError):
                        _log.warning("a graph could not be built", exc_info=True)
                    self._tell(f"weights are held compressed, not as a graph: {error}")
        except _Closed:
            self._settled.set()

    @contextmanager
    def _engine(self) -> Iterator[None]:
        """With the engine's lock, which whoever closes the engine has while waiting for this."""
        while not self._lock.acquire(timeout=_CLOSED_S):
            if self._closed:
                raise _Closed
        try:
            if self._closed:
                raise _Closed
            yield
        finally:
            self._lock.release()

    def _open(self, wanted: PreparedPlan) -> None:
        """Have the graph built unless it is kept, make way for it, and open it."""
        for _ in range(2):  # one that is kept may prove damaged
            self._graphs.write(wanted.plan, wanted.jobs, wanted=lambda: wanted is self._wanted)
            with self._engine():
                if wanted is not self._wanted or self._waits:
                    return
                self._opening = True
                self._make_way()
            graph = None
            try:
                graph = self._graphs.open(wanted.jobs)
            finally:
                self._take(wanted, graph)
            if graph is not None:
                return
        raise GraphError("what was built cannot be opened")

    def _take(self, wanted: PreparedPlan, graph: PlanGraph | None) -> None:
        """Have the graph from now on, if it is still wanted."""
        try:
            with self._engine():
                self._opening = False
                if wanted is self._wanted and not self._waits:
                    self._graph, graph = graph, None
                    self._times.opened()
        finally:
            if graph is not None:
                graph.close()


class _Closed(Exception):
    """The engine is being closed."""
