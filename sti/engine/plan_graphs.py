"""Plans held as graphs: opened from the cache, or built for it.

In: an open pack, plans and the jobs of their steps. Out: a ``PlanGraph`` for ``Runner.run_graph``.
Its weights are mapped from a file, so that the system can take their memory back. When to hold a
plan so is decided elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from sti.backend.interface import SentenceState
from sti.backend.onnxruntime.graph_sessions import weight_forms
from sti.backend.onnxruntime.packed_size import packed_bytes
from sti.backend.onnxruntime.plan_session import PlanSession
from sti.backend.onnxruntime.release import ort_version
from sti.calibration.cache import cache_directory
from sti.device.identity import instruction_set
from sti.engine.graph_building import GraphBuilder
from sti.engine.graph_cache import GRAPHS, MOST_BYTES, GraphCache
from sti.engine.graph_files import CachedGraph
from sti.errors import BackendError, GraphError, LimitError
from sti.notices import Notify
from sti.pack.pack_reader import PackReader
from sti.planning.plan import Plan
from sti.planning.step_jobs import StepJob
from sti.storage.digest import sha256

_VERSION = 2
"""Raised with every change of what a graph of the same steps holds."""


class PlanGraph:
    """A plan held as a graph (``sti.backend.interface.BlocksGraph``). Not thread-safe.

    Attributes:
        threads: that compute it.
        helper: native id of the thread beside the caller's, where it is known.
        mapped_bytes: of packed weights.
    """

    def __init__(self, kept: CachedGraph, session: PlanSession) -> None:
        self._kept, self._session = kept, session
        self.threads, self.mapped_bytes = session.threads, kept.packed_bytes
        self.helper = session.helper

    def unchanged(self) -> bool:
        """Whether its files are as they were when their digests were compared; microseconds."""
        return self._kept.unchanged()

    def run(self, state: SentenceState) -> None:
        """Compute all blocks on a state's hidden states.

        Raises:
            GraphError: a file of the graph was changed, before or meanwhile; neither the graph nor
                the state may be used any more.
            BackendError: as ``BlocksGraph.run``.
        """
        self._check()
        self._session.run(state)
        self._check()  # weights are read from the files while they are computed with

    def _check(self) -> None:
        if not self.unchanged():
            raise GraphError(
                f"{self._kept.directory}: was changed while it was in use, or was closed; a graph "
                "is built again by itself"
            )

    def close(self) -> None:
        """Give back the session, its threads and the files. Idempotent."""
        self._session.close()
        self._kept.close()


class PlanGraphs:
    """The graphs of one pack's plans. ``end`` and ``cancel`` may be called by any thread, and what
    only asks; the rest by one.

    Args:
        reader: must stay open.
        threads: that compute a graph.
        saturates: as ``OrtBackend.saturates``.
        notify: told of graphs that could not be used.
        directory: the cache; ``graphs`` in the user's cache directory by default.
        most_bytes: of all graphs together.
        builder: builds graphs.
    """

    def __init__(
        self,
        reader: PackReader,
        *,
        threads: int,
        saturates: bool,
        notify: Notify,
        directory: Path | None = None,
        most_bytes: int = MOST_BYTES,
        builder: GraphBuilder | None = None,
    ) -> None:
        self._reader, self._threads, self._notify = reader, threads, notify
        self._saturates, self._most_bytes = saturates, most_bytes
        self._cache = GraphCache(directory or cache_directory() / GRAPHS, most_bytes=most_bytes)
        self._builder = builder or GraphBuilder()

    def open(self, jobs: Sequence[StepJob]) -> PlanGraph | None:
        """The graph of a plan's steps, if there is one that is sound.

        Its files are read once to find out. What cannot be used is removed, if it can be, and told.
        """
        try:
            return self._open(self._name(jobs))
        except GraphError as error:
            self._notify(str(error))
            return None

    def build(self, plan: Plan, jobs: Sequence[StepJob]) -> PlanGraph:
        """The graph of a plan; built by another process where there is none. Takes seconds.

        Raises:
            GraphError: no graph can be built or kept here, or ``end`` or ``cancel`` was called;
                says why.
            PackError, StorageError, BackendError: the pack is damaged or cannot be read, or its
                graphs cannot be joined.
        """
        self.write(plan, jobs)
        found = self._open(self._name(jobs))
        if found is None:
            raise GraphError(
                f"{self._cache.directory}: a graph was removed as soon as it was built"
            )
        return found

    def keeps(self, jobs: Sequence[StepJob]) -> bool:
        """Whether there is a graph of a plan's steps, sound or not."""
        return self._cache.keeps(self._name(jobs))

    def share(self, jobs: Sequence[StepJob], others: Sequence[StepJob]) -> bool:
        """Whether the steps of two plans have the same graph."""
        return self._name(jobs) == self._name(others)

    def write(
        self, plan: Plan, jobs: Sequence[StepJob], *, wanted: Callable[[], bool] = lambda: True
    ) -> None:
        """Have the graph of a plan built by another process, unless it is kept already.

        Args:
            wanted: as of ``GraphBuilder.build``.

        Raises:
            As ``build``; nothing of the graph is left then.
        """
        name = self._name(jobs)
        if self._cache.keeps(name):
            return
        self._cache.check_room(packed_bytes(self._reader.manifest, jobs))
        task = {
            "pack": str(Path(self._reader.path).absolute()),
            "plan": replace(plan, predicted=None).to_json(),
            "saturates": self._saturates,
            "cache": str(self._cache.directory),
            "most_bytes": self._most_bytes,
            "name": name,
        }
        try:
            self._builder.build(task, wanted=wanted)
        except GraphError:
            self._cache.clean()  # a process that was killed leaves what it had written
            raise

    def end(self) -> None:
        """End what is being built, if anything is."""
        self._builder.end()

    def cancel(self) -> None:
        """End what is being built, and build nothing any more; for when the engine is closed."""
        self._builder.cancel()

    def _open(self, name: str) -> PlanGraph | None:
        kept = self._cache.find(name)
        if kept is None:
            return None
        try:
            session = PlanSession(kept.directory, threads=self._threads)
            if not kept.is_in_place():
                session.close()
                raise GraphError(f"{kept.directory}: was changed while it was opened")
        except BackendError as error:
            kept.close()
            self._cache.remove(name)
            raise GraphError(f"a kept graph is removed: {error}") from error
        except LimitError as error:
            kept.close()
            raise GraphError(f"a kept graph cannot be opened: {error}") from error
        except BaseException:
            kept.close()
            raise
        self._cache.used(kept)
        return PlanGraph(kept, session)

    def _name(self, jobs: Sequence[StepJob]) -> str:
        """Named after everything that the files depend on."""
        forms = weight_forms(saturates=self._saturates)
        steps = [
            (
                *(job.group.layer, job.group.kind, job.group.number, job.used),
                forms[job.variant],
                job.shards["planes"].tolist(),
            )
            for job in jobs
        ]
        hashes = self._reader.manifest.sha256
        key = (_VERSION, self._reader.pack_id, *hashes, instruction_set(), ort_version(), steps)
        return sha256(json.dumps(key).encode()).hexdigest()[:32]
